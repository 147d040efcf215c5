"""Tiles of the similarity matrix: rows in blocks, and the values and cotangents of one tile."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from contrastive_jax import sequential, spmd
from contrastive_jax.pairwise import _products, shared
from contrastive_jax.pairwise._products import Algorithm

Function = Callable[..., jax.Array]
Constants = tuple[jax.Array, ...]


class Walk(NamedTuple):
    """What is known of a walk over the tiles when it is traced."""

    fn: Function  # (others, s, shift, *constants) -> values of a tile
    algorithm: Algorithm
    axis_name: spmd.AxisName = None  # of the ring
    offsets: bool = False  # whether the shifts are added to the similarities; then a gradient reaches them


class Rows(NamedTuple):
    """Rows in blocks of one size, or one such block, without the axis of blocks."""

    x: jax.Array  # [blocks * size, d]: in the shape that they come in, or XLA stores them in both shapes
    ids: jax.Array  # [blocks, size]
    valid: jax.Array  # [blocks, size]; False for the padding of the last block


class Block(NamedTuple):
    """A block of rows, with what belongs to them in a backward pass."""

    rows: Rows
    shift: jax.Array
    g: jax.Array  # cotangents of their sums


def side(m: int, block_size: int) -> int:
    """Rows of a block when m rows are split evenly into as few blocks of at most `block_size` as possible."""
    return math.ceil(m / math.ceil(m / block_size))


def in_blocks(
    anchors: jax.Array,
    candidates: jax.Array,
    anchor_ids: jax.Array | None,
    candidate_ids: jax.Array | None,
    block_size: int,
) -> tuple[Rows, Rows]:
    """Anchors and candidates as `Rows`, in blocks of at most `block_size`."""
    if anchor_ids is None or candidate_ids is None:  # without ids every candidate is a negative: no two are equal
        anchor_ids, candidate_ids = jnp.zeros(len(anchors), jnp.int32), jnp.ones(len(candidates), jnp.int32)
    return rows_in_blocks(anchors, anchor_ids, block_size), rows_in_blocks(candidates, candidate_ids, block_size)


def rows_in_blocks(x: jax.Array, ids: jax.Array, block_size: int) -> Rows:
    """One side of `in_blocks`."""
    ids, valid = (shared.fill_blocks(part, side(len(x), block_size)) for part in (ids, jnp.ones(len(x), bool)))
    return Rows(jnp.pad(x, ((0, ids.size - len(x)), (0, 0))), ids, valid)


def block(rows: Rows, i: jax.Array) -> Rows:
    """Block i of rows in blocks."""
    size = rows.ids.shape[1]
    return Rows(lax.dynamic_slice_in_dim(rows.x, i * size, size), entry(rows.ids, i), entry(rows.valid, i))


def entry(x: jax.Array, i: jax.Array) -> jax.Array:
    """x[i], for an i that is never out of bounds."""
    return lax.dynamic_index_in_dim(x, i, keepdims=False)


def add_to_entry(x: jax.Array, i: jax.Array, more: jax.Array) -> jax.Array:
    """`x` with `more` added to x[i]."""
    return lax.dynamic_update_index_in_dim(x, entry(x, i) + more, i, 0)


def raise_entry(x: jax.Array, i: jax.Array, least: jax.Array) -> jax.Array:
    """`x` with x[i] raised to `least` where it is below."""
    return lax.dynamic_update_index_in_dim(x, jnp.maximum(entry(x, i), least), i, 0)


def add_to_block(x: jax.Array, i: jax.Array, more: jax.Array) -> jax.Array:
    """`x` [blocks * size, d] with `more` [size, d] added to block i."""
    start = i * len(more)
    return lax.dynamic_update_slice_in_dim(x, lax.dynamic_slice_in_dim(x, start, len(more)) + more, start, 0)


def over_all(body: Callable[..., Any], carry: Any, a_ids: jax.Array, c_ids: jax.Array) -> Any:
    """carry = body(carry, i, j) for the numbers i of each row block and j of each column block."""
    rows, columns = np.divmod(np.arange(len(a_ids) * len(c_ids), dtype=np.int32), np.int32(len(c_ids)))
    return over(body, carry, rows, columns)


def over(body: Callable[..., Any], carry: Any, rows: np.ndarray, columns: np.ndarray) -> Any:
    """carry = body(carry, i, j) for the tiles in these rows and columns of blocks."""
    tiles = jnp.asarray(rows, jnp.int32), jnp.asarray(columns, jnp.int32)
    return lax.scan(lambda carry, tile: (body(carry, *tile), None), carry, tiles)[0]


def are_negatives(a: Rows, c: Rows) -> jax.Array:
    """[m, n] bool: which rows of two blocks are each other's negatives."""
    return (a.ids[:, None] != c.ids[None, :]) & a.valid[:, None] & c.valid[None, :]


def bind(walk: Walk, others: tuple[jax.Array, ...]) -> Walk:
    """The walk of the function with what it takes first."""
    return walk._replace(fn=partial(walk.fn, others))


