"""The 1,797 handwritten digits, 8x8, that scikit-learn carries inside its package."""

from __future__ import annotations

import sys

import numpy as np

from contrastive_jax import extras
from contrastive_jax.data import _split, _stored

_NUM_CLASSES = 10
_LARGEST_VALUE = 16


def open_digits(
    *, image_size: int | None, stored_size: int | None, labels: bool = True
) -> dict[str, _stored.ArraySource]:
    """1,437 (train) and 360 (test) images, uint8 [8, 8, 1], split within each class under a fixed seed."""
    datasets = extras.require("sklearn.datasets", extra="train", what="digits")  # takes a second to import
    digits = datasets.load_digits()
    images = np.rint(digits.images[..., None] * (255 / _LARGEST_VALUE)).astype(np.uint8)
    side = _stored.stored_side([images.shape[1:3]], image_size=image_size, stored_size=stored_size, name="digits")
    images = images if side is None else _stored.resized(images, side)
    if not labels:
        print(f"digits: read {len(images)} images without labels: as asked", file=sys.stderr)
    return {
        split: _stored.ArraySource(
            images[kept],
            digits.target[kept] if labels else None,
            name="digits",
            num_classes=_NUM_CLASSES if labels else None,
        )
        for split, kept in _split.stratified(digits.target, name="digits").items()
    }
