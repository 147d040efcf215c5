"""The [m, n] similarity matrix, whole: the plainest form, and the oracle of every other."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from contrastive_jax.pairwise import _numerics


def negatives(anchor_ids: jax.Array | None, candidate_ids: jax.Array | None, shape: tuple[int, ...]) -> jax.Array:
    """[m, n] bool: which candidates are negatives of which anchors."""
    if anchor_ids is None or candidate_ids is None:
        return jnp.ones(shape, bool)
    return anchor_ids[:, None] != candidate_ids[None, :]


def logsumexp(anchors, candidates, *, scale, anchor_ids, candidate_ids) -> jax.Array:
    logits = _numerics.similarities(anchors, candidates)
    logits = logits * jnp.asarray(scale, logits.dtype)
    return _numerics.masked_logsumexp(logits, negatives(anchor_ids, candidate_ids, logits.shape))


def total(fn: Callable[[jax.Array], jax.Array], anchors, candidates, *, anchor_ids, candidate_ids) -> jax.Array:
    values = _numerics.similarities(anchors, candidates)
    mask = negatives(anchor_ids, candidate_ids, values.shape)
    # fn may be infinite, or have an infinite slope, at the similarity of an excluded pair: it never sees one.
    values = fn(jnp.where(mask, values, 0))
    return jnp.sum(jnp.where(mask, values, 0), axis=-1)