def values(walk: Walk, a: Rows, c: Rows) -> Function:
    """The values [m, n] of a tile as a function of similarities, shifts and constants; 0 for what is no negative."""
    mask = are_negatives(a, c)

    def of_similarities(s: jax.Array, shift: jax.Array, constants: Constants) -> jax.Array:
        shift = shift[:, None]
        s = s + shift if walk.offsets else s
        # fn may be infinite, or have an infinite slope, at the similarity of an excluded pair: it never sees one.
        return jnp.where(mask, walk.fn(jnp.where(mask, s, 0), shift, *constants), 0)

    return of_similarities


def pull(
    walk: Walk, a: Rows, c: Rows, shift: jax.Array, constants: Constants, s: jax.Array, g: jax.Array
) -> tuple[jax.Array, jax.Array, Constants]:
    """Cotangents of the similarities of a tile, of the shifts and of the constants, for cotangents g of its values."""
    of_tile, pull_back = jax.vjp(values(walk, a, c), s, shift, constants)
    return pull_back(jnp.broadcast_to(g, of_tile.shape))


def pull_both_ways(
    walk: Walk, a: Block, c: Block, constants: Constants, alike: bool
) -> tuple[jax.Array, tuple[jax.Array, jax.Array], Constants]:
    """`pull` for a tile whose values count for its rows and, turned, for its columns; `alike`: at the same shifts."""
    s = similarities(a.rows, c.rows, walk.algorithm)
    if alike:
        ds, shift, dk = pull(walk, a.rows, c.rows, a.shift, constants, s, a.g[:, None] + c.g[None, :])
        return ds, (shift, shift), dk
    ds, of_rows, more = pull(walk, a.rows, c.rows, a.shift, constants, s, a.g[:, None])
    turned, of_columns, also = pull(walk, c.rows, a.rows, c.shift, constants, s.T, c.g[:, None])
    return ds + turned.T, (of_rows, of_columns), add(more, also)


def similarities(a: Rows, c: Rows, algorithm: Algorithm) -> jax.Array:
    """[m, n] of two blocks."""
    return _products.inner(a.x, c.x, algorithm)


def logits(a: Rows, c: Rows, scale: jax.Array, algorithm: Algorithm) -> jax.Array:
    """Scaled similarities [m, n] of two blocks; -inf for pairs that are not negatives."""
    return jnp.where(are_negatives(a, c), scale * similarities(a, c, algorithm), -jnp.inf)


def resume(like: jax.Array, *before: jax.Array) -> tuple[jax.Array, ...]:
    """The gradients that a walk adds its own to, in the dtype of sums and marked as these are.

    A walk returns its rows as they came. Who uses them further sends the gradient of that use through the walk, so that
    the gradients of several walks over the same rows are summed in one array, instead of in one for each walk.
    """
    return tuple(spmd.vary_alike((*(x.astype(like.dtype) for x in before), like))[:-1])


def send_out(walk: Walk, before: jax.Array) -> jax.Array:
    """What the gradients of columns are added to: on a ring they start on another device."""
    return before if walk.axis_name is None else jnp.zeros_like(before)


def bring_back(walk: Walk, dc: jax.Array, before: jax.Array) -> jax.Array:
    """The gradients of columns, back on the device that they belong to."""
    return dc if walk.axis_name is None else spmd.rotate(dc, walk.axis_name) + before


def add_to_shift(walk: Walk, d_shift: jax.Array, i: jax.Array, more: jax.Array) -> jax.Array:
    """The cotangents of shifts with more for block i; 0 where no gradient reaches the shifts."""
    return add_to_entry(d_shift, i, more) if walk.offsets else d_shift


def add(xs: Constants, ys: Constants) -> Constants:
    """The sums of two tuples of constants' cotangents."""
    return tuple(x + y for x, y in zip(xs, ys, strict=True))


def choose(fn: Callable[..., Any], alike: jax.Array | None, *arrays: Any) -> Any:
    """fn(*arrays, alike=...) with the value of `alike`; None stands for True."""
    if alike is None:
        return fn(*arrays, alike=True)
    return lax.cond(sequential.all_agree(alike), partial(fn, alike=True), partial(fn, alike=False), *arrays)


def choose_by_shifts(walk: Walk, fn: Callable[..., Any], alike: jax.Array | None, *arrays: Any) -> Any:
    """`choose` for fn(walk, *arrays, alike=...); offsets are never alike."""
    if walk.offsets:
        return fn(walk, *arrays, alike=False)
    return choose(partial(fn, walk), alike, *arrays)


def map_copies(
    fn: Callable[..., Any], axis_name: spmd.AxisName, a_ids: jax.Array, c_ids: jax.Array
) -> Callable[..., Any]:
    """A walk over the tiles of rows with these ids, in blocks: `vmap` maps it as fits a cache.

    On a ring, where copies on several devices would have to wait for each other, all of them are mapped at once.
    """
    return fn if axis_name is not None else sequential.in_groups(fn, a_ids.shape[1] * c_ids.shape[1])


def vary_alike(*trees: Any) -> Any:
    """`spmd.vary_alike` for all arrays of some trees."""
    leaves, structure = jax.tree.flatten(trees)
    return jax.tree.unflatten(structure, spmd.vary_alike(leaves))


def no_gradient(tree: Any) -> Any:
    """The cotangents of what is not differentiated."""
    return jax.tree.map(
        lambda x: jnp.zeros_like(x) if jnp.issubdtype(x.dtype, jnp.floating) else np.zeros(x.shape, jax.dtypes.float0),
        tree,
    )
