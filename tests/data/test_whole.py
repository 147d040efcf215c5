"""Every image of a data set as one source: in order, named, with labels where there are any."""

import numpy as np
import PIL.Image
import pytest

from contrastive_jax.data import sources
from contrastive_jax.errors import SourceError


def save(folder, name, value, size=(8, 8)):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(np.full((*size, 3), value, np.uint8)).save(path)


def values_of(source):
    return source.take(np.arange(len(source)))[:, 0, 0, 0].tolist()


def test_a_folder_without_classes_at_any_depth(tmp_path):
    for k, name in enumerate(["z.png", "a/b/c.png", "a/a.png"]):
        save(tmp_path, name, k)
    (tmp_path / "notes.txt").write_text("no image")
    whole = sources.load_whole(f"folder:{tmp_path}")
    assert sources.names_of(whole) == ["a/a.png", "a/b/c.png", "z.png"]
    assert values_of(whole) == [2, 1, 0] and sources.labels_of(whole) is None and sources.num_classes_of(whole) is None


@pytest.mark.parametrize("layout", ["{label}/{k}.png", "train/{label}/{k}.png"])
def test_classes_of_a_folder_are_labels(layout, tmp_path):
    for k in range(20):
        save(tmp_path, layout.format(label="ab"[k % 2], k=f"{k:02d}"), k)
        if "train" in layout:
            save(tmp_path, f"test/b/{k:02d}.png", 100 + k)
    whole = sources.load_whole(f"folder:{tmp_path}")
    expected = ["ab".index(name.split("/")[-2]) for name in sources.names_of(whole)]
    assert whole.labels.tolist() == expected and whole.num_classes == 2
    assert len(whole) == (40 if "train" in layout else 20)


def test_an_image_beside_the_classes_leaves_all_without_labels(tmp_path):
    for k in range(10):
        save(tmp_path, f"{'ab'[k % 2]}/{k}.png", k)
    save(tmp_path, "stray.png", 99)
    whole = sources.load_whole(f"folder:{tmp_path}")
    assert len(whole) == 11 and whole.labels is None


def test_images_of_several_sizes_are_stored_as_a_run_stores_them(tmp_path):
    for k in range(5):
        for label in "ab":
            save(tmp_path, f"{label}/{k}.png", 10 * k, (20 + k, 30))
    whole = sources.load_whole(f"folder:{tmp_path}", image_size=14)
    train = sources.load(f"folder:{tmp_path}", split="train", image_size=14)
    assert whole.image_shape == train.image_shape == (16, 16, 3)
    taken = {image.tobytes() for image in train.take(np.arange(len(train)))}
    assert taken <= {image.tobytes() for image in whole.take(np.arange(len(whole)))}


def test_an_npz_keeps_its_order(tmp_path):
    images = np.arange(12, dtype=np.uint8)[:, None, None] * np.ones((1, 8, 8), np.uint8)
    np.savez(tmp_path / "x.npz", image=images[:9], label=np.arange(9) % 3, image_test=images[9:], label_test=[0, 1, 2])
    whole = sources.load_whole(f"npz:{tmp_path / 'x.npz'}")
    assert values_of(whole) == list(range(12)) and whole.labels.tolist() == [0, 1, 2] * 4
    assert sources.names_of(whole)[8:10] == ["image/8", "image_test/0"]


def test_an_npz_without_labels(tmp_path):
    np.savez(tmp_path / "x.npz", image=np.zeros((3, 8, 8), np.uint8))
    assert sources.load_whole(f"npz:{tmp_path / 'x.npz'}").labels is None


def test_other_data_sets_are_their_splits():
    whole, splits = sources.load_whole("digits"), sources.load_splits("digits")
    order = np.array([1436, 1437, 0, 1796])
    expected = [splits.train.images[1436], splits.test.images[0], splits.train.images[0], splits.test.images[359]]
    np.testing.assert_array_equal(whole.take(order), expected)
    assert whole.labels[1437] == splits.test.labels[0] and whole.num_classes == 10


def test_the_fingerprint_follows_the_files(tmp_path):
    save(tmp_path, "a.png", 1)
    before = sources.fingerprint(sources.load_whole(f"folder:{tmp_path}"))
    assert before == sources.fingerprint(sources.load_whole(f"folder:{tmp_path}"))
    (tmp_path / "a.png").rename(tmp_path / "b.png")
    assert before != sources.fingerprint(sources.load_whole(f"folder:{tmp_path}"))
    digits = sources.fingerprint(sources.load_whole("digits"))
    assert digits["content"].count("pixels") == 2 and digits["count"] == 1797


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("folder:{}/none", "expected a folder of images, got no such folder"),
        ("folder:{}", r"expected a folder of images \(BMP, .*\), got one without any"),
        ("npz:{}/none.npz", "got no such file"),
        ("npz:{}/empty.npz", "expected an array 'image', got none that is known"),
        ("nothing", "expected a data set digits, tfds:NAME"),
    ],
)
def test_what_is_no_data_set_is_refused(spec, message, tmp_path):
    np.savez(tmp_path / "empty.npz", other=np.zeros(2))
    with pytest.raises(SourceError, match=message):
        sources.load_whole(spec.format(tmp_path))


def test_a_broken_image_is_named(tmp_path):
    save(tmp_path, "a.png", 1)
    save(tmp_path, "b.png", 1)
    whole = sources.load_whole(f"folder:{tmp_path}")
    (tmp_path / "b.png").write_bytes(b"no image")
    with pytest.raises(SourceError, match=r"b\.png: expected a whole BMP"):
        whole.take(np.arange(2))
