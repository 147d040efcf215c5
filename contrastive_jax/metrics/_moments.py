"""The first two moments of rows, which merge, and what follows from them in time linear in the number of rows."""

from typing import NamedTuple

import numpy as np
from jax.typing import ArrayLike


class RowMoments(NamedTuple):
    """How many rows, their mean, and their scatter about it, the sum of (x - mean)(x - mean)^T."""

    number: int
    mean: np.ndarray  # float64 [d]
    scatter: np.ndarray  # float64 [d, d]


def row_moments(x: ArrayLike) -> RowMoments:
    r"""Number, mean and scatter of rows; those of parts merge into those of the whole by `merge_row_moments`.

    Args:
      x: [n, d], any float dtype; used as they are.

    Returns:
      `RowMoments` in float64; zeros for no rows.

    Raises:
      ValueError: for another rank.

    Example:
      >>> metrics.row_moments(np.eye(2)).scatter.tolist()
      [[0.5, -0.5], [-0.5, 0.5]]
    """
    rows = np.asarray(x).astype(np.float64)
    if rows.ndim != 2:
        raise ValueError(f"metrics.row_moments: expected rows [n, d], got shape {rows.shape}.")
    mean = rows.sum(axis=0) / max(len(rows), 1)
    centred = rows - mean
    return RowMoments(len(rows), mean, centred.T @ centred)


def merge_row_moments(a: RowMoments, b: RowMoments) -> RowMoments:
    r"""The moments of the rows of both, without cancellation.

    .. math:: W = W_a + W_b + \frac{n_a n_b}{n_a + n_b} (\bar x_a - \bar x_b)(\bar x_a - \bar x_b)^\top

    Args:
      a: of some rows.
      b: of other rows, of the same d.

    Returns:
      `RowMoments`.

    Example:
      >>> x = np.arange(12.0).reshape(6, 2)
      >>> merged = metrics.merge_row_moments(metrics.row_moments(x[:1]), metrics.row_moments(x[1:]))
      >>> merged.number, np.allclose(merged.scatter, metrics.row_moments(x).scatter)
      (6, True)

    References:
      Chan, Golub and LeVeque, 1983, Algorithms for computing the sample variance.
    """
    number = a.number + b.number
    if not number:
        return a
    shift = b.mean - a.mean
    scatter = a.scatter + b.scatter + a.number * b.number / number * np.outer(shift, shift)
    return RowMoments(number, a.mean + b.number / number * shift, scatter)


def spectrum_of(moments: RowMoments) -> np.ndarray:
    """Eigenvalues of the covariance, descending; none below 0."""
    covariance = moments.scatter / max(moments.number - 1, 1)
    return np.maximum(np.linalg.eigvalsh(covariance)[::-1], 0)


def effective_rank_of(moments: RowMoments) -> float:
    """The effective rank of the rows themselves, not of the rows about their mean; 0 for rows that are all zero."""
    gram = moments.scatter + moments.number * np.outer(moments.mean, moments.mean)
    values = np.linalg.eigvalsh(gram)[::-1][: min(moments.number, len(gram))]
    return entropy_rank(values)


def entropy_rank(squares: np.ndarray) -> float:
    """exp of the entropy of the roots of these, divided by their sum."""
    values = np.sqrt(np.maximum(squares, 0))
    p = values / max(values.sum(), np.finfo(np.float64).tiny)
    p = p[p > 0]
    return float(np.exp(-np.sum(p * np.log(p))))


def over_all(u: RowMoments, v: RowMoments) -> tuple[float, float]:
    """Mean of u_i.v_j over all i and j, and its variance; every term of it is at least 0."""
    spread = v.mean @ u.scatter @ v.mean / u.number + u.mean @ v.scatter @ u.mean / v.number
    return float(u.mean @ v.mean), float(spread + np.sum(u.scatter * v.scatter) / (u.number * v.number))
