"""How far the rows of a class lie from their mean, and the means of the classes from each other."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jax.typing import ArrayLike

from contrastive_jax.metrics._geometry import check_unit_rows


class ClassVariance(NamedTuple):
    """The variance of unit rows, split by class: total = the mean of `within` weighted by `number`, + `between`."""

    classes: np.ndarray  # [c], the labels, ascending
    number: np.ndarray  # int64 [c], rows of each
    within: np.ndarray  # float64 [c], mean squared distance from the mean of the class
    between: float  # mean over the rows of the squared distance of the mean of its class from that of all
    total: float  # mean squared distance from the mean of all

    @property
    def share_between(self) -> float:
        """The part of the total that lies between the classes, in [0, 1]; 0 for a total of 0."""
        return self.between / self.total if self.total > 0 else 0.0


def class_variance(x: ArrayLike, labels: ArrayLike) -> ClassVariance:
    r"""The variance of embeddings within each class and between the classes.

    .. math:: \frac1n \sum_i |x_i - \bar x|^2 = \sum_c \frac{n_c}{n} \Bigl(\frac{1}{n_c} \sum_{i \in c}
              |x_i - \bar x_c|^2\Bigr) + \sum_c \frac{n_c}{n} |\bar x_c - \bar x|^2

    A class with a small variance has collapsed to a point; a small share between the classes means that the embeddings
    do not tell them apart.

    Args:
      x: [n, d] unit-norm embeddings.
      labels: [n], integers or strings.

    Returns:
      A `ClassVariance` in float64.

    Raises:
      ValueError: for embeddings that are not unit-norm, or another number of labels.

    Example:
      >>> found = metrics.class_variance(np.eye(4), [0, 0, 1, 1])
      >>> found.within.round(6).tolist(), round(found.between, 6), round(found.total, 6)
      ([0.5, 0.5], 0.25, 0.75)

    References:
      Papyan, Han and Donoho, 2020, https://arxiv.org/abs/2008.08186: both tend to the ends under neural collapse.
    """
    unit = check_unit_rows("class_variance", x)
    names, which = np.unique(np.asarray(labels), return_inverse=True)
    if which.shape != (len(unit),):
        raise ValueError(f"metrics.class_variance: expected labels [{len(unit)}], got shape {np.shape(labels)}.")
    return variance_by_class(names, [(unit.astype(np.float64), which)], unit.shape[1])


def variance_by_class(names: np.ndarray, parts: Iterable[tuple[np.ndarray, np.ndarray]], d: int) -> ClassVariance:
    """The same of rows that come in parts: (rows [k, d] float64, of which class each is [k]). Memory O(classes d)."""
    number, sums, squares = np.zeros(len(names), np.int64), np.zeros((len(names), d)), np.zeros(len(names))
    for rows, which in parts:
        if not len(rows):
            continue
        order = np.argsort(which, kind="stable")
        found, starts = np.unique(which[order], return_index=True)
        number += np.bincount(which, minlength=len(names))
        sums[found] += np.add.reduceat(rows[order], starts, axis=0)
        squares += np.bincount(which, np.sum(np.square(rows), axis=1), minlength=len(names))
    n, means = number.sum(), sums / np.maximum(number, 1)[:, None]
    center = sums.sum(axis=0) / n
    within = np.maximum(squares / np.maximum(number, 1) - np.sum(np.square(means), axis=1), 0)
    between = float(number @ np.sum(np.square(means - center), axis=1) / n)
    return ClassVariance(names, number, within, between, float(number @ within / n) + between)
