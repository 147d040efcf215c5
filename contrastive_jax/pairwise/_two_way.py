"""Sums over all tiles, of the rows and of the columns: y_i = sum_j fn(s_ij, shift_i), z_j = sum_i fn(s_ij, shift_j).

Each tile serves both, in the forward pass and in the backward pass. Under an axis name the candidates travel round the
devices, and the sums of their columns with them.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from contrastive_jax import spmd
from contrastive_jax.pairwise import _products, _tiles
from contrastive_jax.pairwise._products import Algorithm
from contrastive_jax.pairwise._tiles import Constants, Rows, Walk

Both = tuple[jax.Array, jax.Array]  # [blocks, size] of the rows and of the columns
Sums = tuple[Both, jax.Array, jax.Array]  # the sums; anchors and candidates, as they came


class Fixed(NamedTuple):
    """What is not differentiated."""

    a_ids: jax.Array
    a_valid: jax.Array
    c_ids: jax.Array
    c_valid: jax.Array
    others: tuple[jax.Array, ...]  # what the function takes first
    alike: jax.Array | None  # whether all shifts are; None: they are known to be, unless they are offsets


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def sum_tiles(walk: Walk, ax: jax.Array, cx: jax.Array, fixed: Fixed, shifts: Both, constants: Constants) -> Sums:
    """Sums [blocks, size] of rows and of columns, for anchors ax and candidates cx, filled up to whole blocks.

    Both are returned as they came, see `_tiles.resume`.
    """
    return _forward(walk, ax, cx, fixed, shifts, constants)[0]


def _forward(
    walk: Walk, ax: jax.Array, cx: jax.Array, fixed: Fixed, shifts: Both, constants: Constants
) -> tuple[Sums, Any]:
    by_either = partial(_choose, walk, _sum)
    sums = _tiles.map_copies(by_either, walk.axis_name, fixed.a_ids, fixed.c_ids)(ax, cx, fixed, shifts, constants)
    return (sums, ax, cx), (ax, cx, fixed, shifts, constants)


def _backward(walk: Walk, residuals: Any, g: Sums) -> tuple[jax.Array, jax.Array, Any, Both, Constants]:
    ax, cx, fixed, shifts, constants = residuals
    by_either = _tiles.map_copies(partial(_choose, walk, _pull), walk.axis_name, fixed.a_ids, fixed.c_ids)
    da, dc, d_shifts, dk = by_either(ax, cx, fixed, shifts, constants, g)
    return da, dc, _tiles.no_gradient(fixed), d_shifts, dk


sum_tiles.defvjp(_forward, _backward)


def _choose(walk: Walk, fn: Callable[..., Any], ax: jax.Array, cx: jax.Array, fixed: Fixed, *arrays: Any) -> Any:
    return _tiles.choose_by_shifts(_tiles.bind(walk, fixed.others), fn, fixed.alike, ax, cx, fixed, *arrays)


def _sum(
    walk: Walk, ax: jax.Array, cx: jax.Array, fixed: Fixed, shifts: Both, constants: Constants, *, alike: bool
) -> Both:
    rows = Rows(ax, fixed.a_ids, fixed.a_valid)

    def of_shard(sums: Both, shard: tuple[jax.Array, jax.Array, jax.Array]) -> Both:
        cx, c_ids, c_shift = shard
        columns = Rows(cx, c_ids, fixed.c_valid)

        def body(sums: Both, i: jax.Array, j: jax.Array) -> Both:
            y, z = sums
            a, c = _tiles.block(rows, i), _tiles.block(columns, j)
            s, shift = _tiles.similarities(a, c, walk.algorithm), _tiles.entry(shifts[0], i)
            of_rows = of_columns = lax.optimization_barrier(_tiles.values(walk, a, c)(s, shift, constants))
            if not alike:
                of_columns = _tiles.values(walk, c, a)(s.T, _tiles.entry(c_shift, j), constants).T
            y = _tiles.add_to_entry(y, i, jnp.sum(of_rows, axis=1))
            return y, _tiles.add_to_entry(z, j, jnp.sum(of_columns, axis=0))

        y, z = sums
        # The sums of a shard's columns travel one turn behind the shard, so that no computation waits for them.
        return _tiles.over_all(body, (y, spmd.rotate(z, walk.axis_name)), fixed.a_ids, c_ids)

    start = (jnp.zeros_like(shifts[0]), jnp.zeros_like(shifts[1]))
    y, z = spmd.ring(of_shard, start, (cx, fixed.c_ids, shifts[1]), walk.axis_name)
    return y, spmd.rotate(z, walk.axis_name)  # back to the device they belong to


def _pull(
    walk: Walk,
    ax: jax.Array,
    cx: jax.Array,
    fixed: Fixed,
    shifts: Both,
    constants: Constants,
    g: Sums,
    *,
    alike: bool,
) -> tuple[jax.Array, jax.Array, Both, Constants]:
    (of_y, of_z), *before = g
    rows = Rows(ax, fixed.a_ids, fixed.a_valid)

    def of_shard(carry: Any, shard: tuple[jax.Array, ...]) -> Any:
        cx, c_ids, c_shift, c_g = shard
        columns = Rows(cx, c_ids, fixed.c_valid)

        def body(carry: Any, i: jax.Array, j: jax.Array) -> Any:
            (da, dy_shift), (dc, dz_shift), dk = carry
            a = _tiles.Block(_tiles.block(rows, i), *(_tiles.entry(x, i) for x in (shifts[0], of_y)))
            c = _tiles.Block(_tiles.block(columns, j), *(_tiles.entry(x, j) for x in (c_shift, c_g)))
            ds, (of_rows, of_columns), more = _tiles.pull_both_ways(walk, a, c, constants, alike)
            da = _tiles.add_to_block(da, i, _products.times(ds, c.rows.x, walk.algorithm))
            dc = _tiles.add_to_block(dc, j, _products.transposed_times(ds, a.rows.x, walk.algorithm))
            dy_shift = _tiles.add_to_shift(walk, dy_shift, i, of_rows)
            dz_shift = _tiles.add_to_shift(walk, dz_shift, j, of_columns)
            return (da, dy_shift), (dc, dz_shift), _tiles.add(dk, more)

        of_rows, (dc, dz_shift), dk = carry
        of_columns = spmd.rotate(dc, walk.axis_name), _rotate_offsets(walk, dz_shift)
        return _tiles.over_all(body, (of_rows, of_columns, dk), fixed.a_ids, c_ids)

    a_before, c_before = _tiles.resume(of_y, *before)
    start = (
        (a_before, jnp.zeros_like(shifts[0])),
        (_tiles.send_out(walk, c_before), jnp.zeros_like(shifts[1])),
        tuple(jnp.zeros_like(k) for k in constants),
    )
    (da, dy_shift), (dc, dz_shift), dk = spmd.ring(of_shard, start, (cx, fixed.c_ids, shifts[1], of_z), walk.axis_name)
    dc = _tiles.bring_back(walk, dc, c_before).astype(cx.dtype)
    return da.astype(ax.dtype), dc, (dy_shift, _rotate_offsets(walk, dz_shift)), dk


def _rotate_offsets(walk: Walk, d_shift: jax.Array) -> jax.Array:
    return spmd.rotate(d_shift, walk.axis_name) if walk.offsets else d_shift


def greatest(
    algorithm: Algorithm,
    axis_name: spmd.AxisName,
    ax: jax.Array,
    cx: jax.Array,
    masks: tuple[jax.Array, ...],
    scale: jax.Array,
) -> Both:
    """The greatest scaled similarity [blocks, size] of each row and of each column to a negative; -inf without one."""
    a_ids, a_valid, c_ids, c_valid = masks
    rows = Rows(ax, a_ids, a_valid)

    def of_shard(peaks: Both, shard: tuple[jax.Array, jax.Array]) -> Both:
        columns = Rows(*shard, c_valid)

        def body(peaks: Both, i: jax.Array, j: jax.Array) -> Both:
            y, z = peaks
            logits = _tiles.logits(_tiles.block(rows, i), _tiles.block(columns, j), scale, algorithm)
            y = _tiles.raise_entry(y, i, jnp.max(logits, axis=1))
            return y, _tiles.raise_entry(z, j, jnp.max(logits, axis=0))

        y, z = peaks
        return _tiles.over_all(body, (y, spmd.rotate(z, axis_name)), a_ids, c_ids)

    start = [jnp.full(ids.shape, -jnp.inf, scale.dtype) for ids in (a_ids, c_ids)]
    y, z = spmd.vary_alike((*start, ax, cx, scale))[:2]
    y, z = spmd.ring(of_shard, (y, z), (cx, c_ids), axis_name)
    return y, spmd.rotate(z, axis_name)
