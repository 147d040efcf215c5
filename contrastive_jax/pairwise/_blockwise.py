"""Reductions over tiles of the similarity matrix: memory linear in the number of rows.

Both reductions compute y_i = sum_j fn(s_ij, shift_i); log-sum-exp takes its logarithm. With an axis name the candidates
are sharded over its devices and travel round them ("ring"); without one this device has all of them ("blockwise", or
"pallas", where kernels walk over the tiles).
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from contrastive_jax import closures, sequential, spmd
from contrastive_jax.closures import Elementwise
from contrastive_jax.pairwise import _fused, _rectangular, _symmetric, _tiles, _two_way, shared
from contrastive_jax.pairwise._products import Algorithm
from contrastive_jax.pairwise._tiles import Rows

Ids = jax.Array | None


def logsumexp(
    anchors: jax.Array,
    candidates: jax.Array,
    *,
    scale: float | jax.Array,
    anchor_ids: Ids,
    candidate_ids: Ids,
    algorithm: Algorithm,
    axis_name: spmd.AxisName,
    block_size: int,
    fused: bool,
) -> jax.Array:
    anchors, candidates = _vary_over(axis_name, anchors, candidates)
    scale = _scale_of(scale, anchors, candidates)
    a, c = _vary_alike(*_tiles.in_blocks(anchors, candidates, anchor_ids, candidate_ids, block_size))
    find = _tiles.map_copies(partial(_find_shifts, algorithm, axis_name), axis_name, a.ids, c.ids)
    shift, alike = find(*lax.stop_gradient((a, c, scale)))
    y = _sum_tiles(
        _shifted_exp,
        (scale,),
        anchors,
        candidates,
        shift=shift.reshape(-1)[: len(anchors)],
        alike=alike,
        others=(),
        anchor_ids=anchor_ids,
        candidate_ids=candidate_ids,
        algorithm=algorithm,
        axis_name=axis_name,
        block_size=block_size,
        fused=fused,
    )
    return _log(y, shift.reshape(-1)[: len(anchors)])


def logsumexp_over_views(
    views: Sequence[jax.Array], *, scale: float | jax.Array, ids: jax.Array, algorithm: Algorithm, block_size: int
) -> list[jax.Array]:
    """Of each view's rows to those of all views; on one device."""
    scale = _scale_of(scale, *views)
    blocks = [_vary_alike(_tiles.rows_in_blocks(x, ids, block_size), scale)[0] for x in views]
    ids, valid = (jnp.concatenate([getattr(rows, name) for rows in blocks]) for name in ("ids", "valid"))
    x = tuple(rows.x for rows in blocks)
    find = _tiles.map_copies(partial(_find_shifts_over_views, algorithm), None, ids, ids)
    shift, alike = find(*lax.stop_gradient((x, ids, valid, scale)))
    y = _symmetric.sum_tiles(_shifted_exp, algorithm, x, (ids, valid, shift, (), alike), (scale,))
    return [of_view.reshape(-1)[: len(views[0])] for of_view in jnp.split(_log(y, shift), len(views))]


def logsumexp_both_ways(
    anchors: jax.Array,
    candidates: jax.Array,
    *,
    scale: float | jax.Array,
    anchor_ids: Ids,
    candidate_ids: Ids,
    algorithm: Algorithm,
    axis_name: spmd.AxisName,
    travel: bool,
    block_size: int,
    fused: bool,
) -> tuple[jax.Array, jax.Array]:
    """Of the anchors and of the candidates of this device; `travel`: on a ring, instead of gathering candidates."""
    gathered_over, axis_name = (None, axis_name) if travel else (axis_name, None)
    n = len(candidates)
    candidates = spmd.gather(candidates, gathered_over)
    candidate_ids = None if candidate_ids is None else spmd.gather(candidate_ids, gathered_over)
    anchors, candidates = _vary_over(axis_name, anchors, candidates)
    scale = _scale_of(scale, anchors, candidates)
    a, c = _vary_alike(*_tiles.in_blocks(anchors, candidates, anchor_ids, candidate_ids, block_size))
    find: Callable[..., Any] = partial(_find_shifts_both_ways, algorithm, axis_name, gathered_over)
    if gathered_over is None:
        find = _tiles.map_copies(find, axis_name, a.ids, c.ids)
    shifts, alike = find(*lax.stop_gradient((a, c, scale)))
    a, c, shifts = _vary_alike(a, c, shifts)
    fixed = _two_way.Fixed(a.ids, a.valid, c.ids, c.valid, shifts, alike)
    if fused:
        _fused.check(algorithm, (anchors, candidates), ())
        tiles = _fused.Fixed(*_fused.flat(a, shifts[0]), *_fused.flat(c, shifts[1]), alike=alike)
        options = _fused.Options("both", algorithm)
        sums = _fused.sum_tiles(partial(_shifted_exp, ()), options, a.x, c.x, tiles, (scale,))
    else:
        sums = _two_way.sum_tiles(_shifted_exp, algorithm, axis_name, a.x, c.x, fixed, (scale,))
    y, z = (x.reshape(-1)[: len(rows)] for x, rows in zip(sums, (anchors, candidates), strict=True))
    y_shift, z_shift = (x.reshape(-1)[: len(rows)] for x, rows in zip(shifts, (anchors, candidates), strict=True))
    if gathered_over is not None:
        z = lax.psum_scatter(z, gathered_over, tiled=True)
        z_shift = lax.dynamic_slice_in_dim(z_shift, spmd.axis_index(gathered_over) * n, n)
    return _log(y, y_shift), _log(z, z_shift)


