"""The [m, n] similarity matrix, whole: the plainest form, and the oracle of every other."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from contrastive_jax.closures import Elementwise
from contrastive_jax.pairwise import _numerics, _products


def logsumexp(
    anchors: jax.Array,
    candidates: jax.Array,
    *,
    scale: float | jax.Array,
    anchor_ids: jax.Array | None,
    candidate_ids: jax.Array | None,
    algorithm: _products.Algorithm,
) -> jax.Array:
    logits = _products.inner(anchors, candidates, algorithm)
    logits = logits * jnp.asarray(scale, logits.dtype)
    return _numerics.masked_logsumexp([logits], _are_negatives(anchor_ids, candidate_ids, logits.shape))


def logsumexp_over_views(
    anchors: Sequence[jax.Array],
    candidates: Sequence[jax.Array],
    *,
    scale: float | jax.Array,
    anchor_ids: jax.Array,
    candidate_ids: jax.Array,
    algorithm: _products.Algorithm,
) -> list[jax.Array]:
    """Of each view's anchors to the candidates of all views; on one device the anchors are the candidates.

    Each product of two views is one of its own, as the similarity distribution forms it, so that XLA shares them.
    """
    found: dict[tuple[int, int], jax.Array] = {}

    def logits(a: int, b: int) -> jax.Array:
        if candidates is anchors and b < a:
            return logits(b, a).T
        if (a, b) not in found:
            product = _products.inner(anchors[a], candidates[b], algorithm)
            found[a, b] = product * jnp.asarray(scale, product.dtype)
        return found[a, b]

    views = range(len(anchors))
    mask = anchor_ids[:, None] != candidate_ids[None, :]
    return [_numerics.masked_logsumexp([logits(a, b) for b in views], mask) for a in views]


def logsumexp_both_ways(
    anchors: jax.Array,
    candidates: jax.Array,
    *,
    scale: float | jax.Array,
    anchor_ids: jax.Array | None,
    candidate_ids: jax.Array | None,
    algorithm: _products.Algorithm,
) -> tuple[jax.Array, jax.Array]:
    logits = _products.inner(anchors, candidates, algorithm)
    logits = logits * jnp.asarray(scale, logits.dtype)
    mask = _are_negatives(anchor_ids, candidate_ids, logits.shape)
    return _numerics.masked_logsumexp([logits], mask), _numerics.masked_logsumexp([logits.T], mask.T)


def sum_over_negatives(
    fn: Elementwise,
    anchors: jax.Array,
    candidates: jax.Array,
    *,
    anchor_ids: jax.Array | None,
    candidate_ids: jax.Array | None,
    algorithm: _products.Algorithm,
    offset: jax.Array | None = None,
) -> jax.Array:
    values = _products.inner(anchors, candidates, algorithm)
    values = values if offset is None else values + offset[:, None]
    mask = _are_negatives(anchor_ids, candidate_ids, values.shape)
    # fn may be infinite, or have an infinite slope, at the similarity of an excluded pair: it never sees one.
    values = fn(jnp.where(mask, values, 0))
    return jnp.sum(jnp.where(mask, values, 0), axis=-1)


def _are_negatives(anchor_ids: jax.Array | None, candidate_ids: jax.Array | None, shape: tuple[int, ...]) -> jax.Array:
    """[m, n] bool: which candidates are negatives of which anchors."""
    if anchor_ids is None or candidate_ids is None:
        return jnp.ones(shape, bool)
    return anchor_ids[:, None] != candidate_ids[None, :]
