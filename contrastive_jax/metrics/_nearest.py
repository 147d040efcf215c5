"""The hardest negative of each anchor, found without holding the similarities."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from contrastive_jax import pairwise
from contrastive_jax.metrics._rows import OnProgress, Rows, take, unit_rows

_ANCHORS, _CANDIDATES = 1024, 2048  # whose similarities are held at a time


class HardestNegatives(NamedTuple):
    """The most similar negative of each anchor; -1 and -inf for an anchor without any."""

    anchor: np.ndarray  # int64 [a], rows of u
    negative: np.ndarray  # int64 [a], rows of v
    similarity: np.ndarray  # float64 [a]
    positive: np.ndarray  # float64 [a], the similarity of the anchor's own pair


def hardest_negatives(u: ArrayLike, v: ArrayLike, *, ids: ArrayLike | None = None) -> HardestNegatives:
    r"""The cross-view negative that is most similar to each anchor, :math:`\arg\max_{j: id_j \ne id_i} u_i^\top v_j`.

    An anchor whose hardest negative is more similar than its positive is one that a retrieval by similarity gets wrong.
    Time is O(n^2 d), memory O(n d).

    Args:
      u: [n, d] embeddings of one view, any float dtype; normalised inside.
      v: [n, d] of the other.
      ids: [n] instance ids, integers or strings; pairs with equal ids are no negatives. Default: all differ.

    Returns:
      `HardestNegatives`, the anchors in their order. Negatives are compared in float32, so that of two whose
      similarities differ by a rounding either may be found; the similarities are then computed in float64.

    Raises:
      ValueError: for shapes that differ, or rows with NaN or infinity.

    Example:
      >>> found = metrics.hardest_negatives(np.eye(3), np.eye(3)[[0, 1, 1]])
      >>> found.negative[1].item(), found.similarity[1].item(), found.positive.tolist()
      (2, 1.0, [1.0, 1.0, 0.0])

    References:
      Robinson et al., 2021, https://arxiv.org/abs/2010.04592.
    """
    u, v = np.asarray(u), np.asarray(v)
    if u.ndim != 2 or u.shape != v.shape:
        raise ValueError(
            f"metrics.hardest_negatives: expected u and v of the same shape [n, d], got {u.shape} and {v.shape}."
        )
    for name, x in (("u", u), ("v", v)):
        bad = np.flatnonzero(~np.isfinite(x.astype(np.float64)).all(axis=1))
        if len(bad):
            raise ValueError(
                f"metrics.hardest_negatives: expected finite {name}, got NaN or infinity in {len(bad)} of {len(x)} "
                f"rows, first in row {bad[0]}; leave them out."
            )
    rows = np.arange(len(u))
    numbered = rows if ids is None else np.unique(np.asarray(ids), return_inverse=True)[1].reshape(-1)
    return find_hardest(u, v, numbered.astype(np.int32), rows, rows, lambda *_: None)


def find_hardest(
    u: Rows, v: Rows, ids: np.ndarray, anchors: np.ndarray, candidates: np.ndarray, on_progress: OnProgress
) -> HardestNegatives:
    """The same for some anchors, among some candidates, both ascending rows; ids are int32 [n]."""
    best = np.full(len(anchors), -np.inf, np.float32)
    found = np.full(len(anchors), -1, np.int64)
    units = unit_rows(take(u, anchors))
    blocks = [slice(k, k + _ANCHORS) for k in range(0, len(anchors), _ANCHORS)]
    for start in range(0, len(candidates), _CANDIDATES):
        rows = candidates[start : start + _CANDIDATES]
        piece = _fill(unit_rows(take(v, rows)).astype(np.float32), ids[rows])
        for block in blocks:
            most, which = map(np.asarray, _most_similar(units[block].astype(np.float32), ids[anchors[block]], *piece))
            better = most > best[block]
            best[block][better] = most[better]
            found[block][better] = rows[which[better]]
        on_progress("nearest", start + len(rows), len(candidates))
    exists = found >= 0
    similarity = np.full(len(anchors), -np.inf)
    similarity[exists] = np.sum(units[exists] * unit_rows(take(v, found[exists])), axis=1)
    return HardestNegatives(anchors, found, similarity, np.sum(units * unit_rows(take(v, anchors)), axis=1))


def _fill(rows: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One shape for all pieces, with a mask of what is there."""
    missing = _CANDIDATES - len(rows)
    return np.pad(rows, ((0, missing), (0, 0))), np.pad(ids, (0, missing)), np.arange(_CANDIDATES) < len(rows)


@jax.jit
def _most_similar(
    anchors: jax.Array, anchor_ids: jax.Array, candidates: jax.Array, candidate_ids: jax.Array, exists: jax.Array
) -> tuple[jax.Array, jax.Array]:
    similarity = pairwise.similarities(anchors, candidates)
    negative = exists[None, :] & (anchor_ids[:, None] != candidate_ids[None, :])
    similarity = jnp.where(negative, similarity, -jnp.inf)
    return jnp.max(similarity, axis=1), jnp.argmax(similarity, axis=1)
