"""Checks of what is evaluated."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from contrastive_jax import pairwise
from contrastive_jax.errors import UsageError

_MAX_NAMED = 5
_normalize = jax.jit(pairwise.normalize)


class Split(NamedTuple):
    """A data set in two parts: rows of length 1 (or 0) float32 [n, f], and labels [n] int32."""

    train: jax.Array
    train_labels: jax.Array
    test: jax.Array
    test_labels: jax.Array


def prepare_split(
    train_features: ArrayLike,
    train_labels: ArrayLike,
    test_features: ArrayLike,
    test_labels: ArrayLike,
    num_classes: int,
) -> Split:
    """Both parts, their features L2-normalised.

    Raises:
      UsageError: unless both are finite features [n, f] of one f, with integer labels [n] in [0, num_classes).
    """
    check_at_least_one(num_classes=num_classes)
    for part, features, labels in (("train", train_features, train_labels), ("test", test_features, test_labels)):
        shape, count = np.shape(features), np.shape(labels)
        if len(shape) != 2 or count != shape[:1] or shape[0] == 0:
            raise UsageError(
                f"expected {part} features [n, f] and labels [n] with n > 0, got {list(shape)} and {list(count)}."
            )
        _check_labels(part, np.asarray(labels), num_classes)
    if np.shape(train_features)[1] != np.shape(test_features)[1]:
        raise UsageError(
            f"expected train and test features of the same size f, got {list(np.shape(train_features))} and "
            f"{list(np.shape(test_features))}."
        )
    return Split(
        unit_rows("train features", train_features),
        jnp.asarray(train_labels, jnp.int32),
        unit_rows("test features", test_features),
        jnp.asarray(test_labels, jnp.int32),
    )


def unit_rows(name: str, features: ArrayLike) -> jax.Array:
    """Finite features [n, f] as float32 rows of length 1; a row of zeros stays zero."""
    with np.errstate(over="ignore"):
        rows = np.asarray(features).astype(np.float32)
    check_finite(name, rows)
    return _normalize(rows)


def check_finite(name: str, features: np.ndarray) -> None:
    """Raises UsageError, which names the rows, unless all of [n, f] are finite: a NaN would pass for a bad score."""
    bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if len(bad):
        named = ", ".join(map(str, bad[:_MAX_NAMED])) + (f" and {len(bad) - _MAX_NAMED} more" * (len(bad) > _MAX_NAMED))
        raise UsageError(
            f"expected {name} that are finite in float32, got NaN or infinity in row{'s' * (len(bad) > 1)} {named} of "
            f"{len(features)}. Check what computed them."
        )


def check_at_least_one(**counts: int) -> None:
    """Raises UsageError unless each is an integer of at least 1."""
    for name, count in counts.items():
        if isinstance(count, bool) or not isinstance(count, int | np.integer) or count < 1:
            raise UsageError(f"expected {name} to be an integer of at least 1, got {count!r}.")


def check_positive(**values: float) -> None:
    """Raises UsageError unless each is finite and greater than 0."""
    for name, value in values.items():
        if not (np.isfinite(value) and value > 0):
            raise UsageError(f"expected {name} to be finite and greater than 0, got {value!r}.")


def _check_labels(part: str, labels: np.ndarray, num_classes: int) -> None:
    if not np.issubdtype(labels.dtype, np.integer):
        raise UsageError(f"expected {part} labels to be integers, got {labels.dtype}.")
    least, greatest = labels.min(), labels.max()
    if least < 0 or greatest >= num_classes:
        raise UsageError(f"expected {part} labels from 0 to {num_classes - 1}, got {least} to {greatest}.")
