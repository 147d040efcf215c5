"""Whether images, labels and sources are what they should be; each fault is one line."""

from __future__ import annotations

import errno
import math
from typing import Any

import numpy as np

from contrastive_jax.data._source import Source, name_of
from contrastive_jax.errors import SourceError
from contrastive_jax.parts import reason

_IMAGES = "uint8 [n, h, w] or [n, h, w, c] with c 1 or 3"
_MAX_CLASSES = 2**20
_OF_THE_MACHINE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO)  # not of the images


def check(source: Source) -> None:
    """Refuse what is not a source; reads one image and the labels.

    Args:
        source: any object, see `Source`.

    Raises:
        SourceError: it lacks `__len__`, `image_shape` or `take`, has no image, the first image is not uint8 of
            `image_shape`, or the labels are not whole numbers from 0, one for each image.

    Example:
        >>> from contrastive_jax.data import sources
        >>> check(sources.ArraySource(np.zeros((3, 8, 8), np.uint8)))
        >>> check([1, 2, 3])
        Traceback (most recent call last):
        ...
        contrastive_jax.errors.SourceError: list: expected an object with __len__, image_shape and take, got
            no image_shape, take
    """
    name = name_of(source)
    missing = [needed for needed in ("__len__", "image_shape", "take") if not hasattr(source, needed)]
    if missing:
        raise SourceError(f"{name}: expected an object with __len__, image_shape and take, got no {', '.join(missing)}")
    shape = _check_shape(name, source.image_shape)
    if len(source) < 1:
        raise SourceError(f"{name}: expected at least 1 image, got {len(source)}")
    _check_first_image(name, source, shape)
    labels = getattr(source, "labels", None)
    if labels is not None:
        _check_num_classes(name, source, label_array(f"{name}: labels", labels, len(source)))


def take(source: Source, indices: np.ndarray) -> np.ndarray:
    """The images of a source at `indices`, checked: uint8 [b, h, w, c].

    Raises:
        SourceError: the source raised, or gave images of another dtype or shape.
    """
    expected = f"{name_of(source)}.take: expected uint8 {[len(indices), *source.image_shape]}"
    try:
        images = np.asarray(source.take(indices))
    except (SourceError, MemoryError):
        raise
    except Exception as error:  # a user's source may raise anything
        if isinstance(error, OSError) and error.errno in _OF_THE_MACHINE:
            raise
        raise SourceError(f"{expected} at {_few(indices)}, got {type(error).__name__}: {reason(error)}") from error
    if images.dtype != np.uint8 or images.shape != (len(indices), *source.image_shape):
        raise SourceError(f"{expected} at {_few(indices)}, got {_described(images)}{_conversion(images)}")
    return images


def _few(indices: np.ndarray) -> str:
    return f"{indices[:3].tolist()}"[:-1] + (", ...]" if len(indices) > 3 else "]")


def image_array(what: str, images: Any) -> np.ndarray:
    """`images` as uint8 [n, h, w, c]; grey ones may lack their channel. `what` names them in the refusal."""
    images = np.asarray(images)
    if images.dtype != np.uint8:
        raise SourceError(f"{what}: expected {_IMAGES}, got {_described(images)}{_conversion(images)}")
    whole = images[..., None] if images.ndim == 3 else images
    if whole.ndim != 4 or whole.shape[-1] not in (1, 3) or 0 in whole.shape:
        raise SourceError(f"{what}: expected {_IMAGES}, at least one of them, got {_described(images)}")
    return whole


def label_array(what: str, labels: Any, count: int) -> np.ndarray:
    """`labels` as int32 [count]. `what` names them in the refusal."""
    labels = np.asarray(labels)
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise SourceError(f"{what}: expected whole numbers, int [n], got {_described(labels)}")
    if len(labels) != count:
        raise SourceError(f"{what}: expected one for each of the {count} images, got {len(labels)}")
    if labels.min() < 0:
        raise SourceError(f"{what}: expected classes counted from 0, got {labels.min()}; leave unlabelled images out")
    if labels.max() >= _MAX_CLASSES:
        raise SourceError(f"{what}: expected classes counted from 0, at most {_MAX_CLASSES}, got {labels.max()}")
    return labels.astype(np.int32)


def _check_shape(name: str, shape: Any) -> tuple[int, int, int]:
    expected = f"{name}.image_shape: expected (h, w, c), three whole numbers of at least 1 with c 1 or 3"
    try:
        sizes = [size for size in shape if isinstance(size, int | np.integer) and size >= 1]
    except TypeError:
        raise SourceError(f"{expected}, got {shape!r}") from None
    if len(sizes) != 3 or len(shape) != 3 or sizes[2] not in (1, 3):
        raise SourceError(f"{expected}, got {tuple(shape)}")
    return int(sizes[0]), int(sizes[1]), int(sizes[2])


def _check_first_image(name: str, source: Source, shape: tuple[int, int, int]) -> None:
    expected = f"{name}.take([0]): expected uint8 {[1, *shape]}"
    try:
        images = source.take(np.zeros(1, np.int64))
    except SourceError:
        raise
    except Exception as error:  # whatever a user's source raises, it is why
        raise SourceError(f"{expected}, got {type(error).__name__}: {reason(error)}") from error
    if isinstance(images, tuple):
        raise SourceError(f"{expected}, got a tuple; return the images alone and give the labels as `labels`")
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.shape != (1, *shape):
        raise SourceError(f"{expected}, got {_described(images)}{_conversion(images)}")


def _check_num_classes(name: str, source: Source, labels: np.ndarray) -> None:
    stated, least = getattr(source, "num_classes", None), int(labels.max()) + 1
    if stated is None:
        return
    if not isinstance(stated, int | np.integer) or stated < least:
        raise SourceError(f"{name}.num_classes: expected at least {least}, the greatest label + 1, got {stated!r}")


def _described(array: np.ndarray) -> str:
    return f"{array.dtype} {list(array.shape)}"


def _conversion(images: np.ndarray) -> str:
    """How to make images of other numbers uint8, for the end of a refusal; nothing where uint8 they are."""
    if images.dtype == np.uint8 or images.dtype.kind not in "fiub" or not math.prod(images.shape):
        return ""
    if images.dtype.kind == "b":
        return "; convert them: 255 * images.astype(np.uint8)"
    if images.dtype.kind != "f":
        return "; if they are in [0, 255], convert them: images.astype(np.uint8)"
    least, greatest = images.min(), images.max()
    if least >= 0 and greatest <= 1:
        return " in [0, 1]; convert them: np.round(255 * images).astype(np.uint8)"
    if least >= 0 and greatest <= 255:
        return " in [0, 255]; convert them: np.round(images).astype(np.uint8)"
    return f" in [{least:.3g}, {greatest:.3g}]; undo their normalisation and convert them to uint8 in [0, 255]"
