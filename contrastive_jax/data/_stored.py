"""Where images are kept: in memory, or read whenever they are needed; and at which size."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from contrastive_jax.data import _check, _pixels
from contrastive_jax.data._source import Source, labels_of, name_of, num_classes_of
from contrastive_jax.errors import SourceError

CACHE_BYTES = 2**31
_NUM_READERS = min(32, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
_MOST_AT_ONCE = 64  # images of one task of a thread: whoever fails or is no longer wanted leaves few of them to do
_READERS = ThreadPoolExecutor(_NUM_READERS, thread_name_prefix="contrastive-jax-read")  # no thread until it is used

_Result = TypeVar("_Result")


class ArraySource:
    """A source whose images and labels are in memory.

    Args:
        images: uint8 [n, h, w, c] with c 1 or 3, or grey ones, uint8 [n, h, w].
        labels: int [n], classes counted from 0; None where there are none.
        name: what messages call it.
        num_classes: how many classes there are; by default the greatest label + 1.

    Raises:
        SourceError: the images or labels are of another form; the message says how to convert them.

    Example:
        >>> source = ArraySource(np.zeros((3, 8, 8), np.uint8), [2, 0, 1])
        >>> len(source), source.image_shape, source.num_classes, source.take(np.array([2, 0])).shape
        (3, (8, 8, 1), 3, (2, 8, 8, 1))
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray | Iterable[int] | None = None,
        *,
        name: str = "arrays",
        num_classes: int | None = None,
    ):
        self.name = name
        self.images = _check.image_array(f"{name}: images", images)
        self.image_shape: tuple[int, int, int] = self.images.shape[1:]
        self.labels = None if labels is None else _check.label_array(f"{name}: labels", labels, len(self.images))
        self.num_classes = num_classes
        if self.labels is not None and num_classes is None:
            self.num_classes = int(self.labels.max()) + 1

    def __len__(self) -> int:
        return len(self.images)

    def take(self, indices: np.ndarray) -> np.ndarray:
        """The images at `indices`, int [b]: uint8 [b, h, w, c]."""
        return self.images[indices]


class ReadSource:
    """A source that reads an image when it is needed, in threads, and keeps it if it is told to.

    Args:
        name: what was loaded.
        read: indices -> the image, uint8 [h, w, c], of each, in order; called from several threads at once.
        labels: int [n], or a function that reads them, called once, when they are first needed; None for none.
        length: the number of images.
        image_shape: (h, w, c) of every image.
        num_classes: how many classes the labels count; None where there are none.
        identity: what identifies the images without reading them.
        keep: whether images are kept in memory once read; or else each is read whenever it is needed.
    """

    def __init__(
        self,
        name: str,
        read: Callable[[list[int]], Iterable[np.ndarray]],
        labels: np.ndarray | Callable[[], np.ndarray] | None,
        *,
        length: int,
        image_shape: tuple[int, int, int],
        num_classes: int | None,
        identity: Callable[[], str],
        keep: bool,
    ):
        self.name = name
        self.image_shape = image_shape
        self.num_classes = num_classes
        self.identity = identity
        self._read = read
        self._labels = labels
        self._length = length
        self._cache = _Cache(name, length, image_shape) if keep else None

    @property
    def is_kept(self) -> bool:
        """Whether images are kept in memory once read."""
        return self._cache is not None

    @property
    def reads_labels(self) -> bool:
        """Whether the labels are read along with all the images, which may take long."""
        return callable(self._labels)

    @functools.cached_property
    def labels(self) -> np.ndarray | None:
        """Every label in order, int32 [n]; None where there are none."""
        if self._labels is None:
            return None
        return np.asarray(self._labels() if callable(self._labels) else self._labels, np.int32)

    def __len__(self) -> int:
        return self._length

    def take(self, indices: np.ndarray) -> np.ndarray:
        """The images at `indices`, int [b]: uint8 [b, h, w, c]."""
        if self._cache is None:
            images = np.empty((len(indices), *self.image_shape), np.uint8)
            self._read_into(images, np.arange(len(indices)), indices)
            return images
        missing = np.unique(indices[~self._cache.known[indices]])
        self._read_into(self._cache.images, missing, missing)
        self._cache.known[missing] = True
        return self._cache.images[indices]

    def _read_into(self, images: np.ndarray, slots: np.ndarray, indices: np.ndarray) -> None:
        def read_part(part: np.ndarray) -> None:
            for slot, image in zip(slots[part], self._read(indices[part].tolist()), strict=True):
                images[slot] = image

        if len(indices) == 1:
            read_part(np.arange(1))
        elif len(indices) > 1:
            map_parts(read_part, np.arange(len(indices)))


