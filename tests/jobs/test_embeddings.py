"""Embeddings in files: mapped where that is possible, never unpickled, and one line for whatever cannot be read."""

import zipfile

import numpy as np
import pytest

from contrastive_jax.errors import UsageError
from contrastive_jax.jobs import embeddings

U, V = np.random.default_rng(0).normal(size=(2, 6, 3)).astype(np.float32)
LABELS = np.array([0, 1, 0, 1, 2, 0])


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


pytestmark = pytest.mark.usefixtures("here")


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8", ">f4"])
def test_an_uncompressed_npz_is_mapped(order, dtype):
    u = np.asarray(U, dtype=dtype, order=order)
    np.savez("pairs.npz", other=np.arange(7), u=u, v=V, labels=LABELS)
    found = embeddings.read_pairs(["pairs.npz"])
    assert isinstance(found.u, np.memmap) and not found.u.flags.writeable
    np.testing.assert_array_equal(found.u, u)
    np.testing.assert_array_equal(found.v, V)
    np.testing.assert_array_equal(found.labels, LABELS)
    assert found.ids is None and found.rows is None


def test_a_compressed_npz_is_read():
    np.savez_compressed("pairs.npz", u=U, v=V, ids=np.array([b"a", b"b", b"a", b"c", b"d", b"e"]))
    found = embeddings.read_pairs(["pairs.npz"])
    np.testing.assert_array_equal(found.u, U)
    assert found.ids.tolist() == ["a", "b", "a", "c", "d", "e"]


def test_two_npy_files_with_labels_and_ids():
    for name, x in {"u": U, "v": V, "labels": LABELS, "ids": LABELS + 1}.items():
        np.save(name, x)
    found = embeddings.read_pairs(["u.npy", "v.npy"], labels="labels.npy", ids="ids.npy")
    assert isinstance(found.v, np.memmap)
    np.testing.assert_array_equal(found.v, V)
    assert found.labels.tolist() == LABELS.tolist() and found.ids.tolist() == (LABELS + 1).tolist()


@pytest.mark.parametrize("paths", [["x.npz"], ["features.npz"], ["x.npy"]])
def test_pairs_by_label_of_one_array(paths):
    np.savez("x.npz", x=U, labels=LABELS)
    np.savez("features.npz", features=U, x=V)
    np.save("x.npy", U)
    np.save("labels.npy", LABELS)
    found = embeddings.read_pairs(paths, pairs="labels", labels="labels.npy", array=paths[0].partition(".")[0])
    rows, partners = found.rows
    assert rows.tolist() == [0, 1, 2, 3, 5] and found.alone == 1
    assert found.u.shape == (5, 3) and found.u.dtype == np.float32
    np.testing.assert_array_equal(found.u[:], U[rows])
    np.testing.assert_array_equal(found.v[np.array([1, 3, 4])], U[partners[[1, 3, 4]]])
    assert found.ids.tolist() == found.labels.tolist() == LABELS[rows].tolist() == LABELS[partners].tolist()


class Payload:
    def __reduce__(self):
        return open, ("executed", "w")


def write_pickle():
    np.savez("pairs.npz", u=np.array([Payload()], object), v=V)


def write_pickled_npy():
    np.save("u.npy", np.array([Payload()], object), allow_pickle=True)


def write_short_npy():
    np.save("u.npy", U)
    with open("u.npy", "r+b") as file:
        file.truncate(190)


def write_short_member():
    np.save("u.npy", U)
    with zipfile.ZipFile("pairs.npz", "w") as archive, open("u.npy", "rb") as file:
        archive.writestr("u.npy", file.read()[:-4])


def write_bomb():
    with zipfile.ZipFile("pairs.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("u.npy", bytes(2**21))


def write_text():
    for name in ("pairs.npz", "u.npy"):
        with open(name, "w") as file:
            file.write("not an array")


def write_one_set():
    np.savez("pairs.npz", z=U, u=U)


def write_labels(labels):
    return lambda: np.savez("pairs.npz", u=U, v=V, x=U, labels=labels)


@pytest.mark.parametrize(
    ("write", "arguments", "message"),
    [
        (write_pickle, {"paths": ["pairs.npz"]}, "pairs.npz: expected an .npz with .* holds Python objects"),
        (write_pickled_npy, {"paths": ["u.npy", "u.npy"]}, "u.npy: expected a .npy .* holds Python objects"),
        (write_short_npy, {"paths": ["u.npy", "u.npy"]}, r"u.npy: .*shape \[6, 3\], 72 bytes; it holds 62"),
        (write_short_member, {"paths": ["pairs.npz"]}, r"announces float32 of shape \[6, 3\], 72 bytes; it holds 68"),
        (write_bomb, {"paths": ["pairs.npz"]}, "it would expand to 2097152 bytes"),
        (write_text, {"paths": ["pairs.npz"]}, "pairs.npz: .* cannot be read: File is not a zip file"),
        (write_text, {"paths": ["u.npy", "u.npy"]}, "u.npy: .* cannot be read: the magic string"),
        (write_one_set, {"paths": ["pairs.npz"]}, r"expected arrays u and v \[n, d\], or x .*, got u\."),
        (write_one_set, {"paths": ["pairs.npz"], "pairs": "labels"}, r"expected x .* and labels .*, got u\."),
        (lambda: None, {"paths": ["pairs.npz"]}, "pairs.npz: expected an .npz .*, got no such file"),
        (lambda: None, {"paths": ["u.npy", "v.npy"]}, "u.npy: expected a .npy file, got no such file"),
        (lambda: None, {"paths": ["u.npy"]}, "two .npy files, or one .npy file with --pairs=labels, got u.npy"),
        (lambda: None, {"paths": ["a", "b", "c"]}, "expected one .npz, two .npy files.*, got a b c"),
        (write_labels(LABELS / 2), {"paths": ["pairs.npz"]}, "labels: expected integers or strings .*, got float64"),
        (write_labels(LABELS[:, None]), {"paths": ["pairs.npz"]}, r"of shape \[n\], got int64 of shape \[6, 1\]"),
        (
            write_labels(LABELS[:4]),
            {"paths": ["pairs.npz"], "pairs": "labels"},
            r"x \[n, d\] and labels \[n\] .*, got \[6, 3\] and \[4\]",
        ),
    ],
)
def test_what_cannot_be_read_is_one_line(write, arguments, message, monkeypatch, tmp_path):
    monkeypatch.setattr(embeddings, "_ALWAYS_BYTES", 2**20)
    write()
    with pytest.raises(UsageError, match=message) as raised:
        embeddings.read_pairs(**arguments)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "executed").exists()
