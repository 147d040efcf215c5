"""A user's own source: an object with __len__, image_shape and take, checked once, each fault a line."""

import sys

import numpy as np
import pytest

from contrastive_jax.data import batches, sources
from contrastive_jax.errors import SourceError
from tests.data.test_sources import refused

MODULE = """
import numpy as np

class Squares:
    image_shape = (4, 4, 3)
    def __init__(self, split): self.length = 12 if split == "train" else 5
    def __len__(self): return self.length
    def take(self, indices): return np.broadcast_to(np.uint8(indices)[:, None, None, None], (len(indices), 4, 4, 3))

class Labelled(Squares):
    def __init__(self, split):
        super().__init__(split)
        self.labels = [k % 3 for k in range(self.length)]

def raises(split): raise KeyError(split)
def nothing(split): pass
def few(split):
    source = Labelled(split)
    if split == "train": source.labels = [0] * 12
    return source
def grey(split):
    source = Squares(split)
    if split == "test":
        source.image_shape, source.take = (4, 4, 1), lambda indices: np.zeros((len(indices), 4, 4, 1), np.uint8)
    return source
"""


@pytest.fixture(autouse=True)
def module(tmp_path, monkeypatch):
    (tmp_path / "own_images.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    sys.modules.pop("own_images", None)


def test_a_source_of_three_things_is_enough():
    train, test = sources.load_splits("own_images:Squares")
    assert (len(train), len(test)) == (12, 5)
    assert sources.labels_of(train) is None and sources.num_classes_of(train) is None
    assert sources.name_of(train) == "Squares"
    batch = next(batches.iterate(train, batches.BatchOrder(12, 4, 0), start=0, stop=1))
    assert batch.keys() == {"image", "id", "epoch"}
    np.testing.assert_array_equal(batch["image"][:, 0, 0, 0], batch["id"])
    assert next(batches.sequential(test, 5)).keys() == {"image", "id", "mask"}


def test_labels_come_with_the_batches_where_there_are_any():
    source = sources.load("own_images:Labelled", split="train")
    assert sources.num_classes_of(source) == 3
    batch = next(batches.iterate(source, batches.BatchOrder(12, 4, 0), start=0, stop=1))
    np.testing.assert_array_equal(batch["label"], batch["id"] % 3)
    assert batch["label"].dtype == np.int32


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("own_images:absent", "expected a function in module own_images, got no attribute 'absent'"),
        ("own_imagery:f", "got no module 'own_imagery'"),
        ("own_images:raises", "expected raises('train') to return a source, got KeyError: 'train'"),
        ("own_images:nothing", "NoneType: expected an object with __len__, image_shape and take, got no __len__"),
        ("own_images:few", "expected test labels below 1, the number of train's classes, got 2"),
        ("own_images:grey", "expected test images with 3 channels, as train's have, got 1"),
    ],
)
def test_what_a_function_may_do_wrong_is_one_line(spec, words):
    refused(spec, spec, words)


class Faulty:
    """A source with some of its parts replaced."""

    image_shape = (4, 4, 1)

    def __init__(self, images=None, **parts):
        self.images = np.zeros((3, 4, 4, 1), np.uint8) if images is None else images
        vars(self).update(parts)

    def __len__(self):
        return vars(self).get("length", 3)

    def take(self, indices):
        return self.images if isinstance(self.images, tuple) else self.images[indices]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (object(), "object: expected an object with .*, got no __len__, image_shape, take"),
        (Faulty(length=0), "Faulty: expected at least 1 image, got 0"),
        (Faulty(image_shape=(4, 4)), r"image_shape: expected \(h, w, c\), three whole numbers .*, got \(4, 4\)"),
        (Faulty(image_shape=(4.0, 4, 1)), r"three whole numbers .*, got \(4.0, 4, 1\)"),
        (Faulty(image_shape=(1, 4, 4)), r"c 1 or 3, got \(1, 4, 4\)"),
        (Faulty(image_shape=None), "three whole numbers .*, got None"),
        (Faulty(image_shape=(4, 5, 1)), r"take\(\[0\]\): expected uint8 \[1, 4, 5, 1\], got uint8 \[1, 4, 4, 1\]"),
        (Faulty(np.zeros((3, 4, 4), np.uint8)), r"expected uint8 \[1, 4, 4, 1\], got uint8 \[1, 4, 4\]"),
        (Faulty(np.ones((3, 4, 4, 1))), r"got float64 \[1, 4, 4, 1\] in \[0, 1\]; convert them: np.round\(255 \* im"),
        (Faulty(np.full((3, 4, 4, 1), 9.0)), r"in \[0, 255\]; convert them: np.round\(images\).astype\(np.uint8\)"),
        (Faulty(np.full((3, 4, 4, 1), -1.5)), r"in \[-1.5, -1.5\]; undo their normalisation"),
        (Faulty(np.zeros((3, 4, 4, 1), int)), r"got int64 .*images.astype\(np.uint8\)"),
        (Faulty(np.zeros((3, 4, 4, 1), bool)), r"got bool .*255 \* images.astype\(np.uint8\)"),
        (Faulty((np.zeros((1, 4, 4, 1)), 0)), "got a tuple; return the images alone and give the labels as `labels`"),
        (Faulty({}), r"take\(\[0\]\): expected uint8 .*, got TypeError: unhashable"),
        (Faulty(labels=[0, 1]), "labels: expected one for each of the 3 images, got 2"),
        (Faulty(labels=[0, 1, -1]), "labels: expected classes counted from 0, got -1"),
        (Faulty(labels=[0.0, 1.0, 2.0]), r"labels: expected whole numbers, int \[n\], got float64 \[3\]"),
        (Faulty(labels=["a", "b", "c"]), r"labels: expected whole numbers, int \[n\], got <U1 \[3\]"),
        (Faulty(labels=[0, 1, 2], num_classes=2), "num_classes: expected at least 3, the greatest label . 1, got 2"),
    ],
)
def test_every_fault_of_a_source_is_one_line(source, message):
    with pytest.raises(SourceError, match=message) as caught:
        sources.check(source)
    assert "\n" not in str(caught.value)


def test_a_good_source_passes():
    sources.check(Faulty(labels=np.array([4, 0, 1], np.uint8), num_classes=7))


def test_arrays_may_be_grey_and_unlabelled():
    source = sources.ArraySource(np.zeros((3, 4, 5), np.uint8))
    assert source.image_shape == (4, 5, 1) and source.labels is None and source.num_classes is None
    with pytest.raises(SourceError, match=r"arrays: images: expected uint8 .*, got float32 \[3, 4, 5\] in \[0, 1\]"):
        sources.ArraySource(np.zeros((3, 4, 5), np.float32))
    with pytest.raises(SourceError, match="mine: labels: expected one for each of the 3 images, got 4"):
        sources.ArraySource(np.zeros((3, 4, 5), np.uint8), [0, 1, 2, 3], name="mine")
