"""What a source of images is, and what may be asked of one."""

from __future__ import annotations

from typing import Protocol

import numpy as np

SPLITS = ("train", "test")


class Source(Protocol):
    """Random access to the images of one split, all of one shape. Any object that has these three is a source.

    It may also have `labels` (int [n], or None where it has none), `num_classes` (by default the greatest label + 1)
    and `name` (for messages). `take` is called from several threads at once, and must always give the same image for
    the same index: a run that is resumed looks for the images that it began with.
    """

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(h, w, c) of every image; c is 1 or 3."""

    def __len__(self) -> int:
        """The number of images."""

    def take(self, indices: np.ndarray) -> np.ndarray:
        """The images at `indices`, int [b]: uint8 [b, h, w, c]."""


def labels_of(source: Source) -> np.ndarray | None:
    """Every label of a source in order, int32 [n]; None where it has no labels.

    Example:
        >>> from contrastive_jax.data import sources
        >>> labels_of(sources.ArraySource(np.zeros((3, 8, 8), np.uint8), [2, 0, 1]))
        array([2, 0, 1], dtype=int32)
    """
    labels = getattr(source, "labels", None)
    return None if labels is None else np.asarray(labels, np.int32)


def num_classes_of(source: Source) -> int | None:
    """How many classes the labels of a source count; None where it has no labels.

    Example:
        >>> from contrastive_jax.data import sources
        >>> num_classes_of(sources.ArraySource(np.zeros((3, 8, 8), np.uint8), [2, 0, 1]))
        3
    """
    stated = getattr(source, "num_classes", None)
    if stated is not None:
        return int(stated)
    labels = labels_of(source)
    return None if labels is None else int(labels.max()) + 1


def name_of(source: Source) -> str:
    """What messages call a source: its `name`, else its type.

    Example:
        >>> from contrastive_jax.data import sources
        >>> name_of(sources.ArraySource(np.zeros((3, 8, 8), np.uint8), name="mine"))
        'mine'
    """
    return str(getattr(source, "name", None) or type(source).__name__)
