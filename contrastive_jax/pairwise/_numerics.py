"""The steps that turn into NaN when written naively, each written once."""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from contrastive_jax.pairwise.shared import accumulation_dtype


def normalize(x: jax.Array) -> jax.Array:
    """Scale each row to unit length, exactly at any scale, with zero rows left at zero.

    The row is first divided by its greatest absolute entry, so that no square over- or underflows. A zero row has no
    direction: it stays zero and passes back a zero gradient.

    Args:
      x: [m, d], any float dtype.

    Returns:
      [m, d] in float32, or float64 for float64 input.

    Example:
      >>> pairwise.normalize(jnp.array([[3.0, 4.0], [0.0, 0.0]]))
      Array([[0.6, 0.8],
             [0. , 0. ]], dtype=float32)
    """
    return _unit_rows(x.astype(accumulation_dtype(x.dtype)))


@jax.custom_jvp
def _unit_rows(x: jax.Array) -> jax.Array:
    return _unit_rows_and_factors(x)[0]


@_unit_rows.defjvp
def _unit_rows_jvp(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    """d(x / |x|) = (dx - y (y.dx)) / |x|: a gradient needs to store only the unit rows, which exist anyway."""
    (x,), (dx,) = primals, tangents
    y, factors = _unit_rows_and_factors(x)

    @jax.checkpoint  # otherwise a gradient stores the factors broadcast to the rows that they multiply
    def across(y: jax.Array, factors: tuple[jax.Array, jax.Array], dx: jax.Array) -> jax.Array:
        part = dx - y * jnp.sum(y * dx, axis=-1, keepdims=True)
        for factor in factors:  # one after the other: their product may be more than a float holds
            part = part * factor
        return part

    return y, across(y, factors, dx)


def _unit_rows_and_factors(x: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """x / |x| [m, d], and two factors [m, 1] of 1 / |x|; all 0 for a row of zeros."""
    peak = jnp.max(jnp.abs(x), axis=-1, keepdims=True)
    # XLA's maximum on CPUs may pass over a NaN, which is no zero.
    zero = (peak == 0) & ~jnp.any(jnp.isnan(x), axis=-1, keepdims=True)
    # XLA divides by multiplying with the reciprocal, which is flushed to zero for a peak beyond a quarter of the
    # largest float: a quarter of both rounds nothing. The barrier stops XLA from squaring before it divides.
    part = jnp.where(peak > 1, 0.25, 1)
    inverse = jnp.where(zero, 0, 1 / jnp.where(zero, 1, peak * part))
    scaled = lax.optimization_barrier(x * part * inverse)
    square = jnp.sum(scaled * scaled, axis=-1, keepdims=True)
    root = jnp.where(zero, 0, lax.rsqrt(jnp.where(zero, 1, square)))
    return scaled * root, (root, part * inverse)


def finite_exp(x: ArrayLike) -> jax.Array:
    """exp(x), so far from 0 and infinity that its inverse is a float too: a scale learnt through its logarithm.

    Beyond those limits (86 from 0 in float32) the gradient is 0, which it would round to, and not 0 times infinity.

    Args:
      x: any shape, any float dtype; the logarithm of a scale or of a temperature.

    Returns:
      The same shape and dtype, above 0 and finite.

    Example:
      >>> float(jax.grad(lambda log_scale: 1 / pairwise.finite_exp(-log_scale))(-104.0))
      0.0
    """
    x = jnp.asarray(x)
    limit = math.floor(-math.log(float(jnp.finfo(x.dtype).tiny))) - 1
    return jnp.exp(jnp.clip(x, -limit, limit))


@jax.custom_jvp
def softplus(x: jax.Array) -> jax.Array:
    """log(1 + exp(x)), as `jax.nn.softplus`, in a quarter of its time: the gradient is one logistic function.

    Args:
      x: any shape, any float dtype.

    Returns:
      The same shape and dtype.

    Example:
      >>> pairwise.softplus(jnp.array([-200.0, 0.0, 200.0]))
      Array([  0.       ,   0.6931472, 200.       ], dtype=float32)
    """
    return jnp.maximum(x, 0) + jnp.log1p(jnp.exp(-jnp.abs(x)))


@softplus.defjvp
def _softplus_jvp(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    (x,), (dx,) = primals, tangents
    return softplus(x), jax.nn.sigmoid(x) * dx


@jax.custom_jvp
def of_pairs(u: jax.Array, v: jax.Array) -> jax.Array:
    """Inner products [m] of the rows of u [m, d] with those of v [m, d], in their dtype.

    Example:
      >>> pairwise.of_pairs(jnp.eye(2), jnp.ones((2, 2)))
      Array([1., 1.], dtype=float32)
    """
    return jnp.sum(u * v, axis=-1)


@of_pairs.defjvp
def _of_pairs_jvp(
    primals: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    (u, v), (du, dv) = primals, tangents

    @jax.checkpoint  # otherwise a gradient stores the cotangents broadcast to the rows that they multiply
    def product(x: jax.Array, dx: jax.Array) -> jax.Array:
        return jnp.sum(x * dx, axis=-1)

    return of_pairs(u, v), product(v, du) + product(u, dv)


def masked_logsumexp(parts: Sequence[jax.Array], mask: jax.Array) -> jax.Array:
    """log of the sum of exp over the entries of each row where `mask` holds; -inf, with zero gradient, where none does.

    The maximum is taken over those entries alone: if it included an anchor's similarity to itself, all other terms
    would underflow at low temperatures.

    Args:
      parts: the logits in arrays [m, n], side by side but not joined.
      mask: [m, n], the same for each of them.
    """
    parts = [jnp.where(mask, logits, -jnp.inf) for logits in parts]
    peak = lax.stop_gradient(functools.reduce(jnp.maximum, [jnp.max(logits, axis=-1) for logits in parts]))
    peak = jnp.where(jnp.isneginf(peak), 0, peak)
    total = functools.reduce(jnp.add, [jnp.sum(jnp.exp(logits - peak[:, None]), axis=-1) for logits in parts])
    empty = total == 0
    return jnp.where(empty, -jnp.inf, jnp.log(jnp.where(empty, 1, total)) + peak)
