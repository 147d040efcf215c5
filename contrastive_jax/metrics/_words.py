"""Counts beyond 32 bits in two uint32 words: JAX has no 64-bit integers unless a whole program is switched to them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_BITS = 8  # of a digit: up to 2^24 terms, their digits add up within 32 bits
_DIGITS = 32 // _BITS


def widen(counts: Any, axis: int) -> jax.Array:
    """Counts, uint32, as (low, high) words along a new axis."""
    return jnp.stack([counts, jnp.zeros_like(counts)], axis=axis)


def add_words(words: Any, add: Callable[[Any], Any], axis: int) -> jax.Array:
    """Add counts in two words.

    Args:
      words: uint32, with the words along `axis`, counted from the end.
      add: adds up at most 2^24 arrays, such as a sum over a leading axis or over devices.
      axis: negative.
    """
    parts = [jnp.take(words, word, axis=axis) for word in range(2)]
    digits = [part >> (_BITS * k) & (2**_BITS - 1) for part in parts for k in range(_DIGITS)]
    sums, carry = [add(digit) for digit in digits], jnp.uint32(0)
    for k, total in enumerate(sums):
        carried = total + carry
        sums[k], carry = carried & (2**_BITS - 1), carried >> _BITS
    low, high = (sum(sums[word * _DIGITS + k] << (_BITS * k) for k in range(_DIGITS)) for word in range(2))
    return jnp.stack([low, high], axis=axis)


def to_float(words: Any, dtype: Any, axis: int) -> jax.Array:
    """Counts in two words as floats, rounded to their dtype."""
    low, high = (jnp.take(words, word, axis=axis).astype(dtype) for word in range(2))
    return low + high * 2.0**32


def to_uint64(words: np.ndarray, axis: int) -> np.ndarray:
    """Counts in two words as NumPy's uint64."""
    low, high = (np.take(words, word, axis=axis).astype(np.uint64) for word in range(2))
    return low | high << np.uint64(32)
