"""How two views of a data set lie on the sphere, in five numbers."""

import math
from typing import NamedTuple

import numpy as np
from jax.typing import ArrayLike

from contrastive_jax import metrics
from contrastive_jax.errors import UsageError
from contrastive_jax.evaluation._checks import unit_rows


class Geometry(NamedTuple):
    """The metrics of Koromilas 2024 of pairs of embeddings; each is that of `contrastive_jax.metrics`."""

    pairs: int  # that have a direction in both views
    alignment: float  # of the two views
    uniformity: float  # this and the others: of the first view
    wasserstein_uniformity: float
    effective_rank: float
    rank: int


def geometry(u: ArrayLike, v: ArrayLike) -> Geometry:
    """Alignment, uniformity and rank of two views of a data set.

    Args:
      u: [n, d >= 2] embeddings of one view, any float dtype; normalised inside, as a loss does.
      v: [n, d] of the other view.

    Returns:
      A `Geometry` of Python numbers. A pair with a zero embedding has no direction and is left out; where fewer than
      two pairs are left, the metrics are NaN and the rank 0.

    Raises:
      UsageError: shapes that differ, d < 2, or embeddings that are not finite.

    Example:
      >>> geometry(np.eye(4), -np.eye(4)).alignment
      4.0

    References:
      Koromilas et al., 2024, Section 7.
    """
    if np.ndim(u) != 2 or np.shape(u) != np.shape(v):
        raise UsageError(f"expected u and v of the same shape [n, d], got {list(np.shape(u))} and {list(np.shape(v))}.")
    if np.shape(u)[1] < 2:
        raise UsageError(f"expected embeddings of at least 2 dimensions, got u and v {list(np.shape(u))}.")
    u, v = (np.asarray(unit_rows(name, x)) for name, x in (("embeddings u", u), ("embeddings v", v)))
    kept = u.any(axis=1) & v.any(axis=1)
    u, v = u[kept], v[kept]
    if len(u) < 2:
        return Geometry(len(u), math.nan, math.nan, math.nan, math.nan, 0)
    return Geometry(
        pairs=len(u),
        alignment=metrics.alignment(u, v),
        uniformity=metrics.uniformity(u),
        wasserstein_uniformity=metrics.wasserstein_uniformity(u),
        effective_rank=metrics.effective_rank(u),
        rank=metrics.rank(u),
    )
