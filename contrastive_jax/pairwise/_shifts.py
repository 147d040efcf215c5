"""What to take off the exponents of a log-sum-exp: the greatest of each row, where exp could overflow without.

Finding them takes a walk over all tiles, which most calls do without: unit vectors at a usual temperature need none.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from contrastive_jax import sequential, spmd
from contrastive_jax.pairwise import _rectangular, _tiles, _two_way, shared
from contrastive_jax.pairwise._products import Algorithm
from contrastive_jax.pairwise._tiles import Rows


def _need_no_shift(
    anchors: tuple[jax.Array, ...], candidates: tuple[jax.Array, ...], scale: jax.Array, axis_name: spmd.AxisName
) -> jax.Array:
    """Whether exp of every scaled similarity, and a sum of 10^7 of them, are far from the limits of their dtype.

    All devices agree: they must take the same branch, and have the same shifts for the columns that they share.
    """
    bound = jnp.abs(scale) * _greatest_norm(anchors) * _greatest_norm(candidates)
    return spmd.pmax(bound, axis_name) <= math.log(float(jnp.finfo(scale.dtype).max)) - 18


def _greatest_norm(views: tuple[jax.Array, ...]) -> jax.Array:
    x = [x.astype(shared.accumulation_dtype(x.dtype)) for x in views]
    return jnp.sqrt(jnp.max(jnp.stack([jnp.max(jnp.sum(x * x, axis=-1)) for x in x])))


def find(
    algorithm: Algorithm, axis_name: spmd.AxisName, a: Rows, c: Rows, scale: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """What to take off the exponents of each anchor [blocks, size], and whether that is 0 for all."""

    def maxima() -> tuple[jax.Array]:
        masks = (a.ids, a.valid, c.ids, c.valid)
        return (_rectangular.greatest(algorithm, axis_name, a.x, c.x, masks, scale),)

    (shift,), alike = _zero_or(maxima, _need_no_shift((a.x,), (c.x,), scale, axis_name), a, c)
    return shift, alike


def find_over_views(
    algorithm: Algorithm, views: tuple[jax.Array, ...], ids: jax.Array, valid: jax.Array, scale: jax.Array
) -> tuple[jax.Array, jax.Array]:
    def maxima() -> tuple[jax.Array]:
        x = jnp.concatenate(views)
        return (_rectangular.greatest(algorithm, None, x, x, (ids, valid, ids, valid), scale),)

    (shift,), alike = _zero_or(maxima, _need_no_shift(views, views, scale, None), views, ids)
    return shift, alike


def find_both_ways(
    algorithm: Algorithm, axis_name: spmd.AxisName, gathered_over: spmd.AxisName, a: Rows, c: Rows, scale: jax.Array
) -> tuple[tuple[jax.Array, ...], jax.Array]:
    """What to take off the exponents of each anchor and of each candidate, and whether that is 0 for all."""

    def maxima() -> tuple[jax.Array, jax.Array]:
        y, z = _two_way.greatest(algorithm, axis_name, a.x, c.x, (a.ids, a.valid, c.ids, c.valid), scale)
        return y, spmd.pmax(z, gathered_over)

    everywhere = gathered_over if axis_name is None else axis_name
    return _zero_or(maxima, _need_no_shift((a.x,), (c.x,), scale, everywhere), a, c)


def _zero_or(
    maxima: Callable[[], tuple[jax.Array, ...]], alike: jax.Array, *like: Any
) -> tuple[tuple[jax.Array, ...], jax.Array]:
    """Zeros if `alike`, else the maxima of the rows: 0 for one without a negative."""
    alike = sequential.all_agree(alike)

    def shifts() -> tuple[jax.Array, ...]:
        return tuple(jnp.where(jnp.isneginf(peaks), 0, peaks) for peaks in maxima())

    def marked(fn: Callable[[], Any]) -> Callable[[], Any]:
        return lambda: _tiles.vary_alike(fn(), like)[0]

    zeros = [jnp.zeros(x.shape, x.dtype) for x in jax.eval_shape(shifts)]
    return lax.cond(alike, marked(lambda: tuple(zeros)), marked(shifts)), alike
