"""Checks of what a model is built from."""

from collections.abc import Sequence

import jax.numpy as jnp
from jax.typing import DTypeLike

from contrastive_jax.errors import UsageError


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Raises UsageError unless `value` is one of `choices`."""
    if value not in choices:
        raise UsageError(f"expected {name} to be one of {', '.join(choices)}, got {value!r}.")


def check_at_least_one(**sizes: int) -> None:
    """Raises UsageError unless each is an integer of at least 1."""
    for name, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise UsageError(f"expected {name} to be an integer of at least 1, got {size!r}.")


def check_dtype(dtype: DTypeLike) -> None:
    """Raises UsageError unless `dtype` is that of floats."""
    try:
        found = jnp.issubdtype(jnp.dtype(dtype), jnp.floating)
    except TypeError:
        found = False
    if not found:
        raise UsageError(f"expected dtype to be a floating dtype such as 'float32' or 'bfloat16', got {dtype!r}.")
