"""The 1,797 handwritten digits, 8x8, that scikit-learn carries inside its package."""

from __future__ import annotations

import numpy as np

from contrastive_jax.data import _source

_NUM_CLASSES = 10
_LARGEST_VALUE = 16


def open_digits(split: str, *, stored_size: int | None) -> _source.Source:
    """1,437 (train) or 360 (test) images, uint8 [8, 8, 1], split within each class under a fixed seed."""
    from sklearn.datasets import load_digits  # imported here because it takes a second

    digits = load_digits()
    images = np.rint(digits.images[..., None] * (255 / _LARGEST_VALUE)).astype(np.uint8)
    kept = _source.stratified(digits.target, split, name="digits")
    return _source.from_arrays(
        "digits", images[kept], digits.target[kept], num_classes=_NUM_CLASSES, stored_size=stored_size
    )
