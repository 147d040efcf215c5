"""One shape for both splits, near what the views need, whatever the sizes of the images and where they come from."""

import numpy as np
import pytest
from PIL import Image

from contrastive_jax.data import _pixels, _stored, sources
from contrastive_jax.errors import SourceError


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def make_source(kind, tmp_path, monkeypatch, train, test):
    """A data set whose train and test images have the sizes (height, width) `train` and `test`, each used twice."""
    images = {
        split: [noise(*size, k) for k, size in enumerate(2 * sizes)]
        for split, sizes in (("train", train), ("test", test))
    }
    match kind:
        case "folder":
            for split, arrays in images.items():
                (tmp_path / split / "a").mkdir(parents=True)
                for number, array in enumerate(arrays):
                    Image.fromarray(array).save(tmp_path / split / "a" / f"{number}.png")
            return f"folder:{tmp_path}"
        case "npz":
            arrays = {"image": np.stack(images["train"]), "image_test": np.stack(images["test"])}
            labels = {"label": np.zeros(len(images["train"]), int), "label_test": np.zeros(len(images["test"]), int)}
            np.savez(tmp_path / "a.npz", **arrays, **labels)
            return f"npz:{tmp_path / 'a.npz'}"
    (tmp_path / f"own_{tmp_path.name}.py").write_text("make = None\n")
    monkeypatch.syspath_prepend(tmp_path)
    module = __import__(f"own_{tmp_path.name}")
    module.make = lambda split: sources.ArraySource(np.stack(images[split]))
    return f"own_{tmp_path.name}:make"


def shapes(spec, **options):
    train, test = sources.load_splits(spec, **options)
    for split, source in (("train", train), ("test", test)):
        assert source.take(np.arange(len(source))).shape == (len(source), *source.image_shape)
        assert sources.load(spec, split=split, **options).image_shape == source.image_shape
    return train.image_shape, test.image_shape


def test_one_image_of_another_size_in_one_split(tmp_path, monkeypatch):
    spec = make_source("folder", tmp_path, monkeypatch, [(16, 16)], [(16, 16), (16, 17)])
    assert shapes(spec, image_size=16) == ((18, 18, 3), (18, 18, 3))


@pytest.mark.parametrize("kind", ["folder", "npz", "own"])
@pytest.mark.parametrize(
    ("train", "test", "image_size", "want"),
    [
        ((16, 16), (16, 16), 14, (16, 16, 3)),
        ((16, 16), (16, 16), 16, (16, 16, 3)),
        ((20, 12), (20, 12), 14, (20, 12, 3)),  # no more pixels than 16 x 16
        ((20, 13), (20, 13), 14, (16, 16, 3)),
        ((60, 80), (60, 80), 14, (16, 16, 3)),
        ((60, 80), (60, 80), None, (60, 80, 3)),
        ((16, 16), (16, 17), 16, (18, 18, 3)),
        ((60, 80), (16, 16), 14, (16, 16, 3)),
    ],
)
def test_the_rule_is_the_same_for_every_kind(kind, train, test, image_size, want, tmp_path, monkeypatch):
    spec = make_source(kind, tmp_path, monkeypatch, [train], [test])
    assert shapes(spec, image_size=image_size) == (want, want)
    assert shapes(spec, image_size=image_size, stored_size=10) == ((10, 10, 3), (10, 10, 3))


@pytest.mark.parametrize("kind", ["folder", "npz", "own"])
def test_different_shapes_need_a_size(kind, tmp_path, monkeypatch):
    spec = make_source(kind, tmp_path, monkeypatch, [(16, 16)], [(16, 17)])
    with pytest.raises(SourceError, match=r"got 2 shapes: \(16, 16\), \(16, 17\); give image_size or stored_size"):
        sources.load(spec, split="train")


@pytest.mark.parametrize(("height", "image_size"), [(8, 8), (28, 28), (32, 32), (32, 28)])
def test_small_images_are_stored_as_they_are(height, image_size):
    assert _stored.stored_side([(height, height)], image_size=image_size, stored_size=None, name="x") is None


def test_digits_are_stored_by_the_rule_too():
    assert sources.load("digits", split="test", image_size=8).image_shape == (8, 8, 1)
    assert sources.load("digits", split="test", image_size=4).image_shape == (5, 5, 1)


def test_memory_of_photographs_is_that_of_what_is_stored(tmp_path):
    """A cache of [n, 16, 16, 3], not of [n, 1200, 1600, 3]."""
    (tmp_path / "train" / "a").mkdir(parents=True)
    Image.fromarray(noise(1200, 1600)).save(tmp_path / "train" / "a" / "0.jpg")
    source = sources.load(f"folder:{tmp_path}", split="train", image_size=14)
    assert source.take(np.arange(1)).nbytes == source._cache.images.nbytes == 16 * 16 * 3


@pytest.mark.parametrize(("mode", "form"), [("RGB", "JPEG"), ("L", "JPEG"), ("CMYK", "JPEG"), ("RGB", "MPO")])
@pytest.mark.parametrize("size", [(1600, 1200), (601, 803)])
def test_a_jpeg_decoded_small_is_the_image(mode, size, form, tmp_path):
    """Within what two resamplings of a smooth image may differ by."""
    y, x = np.mgrid[: size[1], : size[0]]
    smooth = np.stack([128 + 100 * np.sin(x / 150), 128 + 100 * np.cos(y / 130), (x + y) % 256 // 4], -1)
    image = Image.fromarray(smooth.astype(np.uint8)).convert(mode)
    more = {"save_all": True, "append_images": [image]} if form == "MPO" else {}
    image.save(tmp_path / "0.jpg", form, quality=98, **more)
    with Image.open(tmp_path / "0.jpg") as whole:
        want = _pixels.resize_array(np.asarray(whole.convert("RGB")), 64)
    got = _pixels.decode(str(tmp_path / "0.jpg"), shape=(64, 64, 3), stored_size=64)
    assert np.abs(got.astype(int) - want).mean() < 1
