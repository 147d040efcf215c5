"""Reductions over tiles of the similarity matrix: memory linear in the number of rows.

Both reductions compute y_i = sum_j fn(s_ij, shift_i); log-sum-exp takes its logarithm. With an axis name the candidates
are sharded over its devices and travel round them ("ring"); without one this device has all of them ("blockwise").
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from contrastive_jax import closures, spmd
from contrastive_jax.closures import Elementwise
from contrastive_jax.pairwise import _rectangular, _symmetric, _tiles, shared

Ids = jax.Array | None
# Up to this bound b, exp(x - b) for |x| <= b stays well within float32: one shift serves all rows, without a maximum.
_MAX_EXPONENT = 40.0


def logsumexp(
    anchors: jax.Array,
    candidates: jax.Array,
    *,
    scale: float | jax.Array,
    anchor_ids: Ids,
    candidate_ids: Ids,
    axis_name: spmd.AxisName,
    block_size: int,
) -> jax.Array:
    anchors, candidates = _vary_over(axis_name, anchors, candidates)
    scale = jnp.asarray(scale, shared.accumulation_dtype(anchors.dtype, candidates.dtype))
    scale = spmd.vary_alike((scale, anchors, candidates))[0]  # so that its gradient is summed over devices once
    frozen = [lax.stop_gradient(x) for x in (anchors, candidates, scale)]
    bound = jnp.abs(frozen[2]) * _greatest_norm(frozen[0]) * _greatest_norm(frozen[1], axis_name)
    options: dict[str, Any] = {
        "anchor_ids": anchor_ids,
        "candidate_ids": candidate_ids,
        "axis_name": axis_name,
        "block_size": block_size,
    }

    # All devices of a ring must take the same branch.
    alike = spmd.pmax(bound, axis_name) <= _MAX_EXPONENT
    shift = lax.cond(
        alike,
        lambda: spmd.vary_alike((jnp.broadcast_to(bound, anchors.shape[:1]), *frozen))[0],
        lambda: _row_maxima(*frozen, **options),
    )
    y = _sum_tiles(_shifted_exp, (scale,), anchors, candidates, shift=shift, alike=alike, others=(), **options)
    empty = y == 0
    return jnp.where(empty, -jnp.inf, jnp.log(jnp.where(empty, 1, y)) + shift)


def sum_over_negatives(
    fn: Elementwise,
    anchors: jax.Array,
    candidates: jax.Array,
    *,
    anchor_ids: Ids,
    candidate_ids: Ids,
    axis_name: spmd.AxisName,
    block_size: int,
) -> jax.Array:
    anchors, candidates = _vary_over(axis_name, anchors, candidates)
    dtype = shared.accumulation_dtype(anchors.dtype, candidates.dtype)
    sides = [_tiles.side(len(x), block_size) for x in (anchors, candidates)]
    tile = spmd.vary_alike((jnp.zeros(sides, dtype), anchors, candidates))[0]
    of_tile, constants, others = _without_closure(fn, tile)
    return _sum_tiles(
        of_tile,
        constants,
        anchors,
        candidates,
        shift=jnp.zeros(anchors.shape[:1], dtype),
        alike=None,
        others=others,
        anchor_ids=anchor_ids,
        candidate_ids=candidate_ids,
        axis_name=axis_name,
        block_size=block_size,
    )


def _without_closure(
    fn: Elementwise, tile: jax.Array
) -> tuple[_tiles.Function, tuple[jax.Array, ...], tuple[jax.Array, ...]]:
    """fn as a function that takes what it closes over as arguments; what a gradient can reach of that, and the rest."""
    hoisted = closures.hoist(fn, tile)
    differentiable = [closures.is_differentiable(x) for x in hoisted.arrays]

    def of_tile(others: tuple[jax.Array, ...], s: jax.Array, _: jax.Array, *constants: jax.Array) -> jax.Array:
        of_kind = {True: iter(constants), False: iter(others)}
        return hoisted.fn(tuple(next(of_kind[kind]) for kind in differentiable), s)

    def of_kind(kind: bool) -> tuple[jax.Array, ...]:
        return tuple(x for x, own in zip(hoisted.arrays, differentiable, strict=True) if own == kind)

    return of_tile, of_kind(True), of_kind(False)


def _vary_over(axis_name: spmd.AxisName, *arrays: jax.Array) -> Sequence[jax.Array]:
    """Mark arrays as differing over the ring's devices, because they meet those of other devices."""
    return arrays if axis_name is None else spmd.vary_alike((spmd.axis_index(axis_name), *arrays))[1:]


def _shifted_exp(_: tuple[jax.Array, ...], s: jax.Array, shift: jax.Array, scale: jax.Array) -> jax.Array:
    return jnp.exp(scale * s - shift)


def _is_symmetric(anchors: jax.Array, candidates: jax.Array, anchor_ids: Ids, candidate_ids: Ids) -> bool:
    return anchors is candidates and anchor_ids is candidate_ids and anchor_ids is not None


def _greatest_norm(x: jax.Array, axis_name: spmd.AxisName = None) -> jax.Array:
    x = x.astype(shared.accumulation_dtype(x.dtype))
    return jnp.sqrt(spmd.pmax(jnp.max(jnp.sum(x * x, axis=1)), axis_name))


def _row_maxima(
    anchors: jax.Array,
    candidates: jax.Array,
    scale: jax.Array,
    *,
    anchor_ids: Ids,
    candidate_ids: Ids,
    axis_name: spmd.AxisName,
    block_size: int,
) -> jax.Array:
    """[m]: each anchor's greatest scaled similarity to a negative; 0 where it has no negative."""
    a, c = _vary_alike(*_tiles.in_blocks(anchors, candidates, anchor_ids, candidate_ids, block_size))
    peaks = _rectangular.greatest(axis_name, a.x, c.x, (a.ids, a.valid, c.ids, c.valid), scale)
    peaks = peaks.reshape(-1)[: len(anchors)]
    return jnp.where(jnp.isneginf(peaks), 0, peaks)


def _sum_tiles(
    fn: _tiles.Function,
    constants: tuple[jax.Array, ...],
    anchors: jax.Array,
    candidates: jax.Array,
    *,
    shift: jax.Array,
    alike: jax.Array | None,
    others: tuple[jax.Array, ...],
    anchor_ids: Ids,
    candidate_ids: Ids,
    axis_name: spmd.AxisName,
    block_size: int,
) -> jax.Array:
    """y_i = sum over the negatives j of i of fn(others, s_ij, shift_i, *constants): [m].

    Neither the shift nor the others are differentiated. `alike`: whether all shifts are, None if they are known to be.
    """
    symmetric = axis_name is None and _is_symmetric(anchors, candidates, anchor_ids, candidate_ids)
    a, c = _tiles.in_blocks(anchors, candidates, anchor_ids, candidate_ids, block_size)
    a, c, shift = _vary_alike(a, c, shared.fill_blocks(shift, a.ids.shape[1]))
    if symmetric:
        y = _symmetric.sum_tiles(fn, a.x, (a.ids, a.valid, shift, others, alike), constants)
    else:
        fixed = (a.ids, a.valid, c.ids, c.valid, shift, others)
        y = _rectangular.sum_tiles(fn, axis_name, a.x, c.x, fixed, constants)
    return y.reshape(-1)[: len(anchors)]


def _vary_alike(*trees: Any) -> Any:
    leaves, structure = jax.tree.flatten(trees)
    return jax.tree.unflatten(structure, spmd.vary_alike(leaves))
