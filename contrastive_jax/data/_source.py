"""What every source of images is made of: the interface, its errors, and two ways to keep the images."""

from __future__ import annotations

import functools
import os
import textwrap
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, Protocol

import numpy as np

from contrastive_jax.data import _pixels
from contrastive_jax.errors import SourceError as SourceError

SPLITS = ("train", "test")
CACHE_BYTES = 2**30
_SPLIT_SEED = 0
_TEST_FRACTION = 0.2
_NUM_READERS = min(16, os.cpu_count() or 1)
_READERS = ThreadPoolExecutor(_NUM_READERS, thread_name_prefix="contrastive-jax-read")  # no thread until it is used


def reason(error: Exception) -> str:
    """What a library says is wrong, in part of a line."""
    return textwrap.shorten(str(error) or type(error).__name__, 300)


class Example(NamedTuple):
    """One image of a split: `image` uint8 [H, W, C], its `label`, and its `id`, the position in the split."""

    image: np.ndarray
    label: int
    id: int


class Source(Protocol):
    """Random access to the labelled images of one split, all of one shape.

    Attributes:
        name: what was loaded, as it was asked for.
        image_shape: (H, W, C) of every image.
        num_classes: how many classes the labels count.
    """

    name: str
    image_shape: tuple[int, int, int]
    num_classes: int

    @property
    def labels(self) -> np.ndarray:
        """Every label of the split in order, int32 [n]; reads no image."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Example: ...

    def take(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The images, uint8 [b, H, W, C], and labels, int32 [b], at `indices`, int [b]."""


class ArraySource:
    """A source whose images, uint8 [n, H, W, C], and labels, int [n], are in memory."""

    def __init__(self, name: str, images: np.ndarray, labels: np.ndarray, *, num_classes: int):
        self.name = name
        self.image_shape = images.shape[1:]
        self.num_classes = num_classes
        self.labels = labels.astype(np.int32)
        self._images = images

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Example:
        index = position(index, len(self))
        return Example(self._images[index], int(self.labels[index]), index)

    def take(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self._images[indices], self.labels[indices]


class ReadSource:
    """A source that reads an image when it is first wanted, and keeps it when the whole split would fit in memory.

    Args:
        name: what was loaded.
        read: indices -> (image uint8 [H, W, C], label) of each, in order; called from several threads at once.
        read_labels: () -> int [n]; called once, when `labels` is first wanted.
        length: the number of images.
        image_shape: (H, W, C) of every image.
        num_classes: how many classes the labels count.
        cache_bytes: images are kept once read where all of them need no more than this.
    """

    def __init__(
        self,
        name: str,
        read: Callable[[list[int]], Iterable[tuple[np.ndarray, int]]],
        read_labels: Callable[[], np.ndarray],
        *,
        length: int,
        image_shape: tuple[int, int, int],
        num_classes: int,
        cache_bytes: int = CACHE_BYTES,
    ):
        self.name = name
        self.image_shape = image_shape
        self.num_classes = num_classes
        self._read = read
        self._read_labels = read_labels
        self._length = length
        self._cache = _Cache(length, image_shape) if length * int(np.prod(image_shape)) <= cache_bytes else None

    @functools.cached_property
    def labels(self) -> np.ndarray:
        return np.asarray(self._read_labels(), np.int32)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Example:
        index = position(index, len(self))
        images, labels = self.take(np.array([index]))
        return Example(images[0], int(labels[0]), index)

    def take(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if self._cache is None:
            images = np.empty((len(indices), *self.image_shape), np.uint8)
            labels = np.empty(len(indices), np.int32)
            self._read_into(images, labels, np.arange(len(indices)), indices)
            return images, labels
        missing = np.unique(indices[~self._cache.known[indices]])
        self._read_into(self._cache.images, self._cache.labels, missing, missing)
        self._cache.known[missing] = True
        return self._cache.images[indices], self._cache.labels[indices]

    def _read_into(self, images: np.ndarray, labels: np.ndarray, slots: np.ndarray, indices: np.ndarray) -> None:
        def read_part(part: np.ndarray) -> None:
            for slot, (image, label) in zip(slots[part], self._read(indices[part].tolist()), strict=True):
                images[slot], labels[slot] = image, label

        if len(indices) == 1:
            read_part(np.arange(1))
        elif len(indices) > 1:
            list(_READERS.map(read_part, np.array_split(np.arange(len(indices)), min(len(indices), _NUM_READERS))))


class _Cache:
    """Room for every image of a split; the operating system gives the memory only as images arrive."""

    def __init__(self, length: int, image_shape: tuple[int, int, int]):
        self.images = np.empty((length, *image_shape), np.uint8)
        self.labels = np.empty(length, np.int32)
        self.known = np.zeros(length, bool)


def position(index: int, length: int) -> int:
    """`index` counted from the front, in [0, length); raises IndexError beyond either end."""
    if not -length <= index < length:
        raise IndexError(f"index {index} is out of range for a source of {length} images")
    return int(index) % length


def stratified(labels: np.ndarray, split: str, *, name: str) -> np.ndarray:
    """Positions, in order, of 80% (train) or 20% (test) of each class; the same labels give the same positions."""
    from sklearn.model_selection import train_test_split  # imported here because it takes a second

    try:
        train, test = train_test_split(
            np.arange(len(labels)), test_size=_TEST_FRACTION, stratify=labels, random_state=_SPLIT_SEED
        )
    except ValueError as error:
        raise SourceError(
            f"{name} has no test split and cannot be split 80/20 by label: {error} Give it a test split."
        ) from error
    return np.sort(train if split == "train" else test)


def from_arrays(
    name: str, images: np.ndarray, labels: np.ndarray, *, num_classes: int, stored_size: int | None
) -> ArraySource:
    """An ArraySource, its images resized to [stored_size, stored_size] where that is given."""
    if stored_size is not None and images.shape[1:3] != (stored_size, stored_size):
        images = np.stack([_pixels.resize_array(image, stored_size) for image in images])
    return ArraySource(name, images, labels, num_classes=num_classes)


def stored_size_of(image_size: int | None, stored_size: int | None, *, name: str) -> int:
    """The side that images of differing shapes are stored at: `stored_size`, else 8/7 of `image_size`."""
    if stored_size is not None:
        return stored_size
    if image_size is None:
        raise SourceError(f"{name}: the images differ in shape; give image_size or stored_size, in pixels")
    return round(image_size * 8 / 7)
