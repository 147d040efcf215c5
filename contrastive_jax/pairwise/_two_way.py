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
from contrastive_jax.pairwise._tiles import Function, Rows
from contrastive_jax.spmd import AxisName

Constants = tuple[jax.Array, ...]
Sums = tuple[jax.Array, jax.Array]  # of the rows and of the columns, or their cotangents


class Fixed(NamedTuple):
    """What is not differentiated."""

    a_ids: jax.Array
    a_valid: jax.Array
    c_ids: jax.Array
    c_valid: jax.Array
    shifts: Sums
    alike: jax.Array | None  # whether all shifts are; None: they are known to be


Residuals = tuple[jax.Array, jax.Array, Fixed, Constants]


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def sum_tiles(
    fn: Function,
    algorithm: Algorithm,
    axis_name: AxisName,
    ax: jax.Array,
    cx: jax.Array,
    fixed: Fixed,
    constants: Constants,
) -> Sums:
    """Sums [blocks, size] of rows and of columns, for anchors ax and candidates cx, filled up to whole blocks."""
    return _forward(fn, algorithm, axis_name, ax, cx, fixed, constants)[0]


def _forward(
    fn: Function,
    algorithm: Algorithm,
    axis_name: AxisName,
    ax: jax.Array,
    cx: jax.Array,
    fixed: Fixed,
    constants: Constants,
) -> tuple[Sums, Residuals]:
    by_either = partial(_choose, partial(_sum, partial(fn, ()), algorithm, axis_name))
    sums = _tiles.map_copies(by_either, axis_name, fixed.a_ids, fixed.c_ids)(ax, cx, fixed, constants)
    return sums, (ax, cx, fixed, constants)


def _backward(
    fn: Function, algorithm: Algorithm, axis_name: AxisName, residuals: Residuals, g: Sums
) -> tuple[jax.Array, jax.Array, Any, Constants]:
    ax, cx, fixed, constants = residuals
    by_either = partial(_choose, partial(_pull, partial(fn, ()), algorithm, axis_name))
    da, dc, dk = _tiles.map_copies(by_either, axis_name, fixed.a_ids, fixed.c_ids)(ax, cx, fixed, constants, g)
    return da, dc, _tiles.no_gradient(fixed), dk


sum_tiles.defvjp(_forward, _backward)


def _choose(fn: Callable[..., Any], ax: jax.Array, cx: jax.Array, fixed: Fixed, *arrays: Any) -> Any:
    return _tiles.choose(fn, fixed.alike, ax, cx, fixed, *arrays)


def _sum(
    fn: Function,
    algorithm: Algorithm,
    axis_name: AxisName,
    ax: jax.Array,
    cx: jax.Array,
    fixed: Fixed,
    constants: Constants,
    *,
    alike: bool,
) -> Sums:
    rows = Rows(ax, fixed.a_ids, fixed.a_valid)

    def of_shard(sums: Sums, shard: tuple[jax.Array, jax.Array, jax.Array]) -> Sums:
        cx, c_ids, c_shift = shard
        columns = Rows(cx, c_ids, fixed.c_valid)

        def body(sums: Sums, i: jax.Array, j: jax.Array) -> Sums:
            y, z = sums
            a, c = _tiles.block(rows, i), _tiles.block(columns, j)
            s, shift = _tiles.similarities(a, c, algorithm), _tiles.entry(fixed.shifts[0], i)
            of_rows = of_columns = lax.optimization_barrier(_tiles.values(fn, a, c, shift)(s, constants))
            if not alike:
                of_columns = _tiles.values(fn, c, a, _tiles.entry(c_shift, j))(s.T, constants).T
            y = _tiles.add_to_entry(y, i, jnp.sum(of_rows, axis=1))
            return y, _tiles.add_to_entry(z, j, jnp.sum(of_columns, axis=0))

        y, z = sums
        # The sums of a shard's columns travel one turn behind the shard, so that no computation waits for them.
        return _tiles.over_all(body, (y, spmd.rotate(z, axis_name)), fixed.a_ids, c_ids)

    start = (jnp.zeros_like(fixed.shifts[0]), jnp.zeros_like(fixed.shifts[1]))
    y, z = spmd.ring(of_shard, start, (cx, fixed.c_ids, fixed.shifts[1]), axis_name)
    return y, spmd.rotate(z, axis_name)  # back to the device they belong to


def _pull(
    fn: Function,
    algorithm: Algorithm,
    axis_name: AxisName,
    ax: jax.Array,
    cx: jax.Array,
    fixed: Fixed,
    constants: Constants,
    g: Sums,
    *,
    alike: bool,
) -> tuple[jax.Array, jax.Array, Constants]:
    rows = Rows(ax, fixed.a_ids, fixed.a_valid)

    def of_shard(carry: Any, shard: tuple[jax.Array, ...]) -> Any:
        cx, c_ids, c_shift, c_g = shard
        columns = Rows(cx, c_ids, fixed.c_valid)

        def body(carry: Any, i: jax.Array, j: jax.Array) -> Any:
            da, dc, dk = carry
            a = _tiles.Block(_tiles.block(rows, i), *(_tiles.entry(x, i) for x in (fixed.shifts[0], g[0])))
            c = _tiles.Block(_tiles.block(columns, j), *(_tiles.entry(x, j) for x in (c_shift, c_g)))
            ds, more = _tiles.pull_both_ways(fn, algorithm, a, c, constants, alike)
            da = _tiles.add_to_block(da, i, _products.times(ds, c.rows.x, algorithm))
            dc = _tiles.add_to_block(dc, j, _products.transposed_times(ds, a.rows.x, algorithm))
            return da, dc, _tiles.add(dk, more)

        da, dc, dk = carry
        return _tiles.over_all(body, (da, spmd.rotate(dc, axis_name), dk), fixed.a_ids, c_ids)

    start = (_tiles.zeros(ax, g[0]), _tiles.zeros(cx, g[0]), tuple(jnp.zeros_like(k) for k in constants))
    da, dc, dk = spmd.ring(of_shard, start, (cx, fixed.c_ids, fixed.shifts[1], g[1]), axis_name)
    return da.astype(ax.dtype), spmd.rotate(dc, axis_name).astype(cx.dtype), dk


def greatest(
    algorithm: Algorithm,
    axis_name: AxisName,
    ax: jax.Array,
    cx: jax.Array,
    masks: tuple[jax.Array, ...],
    scale: jax.Array,
) -> Sums:
    """The greatest scaled similarity [blocks, size] of each row and of each column to a negative; -inf without one."""
    a_ids, a_valid, c_ids, c_valid = masks
    rows = Rows(ax, a_ids, a_valid)

    def of_shard(peaks: Sums, shard: tuple[jax.Array, jax.Array]) -> Sums:
        columns = Rows(*shard, c_valid)

        def body(peaks: Sums, i: jax.Array, j: jax.Array) -> Sums:
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
