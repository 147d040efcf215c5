"""Embeddings of a whole data set: the same whether the pass was cut short or not, of one data set and one encoder."""

import json
import shutil

import jax
import numpy as np
import PIL.Image
import pytest

import contrastive_jax
from contrastive_jax.errors import UsageError
from contrastive_jax.jobs import embed
from contrastive_jax.jobs.encoder import Encoder
from tests.jobs.support import save_start, small


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs of other seeds, by these."""
    folder = tmp_path_factory.mktemp("runs")
    with jax.numpy_dtype_promotion("standard"):
        for seed in (0, 1):
            save_start(small(seed=seed), folder / str(seed))
    return folder


@pytest.fixture(scope="module")
def encoder(runs):
    return contrastive_jax.load(runs / "0", batch_size=8)


@pytest.fixture
def source(tmp_path):
    """Fifty images of a size that is not the encoder's."""
    images = np.random.default_rng(0).integers(0, 256, (50, 10, 9, 1), np.uint8)
    np.savez(tmp_path / "images.npz", image=images, label=np.arange(50) % 5)
    return f"npz:{tmp_path / 'images.npz'}"


def read(path):
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def stop_after(monkeypatch, batches):
    """Let so many batches be embedded, then raise as if the process ended."""
    original, done = Encoder.embed, []

    def embed_some(self, images):
        if len(done) == batches:
            raise KeyboardInterrupt
        done.append(1)
        return original(self, images)

    monkeypatch.setattr(Encoder, "embed", embed_some)
    return done


def test_every_image_in_order_with_its_name_and_label(encoder, source, tmp_path, capsys):
    path = embed.embed(encoder, source, tmp_path / "out" / "e.npz", part_size=16)
    found, images = read(path), np.load(source.removeprefix("npz:"))["image"]
    features, projections = encoder.embed(images)
    np.testing.assert_allclose(found["features"], features, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found["projections"], projections, rtol=0, atol=1e-6)
    assert found["features"].dtype == np.float32 and found["features"].shape == (50, encoder.num_features)
    assert found["labels"].tolist() == [k % 5 for k in range(50)]
    assert found["names"].tolist() == [f"image/{k}" for k in range(50)]
    about = json.loads(found["about"].item())
    assert (about["digest"], about["step"], about["source"]) == (encoder.digest, encoder.step, source)
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["e.npz"]
    said = capsys.readouterr().err.splitlines()
    assert len(said) <= 10 and said[-1].startswith("Embedding: 50 of 50 images, ")


@pytest.mark.parametrize("batches", [0, 1, 3, 6])
def test_a_pass_that_was_cut_short_goes_on(batches, encoder, source, tmp_path, monkeypatch):
    whole = embed.embed(encoder, source, tmp_path / "whole.npz", part_size=16)
    out, parts = tmp_path / "out.npz", tmp_path / "out.npz.parts"
    with monkeypatch.context() as patch:
        stop_after(patch, batches)
        with pytest.raises(KeyboardInterrupt):
            embed.embed(encoder, source, out, part_size=16)
    assert not out.exists() and len(list(parts.glob("0*.npz"))) == batches // 2
    with monkeypatch.context() as patch:
        done = stop_after(patch, 100)
        embed.embed(encoder, source, out, part_size=20)  # it goes on in parts of 16
    assert len(done) == 7 - batches // 2 * 2 and not parts.exists()
    assert all(np.array_equal(read(out)[name], x) for name, x in read(whole).items())


@pytest.mark.parametrize("part_size", [1, 5, 8, 13, 49, 50, 4096])
def test_parts_of_any_size(part_size, encoder, source, tmp_path):
    whole = read(embed.embed(encoder, source, tmp_path / "whole.npz"))
    found = read(embed.embed(encoder, source, tmp_path / "out.npz", part_size=part_size))
    assert all(np.array_equal(found[name], whole[name]) for name in ("features", "projections", "names", "labels"))


