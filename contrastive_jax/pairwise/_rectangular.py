"""Sums over all tiles of anchors by candidates: y_i = sum_j fn(s_ij, shift_i).

Each tile is computed in the forward pass, discarded, and computed again in the backward pass. Under an axis name the
candidates travel round the devices: a device holds its own rows and at most two shards of candidates.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from contrastive_jax import spmd
from contrastive_jax.pairwise import _products, _tiles
from contrastive_jax.pairwise._products import Algorithm
from contrastive_jax.pairwise._tiles import Constants, Rows, Walk


class Fixed(NamedTuple):
    """What is not differentiated."""

    a_ids: jax.Array
    a_valid: jax.Array
    c_ids: jax.Array
    c_valid: jax.Array
    others: tuple[jax.Array, ...]  # what the function takes first


Sums = tuple[jax.Array, jax.Array, jax.Array]  # [blocks, size]; anchors and candidates, as they came


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def sum_tiles(walk: Walk, ax: jax.Array, cx: jax.Array, fixed: Fixed, shift: jax.Array, constants: Constants) -> Sums:
    """Sums [blocks, size] for anchors ax and candidates cx, filled up to whole blocks.

    Both are returned as they came, see `_tiles.resume`.
    """
    return _forward(walk, ax, cx, fixed, shift, constants)[0]


def _forward(
    walk: Walk, ax: jax.Array, cx: jax.Array, fixed: Fixed, shift: jax.Array, constants: Constants
) -> tuple[Sums, Any]:
    of_copies = _tiles.map_copies(partial(_sum, walk), walk.axis_name, fixed.a_ids, fixed.c_ids)
    return (of_copies(ax, cx, fixed, shift, constants), ax, cx), (ax, cx, fixed, shift, constants)


def _backward(walk: Walk, residuals: Any, g: Sums) -> tuple[jax.Array, jax.Array, Any, jax.Array, Constants]:
    ax, cx, fixed, shift, constants = residuals
    of_copies = _tiles.map_copies(partial(_pull, walk), walk.axis_name, fixed.a_ids, fixed.c_ids)
    da, dc, d_shift, dk = of_copies(ax, cx, fixed, shift, constants, g)
    return da, dc, _tiles.no_gradient(fixed), d_shift, dk


sum_tiles.defvjp(_forward, _backward)


def _sum(walk: Walk, ax: jax.Array, cx: jax.Array, fixed: Fixed, shift: jax.Array, constants: Constants) -> jax.Array:
    walk, rows = _tiles.bind(walk, fixed.others), Rows(ax, fixed.a_ids, fixed.a_valid)

    def of_shard(y: jax.Array, shard: tuple[jax.Array, jax.Array]) -> jax.Array:
        columns = Rows(*shard, fixed.c_valid)

        def body(y: jax.Array, i: jax.Array, j: jax.Array) -> jax.Array:
            a, c = _tiles.block(rows, i), _tiles.block(columns, j)
            s = _tiles.similarities(a, c, walk.algorithm)
            of_tile = _tiles.values(walk, a, c)(s, _tiles.entry(shift, i), constants)
            return _tiles.add_to_entry(y, i, jnp.sum(of_tile, axis=1))

        return _tiles.over_all(body, y, fixed.a_ids, fixed.c_ids)

    return spmd.ring(of_shard, jnp.zeros_like(shift), (cx, fixed.c_ids), walk.axis_name)


def _pull(
    walk: Walk, ax: jax.Array, cx: jax.Array, fixed: Fixed, shift: jax.Array, constants: Constants, g: Sums
) -> tuple[jax.Array, jax.Array, jax.Array, Constants]:
    walk, rows = _tiles.bind(walk, fixed.others), Rows(ax, fixed.a_ids, fixed.a_valid)
    of_sums, *before = g

    def of_shard(carry: Any, shard: tuple[jax.Array, jax.Array]) -> Any:
        columns = Rows(*shard, fixed.c_valid)

        def body(carry: Any, i: jax.Array, j: jax.Array) -> Any:
            da, dc, d_shift, dk = carry
            a, c = _tiles.block(rows, i), _tiles.block(columns, j)
            s, of_rows = _tiles.similarities(a, c, walk.algorithm), _tiles.entry(of_sums, i)[:, None]
            ds, more_shift, more = _tiles.pull(walk, a, c, _tiles.entry(shift, i), constants, s, of_rows)
            da = _tiles.add_to_block(da, i, _products.times(ds, c.x, walk.algorithm))
            dc = _tiles.add_to_block(dc, j, _products.transposed_times(ds, a.x, walk.algorithm))
            return da, dc, _tiles.add_to_shift(walk, d_shift, i, more_shift), _tiles.add(dk, more)

        da, dc, d_shift, dk = carry
        # The sums for a shard's rows travel one turn behind the shard, so that nothing below waits for them.
        dc = spmd.rotate(dc, walk.axis_name)
        return _tiles.over_all(body, (da, dc, d_shift, dk), fixed.a_ids, fixed.c_ids)

    a_before, c_before = _tiles.resume(of_sums, *before)
    start = (
        a_before,
        _tiles.send_out(walk, c_before),
        jnp.zeros_like(shift),
        tuple(jnp.zeros_like(k) for k in constants),
    )
    da, dc, d_shift, dk = spmd.ring(of_shard, start, (cx, fixed.c_ids), walk.axis_name)
    return da.astype(ax.dtype), _tiles.bring_back(walk, dc, c_before).astype(cx.dtype), d_shift, dk


def greatest(
    algorithm: Algorithm,
    axis_name: spmd.AxisName,
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
