"""Reductions in memory linear in the number of rows, by tiles of the similarity matrix.

Both reductions are one: y_i = sum_j fn(s_ij, shift_i), of which log-sum-exp takes the logarithm. With an axis name the
candidates are sharded over its devices and travel round them ("ring"); without one they are all here ("blockwise").
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from contrastive_jax import closures, spmd
from contrastive_jax.pairwise import _numerics, _rectangular, _symmetric, _tiles

BLOCK_SIZE = 1024
# exp(x - b) for |x| <= b stays well within float32 up to here: one shift serves all rows, and no maximum is needed.
_MAX_EXPONENT = 40.0


def logsumexp(anchors, candidates, *, scale, anchor_ids, candidate_ids, axis_name, block_size) -> jax.Array:
    anchors, candidates = _vary_over(axis_name, anchors, candidates)
    scale = jnp.asarray(scale, _numerics.accumulation_dtype(anchors.dtype, candidates.dtype))
    scale = spmd.vary_alike((scale, anchors, candidates))[0]  # so that its gradient is summed over devices once
    frozen = [lax.stop_gradient(x) for x in (anchors, candidates, scale)]
    bound = jnp.abs(frozen[2]) * _greatest_norm(frozen[0]) * _greatest_norm(frozen[1], axis_name)
    options = {
        "anchor_ids": anchor_ids,
        "candidate_ids": candidate_ids,
        "axis_name": axis_name,
        "block_size": block_size,
    }

    # Where candidates travel, all devices have to take the same way.
    alike = spmd.pmax(bound, axis_name) <= _MAX_EXPONENT
    shift = lax.cond(
        alike,
        lambda: spmd.vary_alike((jnp.broadcast_to(bound, anchors.shape[:1]), *frozen))[0],
        lambda: _row_maxima(*frozen, **options),
    )
    y = _total(_shifted_exp, (scale,), anchors, candidates, shift=shift, alike=alike, others=(), **options)
    empty = y == 0
    return jnp.where(empty, -jnp.inf, jnp.log(jnp.where(empty, 1, y)) + shift)


def total(
    fn: Callable[[jax.Array], jax.Array], anchors, candidates, *, anchor_ids, candidate_ids, axis_name, block_size
) -> jax.Array:
    anchors, candidates = _vary_over(axis_name, anchors, candidates)
    dtype = _numerics.accumulation_dtype(anchors.dtype, candidates.dtype)
    sides = [_tiles.side(len(x), block_size) for x in (anchors, candidates)]
    tile = spmd.vary_alike((jnp.zeros(sides, dtype), anchors, candidates))[0]
    hoisted = closures.hoist(fn, tile)
    differentiable = [closures.is_differentiable(x) for x in hoisted.arrays]

    def of_similarity(others, s, _, *constants):
        of_kind = {True: iter(constants), False: iter(others)}
        return hoisted.fn(tuple(next(of_kind[x]) for x in differentiable), s)

    constants, others = (
        tuple(x for x, own in zip(hoisted.arrays, differentiable, strict=True) if own == kind) for kind in (True, False)
    )
    return _total(
        of_similarity,
        constants,
        anchors,
        candidates,
        shift=jnp.zeros(anchors.shape[:1], dtype),
        alike=None,
        others=others,
        anchor_ids=anchor_ids,
        candidate_ids=candidate_ids,
        axis_name=axis_name,
        block_size=block_size,
    )


def _vary_over(axis_name, *arrays):
    """Arrays that may be alike on all devices meet, in a ring, those of other devices."""
    return arrays if axis_name is None else spmd.vary_alike((spmd.axis_index(axis_name), *arrays))[1:]


def _shifted_exp(_, s, shift, scale):
    return jnp.exp(scale * s - shift)


def _is_symmetric(anchors, candidates, anchor_ids, candidate_ids):
    return anchors is candidates and anchor_ids is candidate_ids and anchor_ids is not None


def _greatest_norm(x, axis_name=None):
    x = x.astype(_numerics.accumulation_dtype(x.dtype))
    return jnp.sqrt(spmd.pmax(jnp.max(jnp.sum(x * x, axis=1)), axis_name))


def _row_maxima(anchors, candidates, scale, *, anchor_ids, candidate_ids, axis_name, block_size):
    """[m]: the greatest scaled similarity of each anchor to a negative; 0 where it has none."""
    a, c = _vary_alike(*_tiles.in_blocks(anchors, candidates, anchor_ids, candidate_ids, block_size))
    peaks = _rectangular.greatest(axis_name, a.x, c.x, (a.ids, a.valid, c.ids, c.valid), scale)
    peaks = peaks.reshape(-1)[: len(anchors)]
    return jnp.where(jnp.isneginf(peaks), 0, peaks)


def _total(
    fn, constants, anchors, candidates, *, shift, alike, others, anchor_ids, candidate_ids, axis_name, block_size
):
    """y_i = sum over the negatives j of i of fn(others, s_ij, shift_i, *constants): [m].

    Neither the shift nor the others are differentiated. `alike`: whether all shifts are, None if they are known to be.
    """
    symmetric = axis_name is None and _is_symmetric(anchors, candidates, anchor_ids, candidate_ids)
    a, c = _tiles.in_blocks(anchors, candidates, anchor_ids, candidate_ids, block_size)
    a, c, shift = _vary_alike(a, c, _tiles.fill_blocks(shift, a.ids.shape[1]))
    if symmetric:
        y = _symmetric.total(fn, a.x, (a.ids, a.valid, shift, others, alike), tuple(constants))
    else:
        fixed = (a.ids, a.valid, c.ids, c.valid, shift, others)
        y = _rectangular.total(fn, axis_name, a.x, c.x, fixed, tuple(constants))
    return y.reshape(-1)[: len(anchors)]


def _vary_alike(*trees):
    leaves, structure = jax.tree.flatten(trees)
    return jax.tree.unflatten(structure, spmd.vary_alike(leaves))