def map_parts(fn: Callable[[np.ndarray], _Result], positions: np.ndarray) -> list[_Result]:
    """`fn` of every part of `positions`, in the threads that read; the first error ends it."""
    parts = np.array_split(positions, max(min(len(positions), _NUM_READERS), -(-len(positions) // _MOST_AT_ONCE)))
    return list(_READERS.map(fn, parts))


def fits(count: int, image_shape: tuple[int, int, int], cache_bytes: float) -> bool:
    """Whether so many images need no more memory than `cache_bytes`."""
    return count * math.prod(image_shape) <= cache_bytes


class _Cache:
    """Room for every image of a split; the operating system gives the memory only as images arrive."""

    def __init__(self, name: str, length: int, image_shape: tuple[int, int, int]):
        try:
            self.images = np.empty((length, *image_shape), np.uint8)
        except MemoryError as error:
            gigabytes = length * math.prod(image_shape) / 2**30
            raise SourceError(
                f"{name}: expected {gigabytes:.1f} GiB of memory for the images, which cache_bytes allows, got none; "
                "lower cache_bytes (of a run config.data.cache_gib) to decode them whenever they are needed"
            ) from error
        self.known = np.zeros(length, bool)


class ResizedSource:
    """A source whose images are made [side, side] when they are taken."""

    def __init__(self, source: Source, side: int):
        self.name = name_of(source)
        self.image_shape = (side, side, source.image_shape[-1])
        self.num_classes = num_classes_of(source)
        self.labels = labels_of(source)
        self._source = source
        self._side = side

    def __len__(self) -> int:
        return len(self._source)

    def take(self, indices: np.ndarray) -> np.ndarray:
        """The images at `indices`, int [b]: uint8 [b, side, side, c]."""
        return resized(np.asarray(self._source.take(indices)), self._side)


def resized(images: np.ndarray, side: int) -> np.ndarray:
    """uint8 [n, h, w, c] as uint8 [n, side, side, c]."""
    if images.shape[1:3] == (side, side):
        return images
    return np.stack(list(_READERS.map(functools.partial(_pixels.resize_array, stored_size=side), images)))


def stored_side(
    shapes: Iterable[tuple[int, int]], *, image_size: int | None, stored_size: int | None, name: str
) -> int | None:
    """The side that images are stored at, or None: as they are.

    Images of one shape with no more pixels than a square of 8/7 `image_size` are stored as they are; all others at that
    side, which is what a centre crop of `image_size` needs.

    Args:
        shapes: every (height, width) that occurs in any split.
        image_size: side of the views in pixels, if it is known.
        stored_size: the side that was asked for, which is then the answer.
        name: what was loaded, for the refusal.
    """
    shapes = set(shapes)  # empty where nobody knows them
    if stored_size is not None:
        return stored_size
    if image_size is None:
        if len(shapes) == 1:
            return None
        raise SourceError(
            f"{name}: expected images of one shape (height, width), got {_listed(shapes)}; "
            "give image_size or stored_size, in pixels"
        )
    side = round(image_size * 8 / 7)
    return None if len(shapes) == 1 and np.prod(shapes.pop()) <= side**2 else side


def _listed(shapes: set[tuple[int, int]]) -> str:
    some = sorted(shapes)[:3]
    if not some:
        return "images of many"
    return f"{len(shapes)} shapes: {', '.join(map(str, some))}{', ...' if len(shapes) > len(some) else ''}"
