"""Initial weights, drawn in blocks of one shape: compiling JAX's generator anew for each layer would take seconds."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

_BLOCK = 2**16

_draw = jax.jit(lambda key: jax.random.normal(key, (_BLOCK,)))


def _normal(key: jax.Array, shape: Sequence[int], variance: float, dtype: DTypeLike) -> jax.Array:
    size = math.prod(shape)
    blocks = [_draw(jax.random.fold_in(key, block)) for block in range(math.ceil(size / _BLOCK))]
    values = jnp.concatenate(blocks)[:size].reshape(shape)
    return (values * math.sqrt(variance)).astype(dtype)


def he_normal_fan_out(key: jax.Array, shape: Sequence[int], dtype: DTypeLike = jnp.float32) -> jax.Array:
    """Normal of variance 2 / (window * outputs) for a kernel [*window, inputs, outputs] before a ReLU."""
    *window, _, outputs = shape
    return _normal(key, shape, 2 / (math.prod(window) * outputs), dtype)


def lecun_normal(key: jax.Array, shape: Sequence[int], dtype: DTypeLike = jnp.float32) -> jax.Array:
    """Normal of variance 1 / inputs for a matrix [inputs, outputs]."""
    return _normal(key, shape, 1 / shape[0], dtype)
