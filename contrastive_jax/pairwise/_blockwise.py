"""Reductions in memory linear in the number of rows, by square tiles of the similarity matrix.

Each tile is computed in the forward pass, forgotten, and computed again in the backward pass.

Both reductions are one: y_i = sum_j fn(s_ij, shift_i), of which log-sum-exp takes the logarithm. Where anchors and
candidates are the same array, only the tiles on and above the diagonal are computed: each serves its rows and, turned
over, its columns.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from contrastive_jax import spmd
from contrastive_jax.pairwise import _numerics

BLOCK_SIZE = 1024
# exp(x - b) for |x| <= b stays well within float32 up to here: one shift serves all rows, and no maximum is needed.
_MAX_EXPONENT = 40.0


class Rows(NamedTuple):
    """Rows in blocks of one size; `valid` is False for what fills the last block."""

    x: jax.Array  # [blocks, size, d]
    ids: jax.Array  # [blocks, size]
    valid: jax.Array  # [blocks, size]


def logsumexp(anchors, candidates, *, scale, anchor_ids, candidate_ids, block_size) -> jax.Array:
    scale = jnp.asarray(scale, _numerics.accumulation_dtype(anchors.dtype, candidates.dtype))
    scale = spmd.vary_alike((scale, anchors, candidates))[0]  # so that its gradient is summed over devices once
    frozen = [lax.stop_gradient(x) for x in (anchors, candidates, scale)]
    bound = jnp.abs(frozen[2]) * _greatest_norm(frozen[0]) * _greatest_norm(frozen[1])
    options = {"anchor_ids": anchor_ids, "candidate_ids": candidate_ids, "block_size": block_size}

    def shifted(shift, symmetric):
        y = _total(_shifted_exp, (scale,), anchors, candidates, shift=shift, symmetric=symmetric, **options)
        empty = y == 0
        return jnp.where(empty, -jnp.inf, jnp.log(jnp.where(empty, 1, y)) + shift)

    def by_the_bound():
        symmetric = _is_symmetric(anchors, candidates, anchor_ids, candidate_ids)
        return shifted(jnp.broadcast_to(bound, anchors.shape[:1]), symmetric)

    def by_the_greatest_of_each_row():
        return shifted(_row_maxima(*frozen, **options), False)

    return lax.cond(bound <= _MAX_EXPONENT, by_the_bound, by_the_greatest_of_each_row)


def _shifted_exp(s, shift, scale):
    return jnp.exp(scale * s - shift)


def total(
    fn: Callable[[jax.Array], jax.Array], anchors, candidates, *, anchor_ids, candidate_ids, block_size
) -> jax.Array:
    dtype = _numerics.accumulation_dtype(anchors.dtype, candidates.dtype)
    size = _size(anchors, candidates, block_size)
    # What fn closes over becomes an argument, so that its gradient passes through the custom rule.
    tile = spmd.vary_alike((jnp.zeros((size, size), dtype), anchors, candidates))[0]
    fn, constants = jax.closure_convert(fn, tile)
    return _total(
        lambda s, shift, *constants: fn(s, *constants),
        constants,
        anchors,
        candidates,
        shift=jnp.zeros(anchors.shape[:1], dtype),
        symmetric=_is_symmetric(anchors, candidates, anchor_ids, candidate_ids),
        anchor_ids=anchor_ids,
        candidate_ids=candidate_ids,
        block_size=block_size,
    )


def _is_symmetric(anchors, candidates, anchor_ids, candidate_ids):
    return anchors is candidates and anchor_ids is candidate_ids and anchor_ids is not None


def _greatest_norm(x):
    x = x.astype(_numerics.accumulation_dtype(x.dtype))
    return jnp.sqrt(jnp.max(jnp.sum(x * x, axis=1)))


def _row_maxima(anchors, candidates, scale, *, anchor_ids, candidate_ids, block_size):
    """[m]: the greatest scaled similarity of each anchor to a negative; 0 where it has none."""
    a, c, size = _in_blocks(anchors, candidates, anchor_ids, candidate_ids, block_size)

    def of_block(a):
        def body(peak, c):
            logits = jnp.where(_negative(a, c), scale * _numerics.similarities(a.x, c.x), -jnp.inf)
            return jnp.maximum(peak, jnp.max(logits, axis=1)), None

        start = spmd.vary_alike((jnp.full(size, -jnp.inf, scale.dtype), a.x, c.x, scale))[0]
        return lax.scan(body, start, c)[0]

    peaks = lax.map(of_block, a).reshape(-1)[: len(anchors)]
    return jnp.where(jnp.isneginf(peaks), 0, peaks)


def _total(fn, constants, anchors, candidates, *, shift, symmetric, anchor_ids, candidate_ids, block_size):
    """y_i = sum over the negatives j of i of fn(s_ij, shift_i, *constants): [m]. The shift is not differentiated."""
    a, c, size = _in_blocks(anchors, candidates, anchor_ids, candidate_ids, block_size)
    a, c, shift = _vary_alike(a, c, _fill(shift, size))
    if symmetric:
        y = _symmetric(fn, a.x, (a.ids, a.valid, shift), tuple(constants))
    else:
        y = _rectangular(fn, a.x, c.x, (a.ids, a.valid, c.ids, c.valid, shift), tuple(constants))
    return y.reshape(-1)[: len(anchors)]


def _size(anchors, candidates, block_size):
    return min(block_size, max(len(anchors), len(candidates)))


def _in_blocks(anchors, candidates, anchor_ids, candidate_ids, block_size):
    size = _size(anchors, candidates, block_size)
    if anchor_ids is None:  # without ids every candidate is a negative: no two are equal
        anchor_ids, candidate_ids = jnp.zeros(len(anchors), jnp.int32), jnp.ones(len(candidates), jnp.int32)
    sides = []
    for x, ids in ((anchors, anchor_ids), (candidates, candidate_ids)):
        valid = _fill(jnp.ones(len(x), bool), size)
        sides.append(Rows(_fill(x, size), _fill(ids, size), valid))
    return *sides, size


def _fill(x, size):
    """[m, ...] as [blocks, size, ...], the last block filled with zeros."""
    blocks = math.ceil(len(x) / size)
    x = jnp.pad(x, ((0, blocks * size - len(x)), *((0, 0) for _ in x.shape[1:])))
    return x.reshape(blocks, size, *x.shape[1:])


def _vary_alike(*trees):
    leaves, structure = jax.tree.flatten(trees)
    return jax.tree.unflatten(structure, spmd.vary_alike(leaves))


def _negative(a, c):
    return (a.ids[:, None] != c.ids[None, :]) & a.valid[:, None] & c.valid[None, :]


def _tile(fn, a, c, shift, constants):
    """The values [size, size] of a tile as a function of similarities and constants; 0 where a pair is no negative."""
    mask = _negative(a, c)

    def values(s, constants):
        # fn may be infinite, or have an infinite slope, at the similarity of an excluded pair: it never sees one.
        return jnp.where(mask, fn(jnp.where(mask, s, 0), shift[:, None], *constants), 0)

    return values


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _rectangular(fn, ax, cx, fixed, constants):
    return _rectangular_forward(fn, ax, cx, fixed, constants)[0]


def _rectangular_forward(fn, ax, cx, fixed, constants):
    a_ids, a_valid, c_ids, c_valid, shift = fixed
    candidates = Rows(cx, c_ids, c_valid)

    def of_block(block):
        a, shift = block

        def body(y, c):
            s = _numerics.similarities(a.x, c.x)
            return y + jnp.sum(_tile(fn, a, c, shift, constants)(s, constants), axis=1), None

        return lax.scan(body, jnp.zeros_like(shift), candidates)[0]

    y = lax.map(of_block, (Rows(ax, a_ids, a_valid), shift))
    return y, (ax, cx, fixed, constants)


def _rectangular_backward(fn, residuals, g):
    ax, cx, fixed, constants = residuals
    a_ids, a_valid, c_ids, c_valid, shift = fixed
    candidates = Rows(cx, c_ids, c_valid)

    def of_block(carry, block):
        dc, dk = carry
        a, shift, g = block

        def body(carry, c):
            da, dk = carry
            s = _numerics.similarities(a.x, c.x)
            ds, more = _pull(fn, a, c, shift, constants, s, g[:, None])
            return (da + _times(ds, c.x), _add(dk, more)), _times(ds.T, a.x)

        (da, dk), dc_blocks = lax.scan(body, (_zeros(a.x, g), dk), candidates)
        return (dc + dc_blocks, dk), da

    start = (_zeros(cx, g), tuple(jnp.zeros_like(k) for k in constants))
    (dc, dk), da = lax.scan(of_block, start, (Rows(ax, a_ids, a_valid), shift, g))
    return da.astype(ax.dtype), dc.astype(cx.dtype), _no_gradient(fixed), dk


_rectangular.defvjp(_rectangular_forward, _rectangular_backward)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _symmetric(fn, x, fixed, constants):
    return _symmetric_forward(fn, x, fixed, constants)[0]


def _symmetric_forward(fn, x, fixed, constants):
    ids, valid, shift = fixed
    rows = Rows(x, ids, valid)

    def body(y, pair):
        i, j = pair
        a, c = _block(rows, i), _block(rows, j)
        values = lax.optimization_barrier(
            _tile(fn, a, c, shift[0], constants)(_numerics.similarities(a.x, c.x), constants)
        )
        y = y.at[i].add(jnp.sum(values, axis=1))
        return y.at[j].add(jnp.where(i == j, 0, jnp.sum(values, axis=0))), None

    y, _ = lax.scan(body, jnp.zeros_like(shift), _upper_triangle(len(x)))
    return y, (x, fixed, constants)


def _symmetric_backward(fn, residuals, g):
    x, fixed, constants = residuals
    ids, valid, shift = fixed
    rows = Rows(x, ids, valid)

    def body(carry, pair):
        dx, dk = carry
        i, j = pair
        a, c = _block(rows, i), _block(rows, j)
        s = _numerics.similarities(a.x, c.x)
        # Each entry stands for (i, j) and (j, i); a tile on the diagonal holds both of them itself.
        ds, more = _pull(fn, a, c, shift[0], constants, s, g[i][:, None] + g[j][None, :])
        half = jnp.where(i == j, 0.5, 1.0).astype(s.dtype)
        dx = dx.at[i].add(_times(ds, c.x))
        dx = dx.at[j].add(jnp.where(i == j, 0, _times(ds.T, a.x)))
        return (dx, _add(dk, tuple(half * k for k in more))), None

    start = (_zeros(x, g), tuple(jnp.zeros_like(k) for k in constants))
    (dx, dk), _ = lax.scan(body, start, _upper_triangle(len(x)))
    return dx.astype(x.dtype), _no_gradient(fixed), dk


_symmetric.defvjp(_symmetric_forward, _symmetric_backward)


def _pull(fn, a, c, shift, constants, s, g):
    """Cotangents of the similarities of a tile and of the constants, for cotangents g of its values."""
    values, pull = jax.vjp(_tile(fn, a, c, shift, constants), s, constants)
    return pull(jnp.broadcast_to(g, values.shape))


def _times(ds, x):
    return jnp.matmul(ds, x.astype(ds.dtype), precision=lax.Precision.HIGHEST)


def _block(rows, i):
    return jax.tree.map(lambda x: x[i], rows)


def _upper_triangle(blocks):
    return tuple(jnp.asarray(index, jnp.int32) for index in np.triu_indices(blocks))


def _zeros(x, like):
    """Zeros to sum gradients in, varying over devices as `like` does."""
    return spmd.vary_alike((jnp.zeros(x.shape, like.dtype), like))[0]


def _add(xs, ys):
    return tuple(x + y for x, y in zip(xs, ys, strict=True))


def _no_gradient(tree):
    return jax.tree.map(
        lambda x: jnp.zeros_like(x) if jnp.issubdtype(x.dtype, jnp.floating) else np.zeros(x.shape, jax.dtypes.float0),
        tree,
    )