def sum_over_negatives(
    fn: Elementwise,
    anchors: jax.Array,
    candidates: jax.Array,
    *,
    anchor_ids: Ids,
    candidate_ids: Ids,
    algorithm: Algorithm,
    axis_name: spmd.AxisName,
    block_size: int,
    fused: bool,
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
        algorithm=algorithm,
        axis_name=axis_name,
        block_size=block_size,
        fused=fused,
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


def _scale_of(scale: float | jax.Array, *rows: jax.Array) -> jax.Array:
    """The scale in the dtype of sums, marked so that its gradient is summed over devices once."""
    scale = jnp.asarray(scale, shared.accumulation_dtype(*(x.dtype for x in rows)))
    return spmd.vary_alike((scale, *rows))[0]


def _shifted_exp(_: tuple[jax.Array, ...], s: jax.Array, shift: jax.Array, scale: jax.Array) -> jax.Array:
    return jnp.exp(scale * s - shift)


def _log(y: jax.Array, shift: jax.Array) -> jax.Array:
    """log y + shift; -inf, with a zero gradient, where y = 0."""
    empty = y == 0
    return jnp.where(empty, -jnp.inf, jnp.log(jnp.where(empty, 1, y)) + shift)


def _is_symmetric(anchors: jax.Array, candidates: jax.Array, anchor_ids: Ids, candidate_ids: Ids) -> bool:
    return anchors is candidates and anchor_ids is candidate_ids and anchor_ids is not None


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


def _find_shifts(
    algorithm: Algorithm, axis_name: spmd.AxisName, a: Rows, c: Rows, scale: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """What to take off the exponents of each anchor [blocks, size], and whether that is 0 for all."""

    def maxima() -> tuple[jax.Array]:
        masks = (a.ids, a.valid, c.ids, c.valid)
        return (_rectangular.greatest(algorithm, axis_name, a.x, c.x, masks, scale),)

    (shift,), alike = _zero_or(maxima, _need_no_shift((a.x,), (c.x,), scale, axis_name), a, c)
    return shift, alike


def _find_shifts_over_views(
    algorithm: Algorithm, views: tuple[jax.Array, ...], ids: jax.Array, valid: jax.Array, scale: jax.Array
) -> tuple[jax.Array, jax.Array]:
    def maxima() -> tuple[jax.Array]:
        x = jnp.concatenate(views)
        return (_rectangular.greatest(algorithm, None, x, x, (ids, valid, ids, valid), scale),)

    (shift,), alike = _zero_or(maxima, _need_no_shift(views, views, scale, None), views, ids)
    return shift, alike


def _find_shifts_both_ways(
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
        return lambda: _vary_alike(fn(), like)[0]

    zeros = [jnp.zeros(x.shape, x.dtype) for x in jax.eval_shape(shifts)]
    return lax.cond(alike, marked(lambda: tuple(zeros)), marked(shifts)), alike


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
    algorithm: Algorithm,
    axis_name: spmd.AxisName,
    block_size: int,
    fused: bool,
) -> jax.Array:
    """y_i = sum over the negatives j of i of fn(others, s_ij, shift_i, *constants): [m].

    Neither the shift nor the others are differentiated. `alike`: whether all shifts are, None if they are known to be.
    """
    symmetric = axis_name is None and _is_symmetric(anchors, candidates, anchor_ids, candidate_ids)
    a, c = _tiles.in_blocks(anchors, candidates, anchor_ids, candidate_ids, block_size)
    a, c, shift = _vary_alike(a, c, shared.fill_blocks(shift, a.ids.shape[1]))
    if fused:
        _fused.check(algorithm, (anchors, candidates), (*constants, *others))
        return _fused.sum_rows(partial(fn, others), constants, a, c, shift, alike, algorithm, symmetric)[: len(anchors)]
    if symmetric:
        y = _symmetric.sum_tiles(fn, algorithm, (a.x,), (a.ids, a.valid, shift, others, alike), constants)
    else:
        fixed = (a.ids, a.valid, c.ids, c.valid, shift, others)
        y = _rectangular.sum_tiles(fn, algorithm, axis_name, a.x, c.x, fixed, constants)
    return y.reshape(-1)[: len(anchors)]


def _vary_alike(*trees: Any) -> Any:
    leaves, structure = jax.tree.flatten(trees)
    return jax.tree.unflatten(structure, spmd.vary_alike(leaves))
