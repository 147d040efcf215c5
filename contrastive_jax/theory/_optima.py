"""Where the losses' optima lie, and how far a batch regime moves them (Lee 2025, Section 5)."""

import jax


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


def positive_similarity_bound(mean_negative: float | jax.Array, n: int) -> float | jax.Array:
    r"""Greatest mean similarity of positive pairs that any encoder reaches, given that of the negative pairs.

    .. math:: \mathbb{E}[s_{pos}] \le 1 + \mathbb{E}[s_{neg}] + \frac{1}{n-1}

    with equality iff u - v is constant and the mean of u + v is zero. It says nothing (it exceeds 1) while the
    negatives lie above -1/(n-1).

    Args:
      mean_negative: mean similarity of all n(n-1) cross-view negative pairs; any shape.
      n: number of instances, at least 2.

    Returns:
      The bound, in the shape of `mean_negative`.

    Raises:
      ValueError: if n < 2.

    Example:
      >>> theory.positive_similarity_bound(-0.5, 5)
      0.75

    References:
      Lee et al., 2025, Theorem 5.2.
    """
    _at_least("positive_similarity_bound", "n", n, 2)
    return 1 + mean_negative + 1 / (n - 1)


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
        raise ValueError(f"theory.negative_variance_bounds: n, a positive multiple of m = {m}, is wanted; got n = {n}.")
    least = (n - m) / ((m - 1) * (n - 1) ** 2)
    return least, n * least


def _at_least(function: str, name: str, value: int, least: int) -> None:
    if value < least:
        raise ValueError(f"theory.{function}: {name} >= {least} is wanted; got {value}.")