@pytest.mark.parametrize("damage", [lambda p: p.write_bytes(p.read_bytes()[:50]), lambda p: p.unlink()])
def test_a_part_that_is_not_whole_is_made_again(damage, encoder, source, tmp_path, monkeypatch):
    whole = embed.embed(encoder, source, tmp_path / "whole.npz", part_size=16)
    out = tmp_path / "out.npz"
    with monkeypatch.context() as patch:
        stop_after(patch, 6)
        with pytest.raises(KeyboardInterrupt):
            embed.embed(encoder, source, out, part_size=16)
    damage(tmp_path / "out.npz.parts" / "000001.npz")
    embed.embed(encoder, source, out, part_size=16)
    np.testing.assert_array_equal(read(out)["features"], read(whole)["features"])


def change_images(source, runs):
    path = source.removeprefix("npz:")
    np.savez(path, image=np.zeros((50, 10, 9, 1), np.uint8), label=np.arange(50) % 5)
    return contrastive_jax.load(runs / "0", batch_size=8), "data.content"


def change_encoder(source, runs):
    return contrastive_jax.load(runs / "1", batch_size=8), "digest"


@pytest.mark.parametrize("change", [change_images, change_encoder])
@pytest.mark.parametrize("done", [True, False])
def test_parts_of_others_are_refused(change, done, encoder, source, runs, tmp_path, monkeypatch):
    out = tmp_path / "out.npz"
    with monkeypatch.context() as patch:
        if not done:
            stop_after(patch, 3)
        with pytest.raises(KeyboardInterrupt) if not done else patch.context():
            embed.embed(encoder, source, out, part_size=16)
    before = {path: path.read_bytes() for path in tmp_path.rglob("out*") if path.is_file()}
    other, name = change(source, runs)
    with pytest.raises(
        UsageError, match=rf"expected embeddings of the same images .* got others: .*{name} \(there"
    ) as e:
        embed.embed(other, source, out, part_size=16)
    assert ("remove the file" if done else "remove the folder") in str(e.value) and "\n" not in str(e.value)
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("out*") if path.is_file()}


def test_a_file_that_is_done_is_left(encoder, source, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        patch.setattr(embed, "_remove_files", lambda _: None)  # as if the process had ended before
        out = embed.embed(encoder, source, tmp_path / "out.npz")
    before = out.stat().st_mtime_ns
    assert (tmp_path / "out.npz.parts").exists()
    embed.embed(encoder, source, out)
    assert (
        not (tmp_path / "out.npz.parts").exists()
        and out.stat().st_mtime_ns == before
        and "is there already" in capsys.readouterr().err
    )


def test_one_process_at_a_time_writes_a_file(encoder, source, tmp_path, monkeypatch):
    out, original, said = tmp_path / "out.npz", Encoder.embed, []

    def embed_while_another_starts(self, images):
        monkeypatch.setattr(Encoder, "embed", original)
        before = sorted((tmp_path / "out.npz.parts").iterdir())
        with pytest.raises(UsageError) as refused:
            embed.embed(encoder, source, out, part_size=16)
        assert sorted((tmp_path / "out.npz.parts").iterdir()) == before and not out.exists()
        said.append(str(refused.value))
        embed.embed(encoder, source, tmp_path / "another.npz", part_size=16)
        return original(self, images)

    monkeypatch.setattr(Encoder, "embed", embed_while_another_starts)
    embed.embed(encoder, source, out, part_size=16)
    (line,) = said
    assert line.startswith(f"--out={out}: expected a path that no other process writes to, got one in use (process ")
    assert line.endswith("Wait for it to end, stop it, or give another --out.") and "\n" not in line
    assert all(np.array_equal(x, read(out)[name]) for name, x in read(tmp_path / "another.npz").items())
    assert {path.name for path in tmp_path.iterdir()} == {"images.npz", "out.npz", "another.npz"}


def test_a_process_that_waited_for_the_lock_finds_the_file_done(encoder, source, tmp_path, monkeypatch, capsys):
    """Another process makes the file between this one's first look and its lock."""
    hold, out = embed.storage.hold_lock, tmp_path / "out.npz"

    def hold_late(folder, **options):
        monkeypatch.setattr(embed.storage, "hold_lock", hold)
        embed.embed(encoder, source, out)
        return hold(folder, **options)

    monkeypatch.setattr(embed.storage, "hold_lock", hold_late)
    done = stop_after(monkeypatch, 100)
    embed.embed(encoder, source, out)
    assert len(done) == 7 and "is there already" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"images.npz", "out.npz"}


