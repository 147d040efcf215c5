"""The uniform distribution on the sphere, and the similarities of points drawn from it."""

import numpy as np
from scipy import special


def similarity_density(s: float | np.ndarray, d: int) -> np.ndarray:
    r"""Density of the cosine similarity of two independent uniform points on the sphere in d dimensions.

    .. math:: p(s) = \frac{(1 - s^2)^{(d-3)/2}}{B(\frac{d-1}{2}, \frac12)}

    with mean 0 and variance 1/d.

    Args:
      s: similarities, any shape.
      d: dimensions, at least 2.

    Returns:
      float64, in the shape of s; 0 outside [-1, 1].

    Raises:
      ValueError: if d < 2.

    Example:
      >>> round(float(theory.similarity_density(0.0, 3)), 4)
      0.5

    References:
      Koromilas et al., 2024, Section 5.
    """
    _check_dimensions("similarity_density", d)
    s = np.asarray(s, np.float64)
    inside = np.abs(s) <= 1
    with np.errstate(divide="ignore"):  # infinite at the ends for d = 2, as it should be
        density = np.where(inside, 1 - s * s, 1.0) ** ((d - 3) / 2) / special.beta((d - 1) / 2, 0.5)
    return np.where(inside, density, 0.0)


def similarity_quantile(q: float | np.ndarray, d: int) -> np.ndarray:
    r"""Quantiles of the similarity of two independent uniform points: (s + 1)/2 is Beta((d-1)/2, (d-1)/2).

    Args:
      q: probabilities in [0, 1], any shape.
      d: dimensions, at least 2.

    Returns:
      float64 in [-1, 1], in the shape of q.

    Raises:
      ValueError: if d < 2, or q is outside [0, 1].

    Example:
      >>> theory.similarity_quantile([0.25, 0.5], 3).tolist()
      [-0.5, 0.0]

    References:
      Koromilas et al., 2024, Section 5.
    """
    _check_dimensions("similarity_quantile", d)
    q = np.asarray(q, np.float64)
    if not ((q >= 0) & (q <= 1)).all():
        raise ValueError(f"theory.similarity_quantile: expected probabilities q in [0, 1], got {q.min()} to {q.max()}.")
    half = (d - 1) / 2
    return 2 * special.betaincinv(half, half, q) - 1


def similarity_distribution_function(s: float | np.ndarray, d: int) -> np.ndarray:
    """Probability that two independent uniform points have a similarity of at most s; the inverse of the quantiles.

    Args:
      s: similarities, any shape.
      d: dimensions, at least 2.

    Returns:
      float64 in [0, 1], in the shape of s.

    Raises:
      ValueError: if d < 2.

    Example:
      >>> float(theory.similarity_distribution_function(-0.5, 3))
      0.25
    """
    _check_dimensions("similarity_distribution_function", d)
    half = (d - 1) / 2
    return special.betainc(half, half, (np.clip(np.asarray(s, np.float64), -1, 1) + 1) / 2)


def expected_gaussian_energy(t: float, d: int) -> float:
    r"""Mean of exp(-t r^2), with r the distance of two independent uniform points: the limit of uniformity.

    .. math:: \mathbb{E}\, e^{-t r^2} = e^{-2t}\, {}_0F_1(; \tfrac{d}{2}; t^2)

    Args:
      t: at least 0.
      d: dimensions, at least 2.

    Returns:
      A Python float.

    Raises:
      ValueError: if d < 2 or t < 0.

    Example:
      >>> round(theory.expected_gaussian_energy(2.0, 128), 4)
      0.0195

    References:
      Koromilas et al., 2024, Section 6; its logarithm is the minimum of `metrics.uniformity`.
    """
    _check_dimensions("expected_gaussian_energy", d)
    if not t >= 0:
        raise ValueError(f"theory.expected_gaussian_energy: expected t >= 0, got {t}.")
    if t == 0:
        return 1.0
    # The terms of 0F1 are positive and peak near k = t: summed in logarithms, none overflows.
    k = np.arange(int(4 * t) + 60)
    logs = 2 * k * np.log(t) - special.gammaln(k + 1) - special.gammaln(d / 2 + k) + special.gammaln(d / 2)
    return float(np.exp(special.logsumexp(logs) - 2 * t))


def _check_dimensions(function: str, d: int) -> None:
    if d < 2:
        raise ValueError(f"theory.{function}: expected d >= 2 dimensions, got {d}.")
