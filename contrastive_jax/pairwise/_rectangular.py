"""Sums over all tiles of anchors by candidates: y_i = sum_j fn(s_ij, shift_i).

Each tile is computed in the forward pass, discarded, and computed again in the backward pass. Under an axis name the
candidates travel round the devices: a device holds its own rows and at most two shards of candidates.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from contrastive_jax import spmd
from contrastive_jax.pairwise import _tiles
from contrastive_jax.pairwise._tiles import Function, Rows
from contrastive_jax.spmd import AxisName

# Ids and validity of the anchors, and of the candidates, shifts, and what a function takes first; not differentiated.
Fixed = tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array, tuple[jax.Array, ...]]
Constants = tuple[jax.Array, ...]
Residuals = tuple[jax.Array, jax.Array, Fixed, Constants]


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def sum_tiles(
    fn: Function, axis_name: AxisName, ax: jax.Array, cx: jax.Array, fixed: Fixed, constants: Constants
) -> jax.Array:
    """Sums [blocks, size] for anchors ax and candidates cx in blocks."""
    return _forward(fn, axis_name, ax, cx, fixed, constants)[0]


def _forward(
    fn: Function, axis_name: AxisName, ax: jax.Array, cx: jax.Array, fixed: Fixed, constants: Constants
) -> tuple[jax.Array, Residuals]:
    y = _tiles.map_copies(partial(_sum, fn, axis_name), axis_name, ax, cx)(ax, cx, fixed, constants)
    return y, (ax, cx, fixed, constants)


def _backward(
    fn: Function, axis_name: AxisName, residuals: Residuals, g: jax.Array
) -> tuple[jax.Array, jax.Array, Any, Constants]:
    ax, cx, fixed, constants = residuals
    da, dc, dk = _tiles.map_copies(partial(_pull, fn, axis_name), axis_name, ax, cx)(ax, cx, fixed, constants, g)
    return da, dc, _tiles.no_gradient(fixed), dk


sum_tiles.defvjp(_forward, _backward)


def _sum(
    fn: Function, axis_name: AxisName, ax: jax.Array, cx: jax.Array, fixed: Fixed, constants: Constants
) -> jax.Array:
    a_ids, a_valid, c_ids, c_valid, shift, others = fixed
    fn = partial(fn, others)

    def of_shard(y: jax.Array, shard: tuple[jax.Array, jax.Array]) -> jax.Array:
        def of_block(block: tuple[Rows, jax.Array]) -> jax.Array:
            a, shift = block

            def body(y: jax.Array, c: Rows) -> tuple[jax.Array, None]:
                of_tile = _tiles.values(fn, a, c, shift)(_tiles.similarities(a, c), constants)
                return y + jnp.sum(of_tile, axis=1), None

            return lax.scan(body, jnp.zeros_like(shift), Rows(shard[0], shard[1], c_valid))[0]

        return y + lax.map(of_block, (Rows(ax, a_ids, a_valid), shift))

    return spmd.ring(of_shard, jnp.zeros_like(shift), (cx, c_ids), axis_name)


def _pull(
    fn: Function,
    axis_name: AxisName,
    ax: jax.Array,
    cx: jax.Array,
    fixed: Fixed,
    constants: Constants,
    g: jax.Array,
) -> tuple[jax.Array, jax.Array, Constants]:
    a_ids, a_valid, c_ids, c_valid, shift, others = fixed
    fn = partial(fn, others)
    rows = Rows(ax, a_ids, a_valid)

    def of_shard(carry: Any, shard: tuple[jax.Array, jax.Array]) -> Any:
        columns = Rows(shard[0], shard[1], c_valid)

        def body(carry: Any, tile: tuple[jax.Array, jax.Array]) -> tuple[Any, None]:
            da, dc, dk = carry
            i, j = tile
            a, c = _tiles.block(rows, i), _tiles.block(columns, j)
            ds, more = _tiles.pull(fn, a, c, shift[i], constants, _tiles.similarities(a, c), g[i][:, None])
            da = da.at[i].add(_tiles.times(ds, c.x))
            return (da, dc.at[j].add(_tiles.transposed_times(ds, a.x)), _tiles.add(dk, more)), None

        da, dc, dk = carry
        # The sums for a shard's rows travel one turn behind the shard, so that nothing below waits for them.
        return lax.scan(body, (da, spmd.rotate(dc, axis_name), dk), _tiles.every_tile(ax, cx))[0]

    start = (_tiles.zeros(ax, g), _tiles.zeros(cx, g), tuple(jnp.zeros_like(k) for k in constants))
    da, dc, dk = spmd.ring(of_shard, start, (cx, c_ids), axis_name)
    dc = spmd.rotate(dc, axis_name)  # back to the device they belong to
    return da.astype(ax.dtype), dc.astype(cx.dtype), dk


def greatest(
    axis_name: AxisName, ax: jax.Array, cx: jax.Array, fixed: tuple[jax.Array, ...], scale: jax.Array
) -> jax.Array:
    """The greatest scaled similarity [blocks, size] of each anchor to a negative; -inf where it has none."""
    a_ids, a_valid, c_ids, c_valid = fixed

    def of_shard(peak: jax.Array, shard: tuple[jax.Array, jax.Array]) -> jax.Array:
        def of_block(block: tuple[Rows, jax.Array]) -> jax.Array:
            a, peak = block

            def body(peak: jax.Array, c: Rows) -> tuple[jax.Array, None]:
                logits = jnp.where(_tiles.are_negatives(a, c), scale * _tiles.similarities(a, c), -jnp.inf)
                return jnp.maximum(peak, jnp.max(logits, axis=1)), None

            return lax.scan(body, peak, Rows(shard[0], shard[1], c_valid))[0]

        return lax.map(of_block, (Rows(ax, a_ids, a_valid), peak))

    start = spmd.vary_alike((jnp.full(a_ids.shape, -jnp.inf, scale.dtype), ax, cx, scale))[0]
    return spmd.ring(of_shard, start, (cx, c_ids), axis_name)
