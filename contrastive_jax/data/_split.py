"""A train and a test split of what has only one."""

from __future__ import annotations

import numpy as np

from contrastive_jax import extras
from contrastive_jax.errors import SourceError

_SPLIT_SEED = 0
_TEST_FRACTION = 0.2


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
