"""Pairs of the rows of one set, by their labels."""

import numpy as np


def pair_by_label(labels: np.ndarray, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of rows of one set: each row with another of its label, drawn at random, each row once on either side.

    Within a label the partners form one cycle, so that no row is its own and none is left out.

    Args:
      labels: [n], integers or strings.
      seed: of the drawing.

    Returns:
      (rows, partners), int64 [k]: the rows whose label has at least two, ascending, and the partner of each.

    Example:
      >>> rows, partners = metrics.pair_by_label(np.array([5, 7, 5, 9]))
      >>> rows.tolist(), partners.tolist()
      ([0, 2], [2, 0])
    """
    which = number_names(labels)
    order = np.lexsort((np.random.default_rng(seed).random(len(which)), which))
    number = np.bincount(which)
    start = np.cumsum(number) - number
    following = np.arange(1, len(which) + 1)
    following[(start + number - 1)[number > 0]] = start[number > 0]
    partners = np.empty(len(which), np.int64)
    partners[order] = order[following]
    rows = np.flatnonzero(number[which] > 1)
    return rows, partners[rows]


def number_names(names: np.ndarray) -> np.ndarray:
    """Names as int32 from 0: two rows have the same number if and only if they have the same name."""
    return np.unique(np.asarray(names), return_inverse=True)[1].reshape(-1).astype(np.int32)
