"""Mean and variance of all negatives of sets of any size, read piece by piece in time linear in their rows."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from contrastive_jax.metrics._moments import RowMoments, merge_row_moments, over_all, row_moments
from contrastive_jax.metrics._rows import Rows, chunk_rows, take, unit_rows

_FEW = 256  # rows of one instance whose pairs are formed one by one


class ExactMoments(NamedTuple):
    """Over all negatives of one kind, in float64."""

    number: int
    mean: float
    variance: float


class Groups(NamedTuple):
    """The rows of the instances that have several."""

    order: np.ndarray  # int64 [k], rows by instance
    start: np.ndarray  # int64 [g], of each group in `order`
    size: np.ndarray  # int64 [g], all at least 2


def find_groups(kept: np.ndarray, ids: np.ndarray | None) -> tuple[Groups, np.ndarray]:
    """Groups of the rows `kept`; and for each of them whether it is the only one of its instance."""
    if ids is None:
        return Groups(kept, np.empty(0, int), np.empty(0, int)), np.ones(len(kept), bool)
    order = np.argsort(ids[kept], kind="stable")
    _, start, which, size = np.unique(ids[kept][order], return_index=True, return_inverse=True, return_counts=True)
    alone = np.empty(len(kept), bool)
    alone[order] = (size == 1)[which.reshape(-1)]
    return Groups(kept[order], start[size > 1], size[size > 1]), alone


def negatives(
    u: Rows,
    v: Rows,
    moments: tuple[RowMoments, RowMoments],
    *,
    alone: np.ndarray,
    groups: Groups,
) -> ExactMoments:
    """Moments of u_i.v_j over all i and j of different instances.

    Args:
      u: one set.
      v: the other, or the same again.
      moments: of the unit rows of both.
      alone: similarities u_i.v_i of the rows whose instance has no other row.
      groups: the rows of all other instances.
    """
    n = moments[0].number
    center, spread = over_all(*moments)
    same = np.array([float(len(alone)), np.sum(alone - center), np.sum(np.square(alone - center))])
    for sums in _within_groups(u, v, groups, center):
        same += sums
    number = n**2 - int(same[0])
    if number == 0:
        return ExactMoments(0, 0.0, 0.0)
    shift = -same[1] / number
    return ExactMoments(number, center + shift, max(0.0, (n**2 * spread - same[2]) / number - shift**2))


def _within_groups(u: Rows, v: Rows, groups: Groups, center: float) -> Iterator[np.ndarray]:
    """Number of pairs, sum of s - center, and of its square, over the pairs of each group with itself."""
    most = chunk_rows(u.shape[1])
    for size in np.unique(groups.size):
        starts = groups.start[groups.size == size]
        if size > _FEW:
            yield from (_of_large(u, v, groups.order[start : start + size], center) for start in starts)
            continue
        several = max(1, most // size)
        for first in range(0, len(starts), several):
            rows = groups.order[starts[first : first + several, None] + np.arange(size)]
            a, b = (unit_rows(take(x, rows.reshape(-1))).reshape(*rows.shape, -1) for x in (u, v))
            s = np.matmul(a, b.transpose(0, 2, 1)) - center
            yield np.array([s.size, np.sum(s), np.sum(np.square(s))])


def _of_large(u: Rows, v: Rows, rows: np.ndarray, center: float) -> np.ndarray:
    """The same of one group, from its moments."""
    moments = [row_moments(np.empty((0, u.shape[1])))] * 2
    most = chunk_rows(u.shape[1])
    for start in range(0, len(rows), most):
        units = (unit_rows(take(x, rows[start : start + most])) for x in (u, v))
        moments = [merge_row_moments(m, row_moments(x)) for m, x in zip(moments, units, strict=True)]
    mean, spread = over_all(*moments)
    return len(rows) ** 2 * np.array([1, mean - center, spread + (mean - center) ** 2])
