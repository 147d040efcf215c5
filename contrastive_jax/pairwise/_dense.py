"""The [m, n] similarity matrix, whole: the plainest form, and the oracle of every other."""

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
    return _numerics.masked_logsumexp(logits, _are_negatives(anchor_ids, candidate_ids, logits.shape))


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
    return _numerics.masked_logsumexp(logits, mask), _numerics.masked_logsumexp(logits.T, mask.T)


def sum_over_negatives(
    fn: Elementwise,
    anchors: jax.Array,
    candidates: jax.Array,
    *,
    anchor_ids: jax.Array | None,
    candidate_ids: jax.Array | None,
    algorithm: _products.Algorithm,
) -> jax.Array:
    values = _products.inner(anchors, candidates, algorithm)
    mask = _are_negatives(anchor_ids, candidate_ids, values.shape)
    # fn may be infinite, or have an infinite slope, at the similarity of an excluded pair: it never sees one.
    values = fn(jnp.where(mask, values, 0))
    return jnp.sum(jnp.where(mask, values, 0), axis=-1)


def _are_negatives(anchor_ids: jax.Array | None, candidate_ids: jax.Array | None, shape: tuple[int, ...]) -> jax.Array:
    """[m, n] bool: which candidates are negatives of which anchors."""
    if anchor_ids is None or candidate_ids is None:
        return jnp.ones(shape, bool)
    return anchor_ids[:, None] != candidate_ids[None, :]
