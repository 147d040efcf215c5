"""Tiles of the similarity matrix: rows in blocks, and the values and cotangents of one tile."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from contrastive_jax import spmd
from contrastive_jax.pairwise import _numerics


class Rows(NamedTuple):
    """Rows in blocks of one size, or one such block."""

    x: jax.Array  # [blocks, size, d]
    ids: jax.Array  # [blocks, size]
    valid: jax.Array  # [blocks, size]; False for what fills the last block


def side(m: int, block_size: int) -> int:
    """Rows of a block where m rows fall into the fewest of at most `block_size`, all alike: little is filled up."""
    return math.ceil(m / math.ceil(m / block_size))


def in_blocks(anchors, candidates, anchor_ids, candidate_ids, block_size) -> tuple[Rows, Rows]:
    """Anchors and candidates as `Rows`, in blocks of at most `block_size`."""
    if anchor_ids is None:  # without ids every candidate is a negative: no two are equal
        anchor_ids, candidate_ids = jnp.zeros(len(anchors), jnp.int32), jnp.ones(len(candidates), jnp.int32)
    a, c = (
        Rows(*(fill_blocks(part, side(len(x), block_size)) for part in (x, ids, jnp.ones(len(x), bool))))
        for x, ids in ((anchors, anchor_ids), (candidates, candidate_ids))
    )
    return a, c


def fill_blocks(x, size):
    """[m, ...] as [blocks, size, ...], the last block filled with zeros."""
    blocks = math.ceil(len(x) / size)
    x = jnp.pad(x, ((0, blocks * size - len(x)), *((0, 0) for _ in x.shape[1:])))
    return x.reshape(blocks, size, *x.shape[1:])


def negative(a, c):
    """[m, n] bool: which rows of two blocks are each other's negatives."""
    return (a.ids[:, None] != c.ids[None, :]) & a.valid[:, None] & c.valid[None, :]


def values(fn, a, c, shift, constants):
    """The values [m, n] of a tile as a function of similarities and constants; 0 where a pair is no negative."""
    mask = negative(a, c)

    def of_similarities(s, constants):
        # fn may be infinite, or have an infinite slope, at the similarity of an excluded pair: it never sees one.
        return jnp.where(mask, fn(jnp.where(mask, s, 0), shift[:, None], *constants), 0)

    return of_similarities


def pull(fn, a, c, shift, constants, s, g):
    """Cotangents of the similarities of a tile and of the constants, for cotangents g of its values."""
    of_tile, pull_back = jax.vjp(values(fn, a, c, shift, constants), s, constants)
    return pull_back(jnp.broadcast_to(g, of_tile.shape))


def times(ds, x):
    """Cotangents of similarities times the rows on their other side."""
    return jnp.matmul(ds, x.astype(ds.dtype), precision=lax.Precision.HIGHEST)


def similarities(a, c):
    """[m, n] of two blocks."""
    return _numerics.similarities(a.x, c.x)


def zeros(x, like):
    """Zeros to sum gradients in, varying over devices as `like` does."""
    return spmd.vary_alike((jnp.zeros(x.shape, like.dtype), like))[0]


def add(xs, ys):
    """The sums of two tuples of constants' cotangents."""
    return tuple(x + y for x, y in zip(xs, ys, strict=True))


def no_gradient(tree):
    """The cotangents of what is not differentiated."""
    return jax.tree.map(
        lambda x: jnp.zeros_like(x) if jnp.issubdtype(x.dtype, jnp.floating) else np.zeros(x.shape, jax.dtypes.float0),
        tree,
    )
