"""Where the optima of the losses lie, and how far small batches move them (Lee 2025, Section 5)."""

import jax
import numpy as np
from scipy import linalg


def simplex(n: int, d: int) -> np.ndarray:
    r"""A regular simplex (ETF): n unit vectors in d dimensions, with the similarity -1/(n-1) between any two.

    .. math:: x_i^\top x_j = -\tfrac{1}{n-1} \text{ for } i \ne j, \qquad \sum_i x_i = 0

    Args:
      n: number of vectors, at least 2.
      d: dimensions, at least n - 1; those beyond are zero.

    Returns:
      float64 [n, d]: x as both views is the optimum of every loss of Theorem 5.1.

    Raises:
      ValueError: if n or d is too small.

    Example:
      >>> x = theory.simplex(3, 2)
      >>> (x @ x.T).round(3).tolist()
      [[1.0, -0.5, -0.5], [-0.5, 1.0, -0.5], [-0.5, -0.5, 1.0]]

    References:
      Lee et al., 2025, Theorem 5.1; Koromilas et al., 2024, Theorem 4.1.
    """
    _at_least("simplex", "n", n, 2)
    if d < n - 1:
        raise ValueError(f"theory.simplex: expected d >= {n - 1} dimensions for n = {n} vectors, got {d}.")
    corners = linalg.helmert(n).T * np.sqrt(n / (n - 1))
    return np.pad(corners, ((0, 0), (0, d - n + 1)))


def negative_similarity_optimum(n: int) -> float:
    r"""Similarity of every negative pair at the optimum over n instances, -1/(n-1): the regular simplex.

    Args:
      n: number of instances compared with each other, at least 2.

    Returns:
      A Python float.

    Raises:
      ValueError: if n < 2.

    Example:
      >>> theory.negative_similarity_optimum(5)
      -0.25

    References:
      Lee et al., 2025, Theorem 5.1; Koromilas et al., 2024, Theorem 4.1.
    """
    _at_least("negative_similarity_optimum", "n", n, 2)
    return -1 / (n - 1)


def positive_similarity_bound(mean_negative: float | jax.Array, n: int, *, sharp: bool = False) -> float | jax.Array:
    r"""Upper bound on the mean similarity of positive pairs, given that of the negative pairs.

    .. math:: \mathbb{E}[s_{pos}] \le 1 + \mathbb{E}[s_{neg}] + \frac{1}{n-1}

    It is trivial (above 1) while the mean of the negatives is above -1/(n-1). Below that it holds but is not attained:
    the difference of the two sides is

    .. math:: \frac{n}{n-1} \Bigl(\tfrac14 \|\mathbb{E}[u - v]\|^2 + \tfrac14 \|\mathbb{E}[u + v]\|^2
              + \tfrac12 \operatorname{tr} \mathrm{Var}[u - v]\Bigr)

    so equality needs E[u - v] = 0 besides the paper's conditions, and then the mean of the negatives is -1/(n-1). Under
    the paper's conditions alone (u - v constant, mean of u + v zero) the bound of `sharp=True` is attained,

    .. math:: \mathbb{E}[s_{pos}] \le 1 + \frac{2(n-1)}{n-2} \Bigl(\mathbb{E}[s_{neg}] + \frac{1}{n-1}\Bigr)
              \quad\text{where } \mathbb{E}[s_{neg}] \le -\tfrac{1}{n-1}

    Args:
      mean_negative: mean similarity of all n(n-1) cross-view negative pairs; any shape.
      n: number of instances, at least 2; at least 3 with `sharp`.
      sharp: return the bound that is attained.

    Returns:
      The bound, in the shape of `mean_negative`.

    Raises:
      ValueError: if n is too small.

    Example:
      >>> theory.positive_similarity_bound(-0.5, 5), theory.positive_similarity_bound(-0.5, 5, sharp=True)
      (0.75, 0.33333333333333337)

    References:
      Lee et al., 2025, Theorem 5.2. The sharp form is ours: it follows from the same identity,
      E[s_pos] + (n-1) E[s_neg] = n E[u].E[v].
    """
    _at_least("positive_similarity_bound", "n", n, 3 if sharp else 2)
    factor = 2 * (n - 1) / (n - 2) if sharp else 1
    return 1 + factor * (mean_negative + 1 / (n - 1))


def negative_variance_bounds(n: int, m: int) -> tuple[float, float]:
    r"""Least and greatest variance of the negative similarities at the optimum of fixed mini-batches.

    .. math::
        \frac{n-m}{(m-1)(n-1)^2} \le \mathrm{Var}[s_{neg}] \le \frac{n(n-m)}{(m-1)(n-1)^2}

    over all n(n-1) pairs of the set. The least is attained where the batches' simplices span orthogonal subspaces, the
    greatest where all batches share one simplex. Both are 0 in the full batch, m = n.

    Args:
      n: number of instances, a multiple of m.
      m: size of the mini-batches, at least 2.

    Returns:
      (least, greatest), Python floats.

    Raises:
      ValueError: if m < 2, or n is not a positive multiple of m.

    Example:
      >>> theory.negative_variance_bounds(4, 2)
      (0.2222222222222222, 0.8888888888888888)

    References:
      Lee et al., 2025, Theorem 5.5.
    """
    _at_least("negative_variance_bounds", "m", m, 2)
    if n < m or n % m:
        raise ValueError(
            f"theory.negative_variance_bounds: expected n to be a positive multiple of m = {m}, got n = {n}."
        )
    least = (n - m) / ((m - 1) * (n - 1) ** 2)
    return least, n * least


def construct_extreme_variance(*, n: int, m: int, d: int, which: str) -> np.ndarray:
    r"""Embeddings that are optimal for fixed mini-batches and have the least, or the greatest, variance of negatives.

    Each batch of m is a regular simplex. For the least variance the simplices span orthogonal subspaces, so that
    negatives of different batches have similarity 0; for the greatest all batches share one simplex, so that
    embeddings of different batches coincide. As both views they attain the ends of `negative_variance_bounds`.

    Args:
      n: number of instances, a multiple of m.
      m: size of the mini-batches, at least 2; batch k holds the rows k m to (k + 1) m.
      d: dimensions, at least (n/m)(m-1) for the least variance and m - 1 for the greatest.
      which: `"least"` or `"greatest"`.

    Returns:
      float64 [n, d], unit norm.

    Raises:
      ValueError: if n is not a multiple of m, m or d is too small, or `which` is unknown.

    Example:
      >>> x = theory.construct_extreme_variance(n=4, m=2, d=3, which="greatest")
      >>> (x @ x.T)[0].round(3).tolist()
      [1.0, -1.0, 1.0, -1.0]

    References:
      Lee et al., 2025, Theorem 5.5 and Figure 2.
    """
    negative_variance_bounds(n, m)  # checks n and m
    if which not in ("least", "greatest"):
        raise ValueError(
            f"theory.construct_extreme_variance: expected which to be 'least' or 'greatest', got {which!r}."
        )
    batches = n // m
    needed = (batches if which == "least" else 1) * (m - 1)
    if d < needed:
        raise ValueError(
            f"theory.construct_extreme_variance: expected d >= {needed} dimensions for the {which} variance of "
            f"n = {n}, m = {m}, got {d}."
        )
    repeat = np.eye(batches) if which == "least" else np.ones((batches, 1))
    return np.pad(np.kron(repeat, simplex(m, m - 1)), ((0, 0), (0, d - needed)))


def _at_least(function: str, name: str, value: int, least: int) -> None:
    if value < least:
        raise ValueError(f"theory.{function}: expected {name} >= {least}, got {value}.")
