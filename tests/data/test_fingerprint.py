"""Fingerprints: the same for the same data, and a line that says what differs for any other."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from contrastive_jax.data import _fingerprint, sources

IMAGES = np.random.default_rng(0).integers(0, 256, (400, 4, 4, 1), np.uint8)
LABELS = np.arange(400) % 5


class Own:
    """A source that has nothing but what it must."""

    def __init__(self, images=IMAGES):
        self.images, self.image_shape = images, images.shape[1:]

    def __len__(self):
        return len(self.images)

    def take(self, indices):
        return self.images[indices]


def difference(old, new):
    """What is said of two sources, the first of whose fingerprints went through a file."""
    kept = json.loads(json.dumps(sources.fingerprint(old)))
    assert sources.compare_fingerprints(kept, sources.fingerprint(old)) is None
    return sources.compare_fingerprints(kept, sources.fingerprint(new))


def changed(index):
    images = IMAGES.copy()
    images[index, 1, 2] ^= 1
    return images


@pytest.mark.parametrize(
    ("new", "line"),
    [
        (sources.ArraySource(IMAGES.copy(), LABELS.copy(), name="another"), None),
        (
            sources.ArraySource(np.tile(IMAGES, (2, 1, 1, 1))[:600], np.arange(600) % 5),
            "expected the 400 images this run began with, got 600",
        ),
        (
            sources.ArraySource(IMAGES.reshape(400, 2, 8), LABELS),
            "expected images of shape [4, 4, 1], with which this run began, got [2, 8, 1]",
        ),
        (sources.ArraySource(IMAGES), "expected 5 classes, with which this run began, got images without labels"),
        (
            sources.ArraySource(IMAGES, np.arange(400) % 6),
            "expected 5 classes, with which this run began, got 6 classes",
        ),
        (
            sources.ArraySource(IMAGES, LABELS[::-1].copy()),
            "expected the labels this run began with, got as many others",
        ),
        (sources.ArraySource(changed(237), LABELS), "expected the images this run began with, got as many others"),
    ],
)
def test_arrays(new, line):
    assert difference(sources.ArraySource(IMAGES, LABELS), new) == line


def test_an_own_object_is_sampled():
    assert difference(Own(), Own(IMAGES.copy())) is None
    for index in (0, 399):
        assert difference(Own(), Own(changed(index))) == "expected the images this run began with, got as many others"
    assert difference(Own(), Own(IMAGES[:399])) == "expected the 400 images this run began with, got 399"


def test_arrays_too_large_to_hash_are_sampled(monkeypatch):
    monkeypatch.setattr(_fingerprint, "HASHED_BYTES", IMAGES.nbytes - 1)
    assert difference(sources.ArraySource(IMAGES), sources.ArraySource(changed(399))) is not None


def test_a_folder_is_known_by_names_and_sizes(tmp_path):
    folder, elsewhere = tmp_path / "one" / "train" / "a", tmp_path / "two"
    folder.mkdir(parents=True)
    for number in range(3):
        Image.fromarray(IMAGES[number, ..., 0]).save(folder / f"{number}.png")

    def found(root):
        return sources.fingerprint(sources.load(f"folder:{root}", split="train"))

    old = found(tmp_path / "one")
    os.rename(tmp_path / "one", elsewhere)
    assert sources.compare_fingerprints(old, found(elsewhere)) is None  # a folder that is moved is the same
    line = "expected the files this run began with, got as many of other names or sizes"
    folder = elsewhere / "train" / "a"
    os.rename(folder / "1.png", folder / "11.png")
    assert sources.compare_fingerprints(old, found(elsewhere)) == line
    os.rename(folder / "11.png", folder / "1.png")
    assert sources.compare_fingerprints(old, found(elsewhere)) is None
    Image.new("L", (4, 4)).save(folder / "1.png")
    assert sources.compare_fingerprints(old, found(elsewhere)) == line


def test_the_splits_of_digits_differ():
    train, test = sources.load_splits("digits")
    assert difference(train, test) == "expected the 1437 images this run began with, got 360"


def test_a_fingerprint_of_another_version_is_another():
    assert sources.compare_fingerprints({}, sources.fingerprint(Own())) is not None
