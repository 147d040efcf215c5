"""What tells one data set from another, small and quickly made: whether a run goes on with the images it began with."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from contrastive_jax.data._check import take
from contrastive_jax.data._source import Source, labels_of, num_classes_of
from contrastive_jax.data._stored import ArraySource, ReadSource
from contrastive_jax.data._whole import FolderSource, WholeSource

HASHED_BYTES = 2**30
_SAMPLE = 64


def fingerprint(source: Source) -> dict[str, Any]:
    """What identifies the images and labels of a source; takes well under a second.

    - A folder: its files' names and sizes.
    - Arrays and `npz:`: every byte of the images, up to 1 GiB; beyond it, of 64 images.
    - `tfds:`: the data set's name, configuration and version, and the split.
    - Any other object: 64 images, evenly spread.

    Args:
        source: any source.

    Returns:
        A dict that JSON holds: `count`, `image_shape`, `num_classes`, `labels` and `content`, the last two as digests.
        `labels` is None where there are none, and for `tfds:`, whose version stands for them.

    Example:
        >>> from contrastive_jax.data import sources
        >>> found = fingerprint(sources.ArraySource(np.zeros((3, 8, 8), np.uint8), [2, 0, 1]))
        >>> found["count"], found["image_shape"], found["num_classes"]
        (3, [8, 8, 1], 3)
    """
    return {
        "count": len(source),
        "image_shape": [int(size) for size in source.image_shape],
        "num_classes": num_classes_of(source),
        "labels": _labels_digest(source),
        "content": _content(source),
    }


def compare_fingerprints(old: dict[str, Any], new: dict[str, Any]) -> str | None:
    """What differs between two fingerprints, in a line; None if nothing does.

    Args:
        old: the fingerprint of the source that a run began with.
        new: that of the source it has now.

    Example:
        >>> from contrastive_jax.data import sources
        >>> images = np.zeros((3, 8, 8), np.uint8)
        >>> old, new = (fingerprint(sources.ArraySource(x)) for x in (images, images[:2]))
        >>> compare_fingerprints(old, new)
        'expected the 3 images this run began with, got 2'
        >>> compare_fingerprints(old, old) is None
        True
    """
    changed = next(
        (key for key in ("count", "image_shape", "num_classes", "labels", "content") if old.get(key) != new.get(key)),
        None,
    )
    was, now = old.get(changed or ""), new.get(changed or "")
    match changed:
        case None:
            return None
        case "count":
            return f"expected the {was} images this run began with, got {now}"
        case "image_shape":
            return f"expected images of shape {was}, with which this run began, got {now}"
        case "num_classes":
            return f"expected {_classes(was)}, with which this run began, got {_classes(now)}"
        case "labels":
            return "expected the labels this run began with, got as many others"
    kinds = {str(content).partition(" ")[0] for content in (was, now)}
    if kinds == {"files"}:
        return "expected the files this run began with, got as many of other names or sizes"
    if kinds == {"tfds"}:
        return f"expected {was}, with which this run began, got {now}"
    return "expected the images this run began with, got as many others"


def _classes(count: int | None) -> str:
    return "images without labels" if count is None else f"{count} classes"


def _labels_digest(source: Source) -> str | None:
    if isinstance(source, ReadSource) and source.reads_labels:
        return None
    labels = labels_of(source)
    return None if labels is None else _digest(labels)


def _content(source: Source) -> str:
    if isinstance(source, ReadSource | FolderSource):
        return source.identity()
    if isinstance(source, WholeSource):
        return "; ".join(_content(part) for part in source.sources)
    if isinstance(source, ArraySource) and source.images.nbytes <= HASHED_BYTES:
        return f"pixels {_digest(source.images)}"
    indices = np.unique(np.linspace(0, len(source) - 1, _SAMPLE).round().astype(np.int64))
    return f"sample {_digest(take(source, indices))}"


def _digest(array: np.ndarray) -> str:
    return hashlib.blake2b(np.ascontiguousarray(array).data, digest_size=16).hexdigest()