def test_what_a_killed_process_leaves_is_no_file_of_others(encoder, source, tmp_path):
    parts = tmp_path / "out.npz.parts"
    parts.mkdir()
    for name in (".lock", ".plan.partial.json"):
        (parts / name).write_text("half")
    assert len(read(embed.embed(encoder, source, tmp_path / "out.npz"))["features"]) == 50
    assert not parts.exists()


def test_a_folder_of_files(runs, tmp_path):
    folder = tmp_path / "images"
    for k, name in enumerate(["b/2.png", "a.png", "b/ü 1.png"]):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(np.full((9, 8 + k, 3), 80 * k, np.uint8)).save(folder / name)
    np.savez(tmp_path / "rgb.npz", image=np.zeros((70, 8, 8, 3), np.uint8), label=np.arange(70) % 2)
    save_start(small(**{"data.source": f"npz:{tmp_path / 'rgb.npz'}", "batch_size": 16}), tmp_path / "run")
    encoder = contrastive_jax.load(tmp_path / "run", batch_size=2)
    found = read(embed.embed(encoder, f"folder:{folder}", tmp_path / "out.npz"))
    assert found["names"].tolist() == ["a.png", "b/2.png", "b/ü 1.png"] and "labels" not in found
    assert len(np.unique(found["features"], axis=0)) == 3
    grey = contrastive_jax.load(runs / "0", batch_size=2)
    with pytest.raises(UsageError, match=r"--source=folder:.*: expected images of 1 channels, .*, got 3"):
        embed.embed(grey, f"folder:{folder}", tmp_path / "grey.npz")
    assert not list(tmp_path.glob("grey*"))


def test_no_more_than_a_part_is_in_memory(encoder, source, tmp_path, monkeypatch):
    """While the parts are joined, one is read after the other."""
    order = []
    read_part, write_array = embed._read_part, embed._write_array

    def write(archive, name, shape, dtype, rows):
        def note():
            for part in rows:
                order.append(name)
                yield part

        write_array(archive, name, shape, dtype, note())

    def read_one(folder, k, count):
        found = read_part(folder, k, count)
        order.append(k if found else None)
        return found

    monkeypatch.setattr(embed, "_write_array", write)
    monkeypatch.setattr(embed, "_read_part", read_one)
    embed.embed(encoder, source, tmp_path / "out.npz", part_size=16)
    expected = [item for name in ("features", "projections") for k in range(4) for item in (k, name)]
    assert order == [None] * 4 + [0, *expected, "names", "labels", "about"]


@pytest.mark.parametrize(
    ("spec", "out", "message"),
    [
        ("npz:none.npz", "out.npz", "--source=npz:none.npz: .*got no such file"),
        ("digits", "out.csv", "out.csv: expected a name that ends in .npz"),
    ],
)
def test_what_cannot_be_is_one_line(spec, out, message, encoder, tmp_path):
    with pytest.raises(UsageError, match=message):
        embed.embed(encoder, spec, tmp_path / out)
    assert not list(tmp_path.iterdir())


def test_a_folder_of_other_files_is_not_taken(encoder, source, tmp_path):
    (tmp_path / "out.npz.parts").mkdir()
    (tmp_path / "out.npz.parts" / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"out.npz.parts: expected parts of embeddings, got other files"):
        embed.embed(encoder, source, tmp_path / "out.npz")
    shutil.rmtree(tmp_path / "out.npz.parts")
    (tmp_path / "out.npz").write_bytes(b"mine")
    with pytest.raises(UsageError, match=r"expected embeddings of the same images"):
        embed.embed(encoder, source, tmp_path / "out.npz")
    assert (tmp_path / "out.npz").read_bytes() == b"mine"
