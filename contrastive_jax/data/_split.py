"""A train and a test split of what has only one."""

from __future__ import annotations

import numpy as np

from contrastive_jax import extras
from contrastive_jax.errors import SourceError

_SPLIT_SEED = 0
_TEST_FRACTION = 0.2
_HELD_OUT, _MAX_HELD_OUT = 0.1, 10_000  # of images without labels: nothing but the geometry needs them


def stratified(labels: np.ndarray, *, name: str) -> dict[str, np.ndarray]:
    """Positions, in order, of 80% (train) and 20% (test) of each class; the same labels give the same positions."""
    model_selection = extras.require("sklearn.model_selection", extra="train", what=name)  # takes a second to import
    try:
        train, test = model_selection.train_test_split(
            np.arange(len(labels)), test_size=_TEST_FRACTION, stratify=labels, random_state=_SPLIT_SEED
        )
    except ValueError as error:
        raise SourceError(
            f"{name} has no test split and cannot be split 80/20 by label: {error} Give it a test split."
        ) from error
    return {"train": np.sort(train), "test": np.sort(test)}


def hold_out(count: int, *, name: str) -> dict[str, np.ndarray]:
    """Positions, in order, of a tenth (test), at most 10,000, of images without labels, and of the rest (train)."""
    if count < 2:
        raise SourceError(f"{name}: expected at least 2 images, of which one is held out, got {count}")
    held = max(1, min(round(_HELD_OUT * count), _MAX_HELD_OUT))
    order = np.random.default_rng(_SPLIT_SEED).permutation(count)
    return {"train": np.sort(order[held:]), "test": np.sort(order[:held])}
