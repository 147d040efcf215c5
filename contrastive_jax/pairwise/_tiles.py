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
from contrastive_jax.pairwise import _numerics, shared

Function = Callable[..., jax.Array]


class Rows(NamedTuple):
    """Rows in blocks of one size, or one such block."""

    x: jax.Array  # [blocks, size, d]
    ids: jax.Array  # [blocks, size]
    valid: jax.Array  # [blocks, size]; False for the padding of the last block


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
    a, c = (
        Rows(*(shared.fill_blocks(part, side(len(x), block_size)) for part in (x, ids, jnp.ones(len(x), bool))))
        for x, ids in ((anchors, anchor_ids), (candidates, candidate_ids))
    )
    return a, c


def block(rows: Rows, i: jax.Array | int) -> Rows:
    """One block of rows in blocks."""
    return jax.tree.map(lambda x: x[i], rows)


def every_tile(ax: jax.Array, cx: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The numbers of the row block and of the column block of each tile, row by row."""
    rows, columns = np.divmod(np.arange(len(ax) * len(cx)), len(cx))
    return jnp.asarray(rows, jnp.int32), jnp.asarray(columns, jnp.int32)


def are_negatives(a: Rows, c: Rows) -> jax.Array:
    """[m, n] bool: which rows of two blocks are each other's negatives."""
    return (a.ids[:, None] != c.ids[None, :]) & a.valid[:, None] & c.valid[None, :]


def values(fn: Function, a: Rows, c: Rows, shift: jax.Array) -> Function:
    """The values [m, n] of a tile as a function of similarities and constants; 0 for pairs that are not negatives."""
    mask = are_negatives(a, c)

    def of_similarities(s: jax.Array, constants: tuple[jax.Array, ...]) -> jax.Array:
        # fn may be infinite, or have an infinite slope, at the similarity of an excluded pair: it never sees one.
        return jnp.where(mask, fn(jnp.where(mask, s, 0), shift[:, None], *constants), 0)

    return of_similarities


def pull(
    fn: Function,
    a: Rows,
    c: Rows,
    shift: jax.Array,
    constants: tuple[jax.Array, ...],
    s: jax.Array,
    g: jax.Array,
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    """Cotangents of the similarities of a tile and of the constants, for cotangents g of its values."""
    of_tile, pull_back = jax.vjp(values(fn, a, c, shift), s, constants)
    return pull_back(jnp.broadcast_to(g, of_tile.shape))


def times(ds: jax.Array, x: jax.Array) -> jax.Array:
    """Cotangents of similarities times the rows on their other side."""
    return jnp.matmul(ds, x.astype(ds.dtype), precision=lax.Precision.HIGHEST)


def transposed_times(ds: jax.Array, x: jax.Array) -> jax.Array:
    """`times(ds.T, x)`, as the transpose of x.T @ ds, for which CPUs take half the time."""
    dimensions = (((0,), (0,)), ((), ()))
    product = lax.dot_general(x.astype(ds.dtype), ds, dimensions, precision=lax.Precision.HIGHEST)
    return lax.optimization_barrier(product).T  # without the barrier XLA makes it ds.T @ x again


def similarities(a: Rows, c: Rows) -> jax.Array:
    """[m, n] of two blocks."""
    return _numerics.similarities(a.x, c.x)


def zeros(x: jax.Array, like: jax.Array) -> jax.Array:
    """Zeros to accumulate gradients in, marked as differing over devices as `like` is."""
    return spmd.vary_alike((jnp.zeros(x.shape, like.dtype), like))[0]


def add(xs: tuple[jax.Array, ...], ys: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
    """The sums of two tuples of constants' cotangents."""
    return tuple(x + y for x, y in zip(xs, ys, strict=True))


def choose(fn: Callable[..., Any], alike: jax.Array | None, *arrays: Any) -> Any:
    """fn(*arrays, alike=...) with the value of `alike`; None stands for True."""
    if alike is None:
        return fn(*arrays, alike=True)
    return lax.cond(sequential.all_agree(alike), partial(fn, alike=True), partial(fn, alike=False), *arrays)


def map_copies(fn: Callable[..., Any], axis_name: spmd.AxisName, ax: jax.Array, cx: jax.Array) -> Callable[..., Any]:
    """A walk over the tiles of rows ax and cx in blocks: `vmap` maps it as fits a cache.

    On a ring, where copies on several devices would have to wait for each other, all of them are mapped at once.
    """
    return fn if axis_name is not None else sequential.in_groups(fn, ax.shape[1] * cx.shape[1])


def no_gradient(tree: Any) -> Any:
    """The cotangents of what is not differentiated."""
    return jax.tree.map(
        lambda x: jnp.zeros_like(x) if jnp.issubdtype(x.dtype, jnp.floating) else np.zeros(x.shape, jax.dtypes.float0),
        tree,
    )
