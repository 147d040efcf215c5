"""Checks of what is evaluated."""

import numpy as np
from jax.typing import ArrayLike


def check_split(
    train_features: ArrayLike,
    train_labels: ArrayLike,
    test_features: ArrayLike,
    test_labels: ArrayLike,
    num_classes: int,
) -> None:
    """Raises ValueError unless both parts are features [n, f] of one f, with labels [n] in [0, num_classes)."""
    for part, features, labels in (("train", train_features, train_labels), ("test", test_features, test_labels)):
        shape, count = np.shape(features), np.shape(labels)
        if len(shape) != 2 or count != shape[:1] or shape[0] == 0:
            raise ValueError(f"{part} features are {list(shape)} and labels {list(count)}, want [n, f] and [n], n > 0")
        least, greatest = np.min(labels), np.max(labels)
        if least < 0 or greatest >= num_classes:
            raise ValueError(f"{part} labels span {least} to {greatest}, want within 0 to {num_classes - 1}")
    if np.shape(train_features)[1] != np.shape(test_features)[1]:
        raise ValueError(
            f"train features are {list(np.shape(train_features))} and test {list(np.shape(test_features))}, want one f"
        )
