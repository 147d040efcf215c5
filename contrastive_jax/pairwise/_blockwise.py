"""Reductions over tiles of the similarity matrix: memory linear in the number of rows.

Both reductions compute y_i = sum_j fn(s_ij, shift_i); log-sum-exp takes its logarithm. With an axis name the candidates
are sharded over its devices and travel round them ("ring"); without one this device has all of them ("blockwise", or
"pallas", where kernels walk over the tiles).
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from contrastive_jax import closures, spmd
from contrastive_jax.closures import Elementwise
from contrastive_jax.pairwise import _fused, _rectangular, _shifts, _symmetric, _tiles, _two_way, shared
from contrastive_jax.pairwise._products import Algorithm
from contrastive_jax.pairwise._tiles import Constants, Rows, Walk

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
    a, c = _tiles.vary_alike(*_tiles.in_blocks(anchors, candidates, anchor_ids, candidate_ids, block_size))
    find = _tiles.map_copies(partial(_shifts.find, algorithm, axis_name), axis_name, a.ids, c.ids)
    shift, alike = find(*lax.stop_gradient((a, c, scale)))
    y = _sum_rows(
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
    blocks = [_tiles.vary_alike(_tiles.rows_in_blocks(x, ids, block_size), scale)[0] for x in views]
    ids, valid = (jnp.concatenate([getattr(rows, name) for rows in blocks]) for name in ("ids", "valid"))
    x = tuple(rows.x for rows in blocks)
    find = _tiles.map_copies(partial(_shifts.find_over_views, algorithm), None, ids, ids)
    shift, alike = find(*lax.stop_gradient((x, ids, valid, scale)))
    y, _ = _symmetric.sum_tiles(
        Walk(_shifted_exp, algorithm), x, _symmetric.Fixed(ids, valid, (), alike), shift, (scale,)
    )
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
    a, c = _tiles.vary_alike(*_tiles.in_blocks(anchors, candidates, anchor_ids, candidate_ids, block_size))
    find: Callable[..., Any] = partial(_shifts.find_both_ways, algorithm, axis_name, gathered_over)
    if gathered_over is None:
        find = _tiles.map_copies(find, axis_name, a.ids, c.ids)
    shifts, alike = find(*lax.stop_gradient((a, c, scale)))
    a, c, shifts = _tiles.vary_alike(a, c, shifts)
    if fused:
        _fused.check(algorithm, (anchors, candidates), ())
        tiles = _fused.Fixed(*_fused.flat(a, shifts[0]), *_fused.flat(c, shifts[1]), alike=alike)
        options = _fused.Options("both", algorithm)
        sums = _fused.sum_tiles(partial(_shifted_exp, ()), options, a.x, c.x, tiles, (scale,))
    else:
        fixed = _two_way.Fixed(a.ids, a.valid, c.ids, c.valid, (), alike)
        sums, *_ = _two_way.sum_tiles(Walk(_shifted_exp, algorithm, axis_name), a.x, c.x, fixed, shifts, (scale,))
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
    return _sum_rows(
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


def totals(
    fn: Elementwise,
    views: Sequence[jax.Array],
    pairs: Sequence[tuple[int, int]],
    *,
    ids: jax.Array,
    offset: jax.Array | None,
    algorithm: Algorithm,
    axis_name: spmd.AxisName,
    travel: bool,
    block_size: int,
) -> list[jax.Array]:
    """For each (a, b) of `pairs`, of view a's rows over view b's; `travel`: on a ring, instead of gathering views.

    Each walk hands the rows on to the next one, so that all of them add to one gradient of a view.
    """
    gathered_over, axis_name = (None, axis_name) if travel else (axis_name, None)
    shift = jnp.zeros(ids.shape, shared.accumulation_dtype(views[0].dtype)) if offset is None else offset
    rows: Any = [_tiles.rows_in_blocks(x, ids, block_size) for x in _vary_over(axis_name, *views)]
    columns: Any = None
    if gathered_over is not None:
        all_ids = spmd.gather(ids, gathered_over)
        columns = [_tiles.rows_in_blocks(spmd.gather(x, gathered_over), all_ids, block_size) for x in views]
    rows, columns, shift = _tiles.vary_alike(rows, columns, shared.fill_blocks(shift, rows[0].ids.shape[1]))
    columns = rows if columns is None else columns
    tile = spmd.vary_alike((jnp.zeros([part[0].ids.shape[1] for part in (rows, columns)], shift.dtype), shift))[0]
    of_tile, constants, others = _without_closure(fn, tile)
    walk = Walk(of_tile, algorithm, axis_name, offsets=offset is not None)
    found: dict[tuple[int, int], jax.Array] = {}
    for a, b in pairs:
        if (a, b) not in found:
            kind = _kind_of(a, b, pairs, gathered_over, axis_name)
            sums, rows_of_a, columns[b] = _sum_tiles(kind, walk, rows[a], columns[b], others, shift, None, constants)
            rows[a] = rows_of_a  # after the columns, which may be the same
            found |= zip(((a, b), (b, a)), sums, strict=False)
    return [found[pair].reshape(-1)[: len(ids)] for pair in pairs]


def _kind_of(
    a: int, b: int, pairs: Sequence[tuple[int, int]], gathered_over: spmd.AxisName, axis_name: spmd.AxisName
) -> _fused.Kind:
    """The walk for one of `pairs`. Gathered columns are others than the rows, and have tiles of another shape."""
    if gathered_over is not None or (a == b and axis_name is not None):
        return "rows"
    return "symmetric" if a == b else "both" if (b, a) in pairs else "rows"


def _sum_tiles(
    kind: _fused.Kind,
    walk: Walk,
    a: Rows,
    c: Rows,
    others: tuple[jax.Array, ...],
    shift: jax.Array,
    alike: jax.Array | None,
    constants: Constants,
) -> tuple[tuple[jax.Array, ...], Rows, Rows]:
    """The sums of a walk [blocks, size], of its columns too for "both"; and its rows and columns, as they came.

    With fn of the walk, y_i is the sum over the negatives j of i of fn(others, s_ij, shift_i, *constants). Others have
    no gradient, shifts only as offsets. `alike`: whether all shifts are, None if they are known to be.
    """
    masks = a.ids, a.valid, c.ids, c.valid
    if kind == "symmetric":
        fixed = _symmetric.Fixed(a.ids, a.valid, others, alike)
        y, (ax,) = _symmetric.sum_tiles(walk, (a.x,), fixed, shift, constants)
        return (y,), a._replace(x=ax), a._replace(x=ax)
    if kind == "both":
        of_both = _two_way.Fixed(*masks, others, alike)
        sums, ax, cx = _two_way.sum_tiles(walk, a.x, c.x, of_both, (shift, shift), constants)
        return sums, a._replace(x=ax), c._replace(x=cx)
    y, ax, cx = _rectangular.sum_tiles(walk, a.x, c.x, _rectangular.Fixed(*masks, others), shift, constants)
    return (y,), a._replace(x=ax), c._replace(x=cx)


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


def _sum_rows(
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
    a, c, shift = _tiles.vary_alike(a, c, shared.fill_blocks(shift, a.ids.shape[1]))
    if fused:
        _fused.check(algorithm, (anchors, candidates), (*constants, *others))
        return _fused.sum_rows(partial(fn, others), constants, a, c, shift, alike, algorithm, symmetric)[: len(anchors)]
    kind: _fused.Kind = "symmetric" if symmetric else "rows"
    (y,), *_ = _sum_tiles(kind, Walk(fn, algorithm, axis_name), a, c, others, shift, alike, constants)
    return y.reshape(-1)[: len(anchors)]
