"""Sums over all tiles of anchors by candidates: y_i = sum_j fn(s_ij, shift_i).

Each tile is computed in the forward pass, discarded, and computed again in the backward pass. Under an axis name the
candidates travel round the devices: a device holds its own rows and at most two shards of candidates.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from contrastive_jax import spmd
from contrastive_jax.pairwise import _products, _tiles
from contrastive_jax.pairwise._products import Algorithm
from contrastive_jax.pairwise._tiles import Function, Rows
from contrastive_jax.spmd import AxisName

# Ids and validity of the anchors, and of the candidates, shifts, and what a function takes first; not differentiated.
Fixed = tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array, tuple[jax.Array, ...]]
Constants = tuple[jax.Array, ...]
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
) -> jax.Array:
    """Sums [blocks, size] for anchors ax and candidates cx, filled up to whole blocks."""
    return _forward(fn, algorithm, axis_name, ax, cx, fixed, constants)[0]


def _forward(
    fn: Function,
    algorithm: Algorithm,
    axis_name: AxisName,
    ax: jax.Array,
    cx: jax.Array,
    fixed: Fixed,
    constants: Constants,
) -> tuple[jax.Array, Residuals]:
    y = _tiles.map_copies(partial(_sum, fn, algorithm, axis_name), axis_name, fixed[0], fixed[2])(
        ax, cx, fixed, constants
    )
    return y, (ax, cx, fixed, constants)


def _backward(
    fn: Function, algorithm: Algorithm, axis_name: AxisName, residuals: Residuals, g: jax.Array
) -> tuple[jax.Array, jax.Array, Any, Constants]:
    ax, cx, fixed, constants = residuals
    da, dc, dk = _tiles.map_copies(partial(_pull, fn, algorithm, axis_name), axis_name, fixed[0], fixed[2])(
        ax, cx, fixed, constants, g
    )
    return da, dc, _tiles.no_gradient(fixed), dk


sum_tiles.defvjp(_forward, _backward)


def _sum(
    fn: Function,
    algorithm: Algorithm,
    axis_name: AxisName,
    ax: jax.Array,
    cx: jax.Array,
    fixed: Fixed,
    constants: Constants,
) -> jax.Array:
    a_ids, a_valid, c_ids, c_valid, shift, others = fixed
    fn = partial(fn, others)

    rows = Rows(ax, a_ids, a_valid)

    def of_shard(y: jax.Array, shard: tuple[jax.Array, jax.Array]) -> jax.Array:
        columns = Rows(*shard, c_valid)

        def body(y: jax.Array, i: jax.Array, j: jax.Array) -> jax.Array:
            a, c = _tiles.block(rows, i), _tiles.block(columns, j)
            of_tile = _tiles.values(fn, a, c, _tiles.entry(shift, i))(_tiles.similarities(a, c, algorithm), constants)
            return _tiles.add_to_entry(y, i, jnp.sum(of_tile, axis=1))

        return _tiles.over_all(body, y, a_ids, c_ids)

    return spmd.ring(of_shard, jnp.zeros_like(shift), (cx, c_ids), axis_name)


def _pull(
    fn: Function,
    algorithm: Algorithm,
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
        columns = Rows(*shard, c_valid)

        def body(carry: Any, i: jax.Array, j: jax.Array) -> Any:
            da, dc, dk = carry
            a, c = _tiles.block(rows, i), _tiles.block(columns, j)
            s, of_rows = _tiles.similarities(a, c, algorithm), _tiles.entry(g, i)[:, None]
            ds, more = _tiles.pull(fn, a, c, _tiles.entry(shift, i), constants, s, of_rows)
            da = _tiles.add_to_block(da, i, _products.times(ds, c.x, algorithm))
            return da, _tiles.add_to_block(dc, j, _products.transposed_times(ds, a.x, algorithm)), _tiles.add(dk, more)

        da, dc, dk = carry
        # The sums for a shard's rows travel one turn behind the shard, so that nothing below waits for them.
        return _tiles.over_all(body, (da, spmd.rotate(dc, axis_name), dk), a_ids, c_ids)

    start = (_tiles.zeros(ax, g), _tiles.zeros(cx, g), tuple(jnp.zeros_like(k) for k in constants))
    da, dc, dk = spmd.ring(of_shard, start, (cx, c_ids), axis_name)
    dc = spmd.rotate(dc, axis_name)  # back to the device they belong to
    return da.astype(ax.dtype), dc.astype(cx.dtype), dk


def greatest(
    algorithm: Algorithm,
    axis_name: AxisName,
    ax: jax.Array,
    cx: jax.Array,
    masks: tuple[jax.Array, ...],
    scale: jax.Array,
) -> jax.Array:
    """The greatest scaled similarity [blocks, size] of each anchor to a negative; -inf where it has none."""
    a_ids, a_valid, c_ids, c_valid = masks
    rows = Rows(ax, a_ids, a_valid)

    def of_shard(peak: jax.Array, shard: tuple[jax.Array, jax.Array]) -> jax.Array:
        columns = Rows(*shard, c_valid)

        def body(peak: jax.Array, i: jax.Array, j: jax.Array) -> jax.Array:
            logits = _tiles.logits(_tiles.block(rows, i), _tiles.block(columns, j), scale, algorithm)
            return _tiles.raise_entry(peak, i, jnp.max(logits, axis=1))

        return _tiles.over_all(body, peak, a_ids, c_ids)

    start = spmd.vary_alike((jnp.full(a_ids.shape, -jnp.inf, scale.dtype), ax, cx, scale))[0]
    return spmd.ring(of_shard, start, (cx, c_ids), axis_name)
