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
from contrastive_jax.pairwise import _tiles
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


class _Side(NamedTuple):
    """A block of rows, with what belongs to them."""

    rows: Rows
    shift: jax.Array
    g: jax.Array


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def sum_tiles(
    fn: Function, axis_name: AxisName, ax: jax.Array, cx: jax.Array, fixed: Fixed, constants: Constants
) -> Sums:
    """Sums [blocks, size] of the rows and of the columns, for anchors ax and candidates cx in blocks."""
    return _forward(fn, axis_name, ax, cx, fixed, constants)[0]


def _forward(
    fn: Function, axis_name: AxisName, ax: jax.Array, cx: jax.Array, fixed: Fixed, constants: Constants
) -> tuple[Sums, Residuals]:
    by_either = partial(_choose, partial(_sum, partial(fn, ()), axis_name))
    sums = _tiles.map_copies(by_either, axis_name, ax, cx)(ax, cx, fixed, constants)
    return sums, (ax, cx, fixed, constants)


def _backward(
    fn: Function, axis_name: AxisName, residuals: Residuals, g: Sums
) -> tuple[jax.Array, jax.Array, Any, Constants]:
    ax, cx, fixed, constants = residuals
    by_either = partial(_choose, partial(_pull, partial(fn, ()), axis_name))
    da, dc, dk = _tiles.map_copies(by_either, axis_name, ax, cx)(ax, cx, fixed, constants, g)
    return da, dc, _tiles.no_gradient(fixed), dk


sum_tiles.defvjp(_forward, _backward)


def _choose(fn: Callable[..., Any], ax: jax.Array, cx: jax.Array, fixed: Fixed, *arrays: Any) -> Any:
    return _tiles.choose(fn, fixed.alike, ax, cx, fixed, *arrays)


def _sum(
    fn: Function, axis_name: AxisName, ax: jax.Array, cx: jax.Array, fixed: Fixed, constants: Constants, *, alike: bool
) -> Sums:
    def of_shard(sums: Sums, shard: tuple[jax.Array, jax.Array, jax.Array]) -> Sums:
        cx, c_ids, c_shift = shard
        columns = (Rows(cx, c_ids, fixed.c_valid), c_shift)

        def of_block(z: jax.Array, block: tuple[Rows, jax.Array]) -> Sums:
            a, shift = block

            def body(y: jax.Array, column: tuple[Rows, jax.Array]) -> Sums:
                c, c_shift = column
                s = _tiles.similarities(a, c)
                of_rows = of_columns = lax.optimization_barrier(_tiles.values(fn, a, c, shift)(s, constants))
                if not alike:
                    of_columns = _tiles.values(fn, c, a, c_shift)(s.T, constants).T
                return y + jnp.sum(of_rows, axis=1), jnp.sum(of_columns, axis=0)

            y, more = lax.scan(body, jnp.zeros_like(shift), columns)
            return z + more, y

        y, z = sums
        # The sums of a shard's columns travel one turn behind the shard, so that no computation waits for them.
        z, more = lax.scan(of_block, spmd.rotate(z, axis_name), (Rows(ax, fixed.a_ids, fixed.a_valid), fixed.shifts[0]))
        return y + more, z

    start = (jnp.zeros_like(fixed.shifts[0]), jnp.zeros_like(fixed.shifts[1]))
    y, z = spmd.ring(of_shard, start, (cx, fixed.c_ids, fixed.shifts[1]), axis_name)
    return y, spmd.rotate(z, axis_name)  # back to the device they belong to


def _pull(
    fn: Function,
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

        def body(carry: Any, tile: tuple[jax.Array, jax.Array]) -> tuple[Any, None]:
            da, dc, dk = carry
            i, j = tile
            a, c = _tiles.block(rows, i), _tiles.block(columns, j)
            of_row, of_column = _Side(a, fixed.shifts[0][i], g[0][i]), _Side(c, c_shift[j], c_g[j])
            ds, more = _pull_tile(fn, of_row, of_column, constants, alike)
            da = da.at[i].add(_tiles.times(ds, c.x))
            return (da, dc.at[j].add(_tiles.transposed_times(ds, a.x)), _tiles.add(dk, more)), None

        da, dc, dk = carry
        return lax.scan(body, (da, spmd.rotate(dc, axis_name), dk), _tiles.every_tile(ax, cx))[0]

    start = (_tiles.zeros(ax, g[0]), _tiles.zeros(cx, g[0]), tuple(jnp.zeros_like(k) for k in constants))
    da, dc, dk = spmd.ring(of_shard, start, (cx, fixed.c_ids, fixed.shifts[1], g[1]), axis_name)
    return da.astype(ax.dtype), spmd.rotate(dc, axis_name).astype(cx.dtype), dk


def _pull_tile(fn: Function, a: _Side, c: _Side, constants: Constants, alike: bool) -> tuple[jax.Array, Constants]:
    """Cotangents of the similarities of a tile and of the constants."""
    s = _tiles.similarities(a.rows, c.rows)
    if alike:
        return _tiles.pull(fn, a.rows, c.rows, a.shift, constants, s, a.g[:, None] + c.g[None, :])
    ds, more = _tiles.pull(fn, a.rows, c.rows, a.shift, constants, s, a.g[:, None])
    turned, also = _tiles.pull(fn, c.rows, a.rows, c.shift, constants, s.T, c.g[:, None])
    return ds + turned.T, _tiles.add(more, also)


def greatest(axis_name: AxisName, ax: jax.Array, cx: jax.Array, masks: tuple[jax.Array, ...], scale: jax.Array) -> Sums:
    """The greatest scaled similarity [blocks, size] of each row and of each column to a negative; -inf without one."""
    a_ids, a_valid, c_ids, c_valid = masks

    def of_shard(peaks: Sums, shard: tuple[jax.Array, jax.Array]) -> Sums:
        columns = Rows(shard[0], shard[1], c_valid)

        def of_block(z: jax.Array, block: tuple[Rows, jax.Array]) -> Sums:
            a, peak = block

            def body(peak: jax.Array, c: Rows) -> Sums:
                logits = jnp.where(_tiles.are_negatives(a, c), scale * _tiles.similarities(a, c), -jnp.inf)
                return jnp.maximum(peak, jnp.max(logits, axis=1)), jnp.max(logits, axis=0)

            peak, of_columns = lax.scan(body, peak, columns)
            return jnp.maximum(z, of_columns), peak

        y, z = peaks
        z, y = lax.scan(of_block, spmd.rotate(z, axis_name), (Rows(ax, a_ids, a_valid), y))
        return y, z

    start = [jnp.full(ids.shape, -jnp.inf, scale.dtype) for ids in (a_ids, c_ids)]
    y, z = spmd.vary_alike((*start, ax, cx, scale))[:2]
    y, z = spmd.ring(of_shard, (y, z), (cx, c_ids), axis_name)
    return y, spmd.rotate(z, axis_name)
