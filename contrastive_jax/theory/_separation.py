"""Excessive separation: losses that push negatives further apart than a simplex, at the cost of alignment."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from contrastive_jax import jax_versions


def excessive_separation(phi: Callable[[jax.Array], jax.Array], psi: Callable[[jax.Array], jax.Array], n: int) -> bool:
    r"""Whether the full-batch optimum of an independently additive loss has s_pos < 1 and s_neg < -1/(n-1).

    .. math:: \phi'(1) < \frac{n-2}{2(n-1)}\, \psi'\bigl(-\tfrac{1}{n-1}\bigr)

    for `losses.independently_additive` with cross-view negatives alone, in d >= n dimensions. Within-view negatives
    (`within_view=True`) prevent it: then the optimum is the aligned simplex for any phi and psi.

    Args:
      phi: concave, increasing; differentiable by JAX at 1.
      psi: convex, increasing; differentiable by JAX at -1/(n-1).
      n: number of instances compared with each other, at least 2.

    Returns:
      A Python bool. Derivatives are taken in float64.

    Raises:
      ValueError: if n < 2.

    Example:
      >>> theory.excessive_separation(lambda x: x, lambda x: jnp.exp(x), n=8)
      False

    References:
      Lee et al., 2025, Theorems 5.1 and 5.3.
    """
    _check("excessive_separation", n)
    with jax_versions.enable_x64():
        attraction = jax.grad(phi)(jnp.float64(1))
        repulsion = jax.grad(psi)(jnp.float64(-1 / (n - 1)))
        return bool(attraction < (n - 2) / (2 * (n - 1)) * repulsion)


def siglip_separates_excessively(*, scale: float | np.ndarray, bias: float | np.ndarray, n: int) -> bool | np.ndarray:
    r"""Whether SigLIP's full-batch optimum has s_pos < 1 and s_neg < -1/(n-1), given its scale and bias.

    .. math:: \frac{1 + e^{a/(n-1) - b}}{1 + e^{a + b}} < \frac{n-2}{2}

    with a the scale and b the bias of the logit a s + b, as in `losses.siglip`; the paper's logit is a s - b.

    Args:
      scale: a > 0, any shape.
      bias: b, a shape that broadcasts with it.
      n: number of instances compared with each other, at least 2.

    Returns:
      A bool, or an array of them in the shape of scale and bias.

    Raises:
      ValueError: if n < 2, or a scale is not above 0.

    Example:
      >>> theory.siglip_separates_excessively(scale=10.0, bias=-10.0, n=512)
      False
      >>> theory.siglip_separates_excessively(scale=10.0, bias=0.0, n=512)
      True

    References:
      Lee et al., 2025, Theorem 5.3 and Example 5.4 (Equation 10).
    """
    _check("siglip_separates_excessively", n)
    scale, bias = np.asarray(scale, np.float64), np.asarray(bias, np.float64)
    if not (scale > 0).all():
        raise ValueError(f"theory.siglip_separates_excessively: expected scale > 0, got {scale.min()}.")
    with np.errstate(divide="ignore"):  # n = 2 never separates excessively: the logarithm of 0
        limit = np.log((n - 2) / 2)
    separates = np.logaddexp(0, scale / (n - 1) - bias) - np.logaddexp(0, scale + bias) < limit
    return separates if separates.ndim else bool(separates)


def _check(function: str, n: int) -> None:
    if n < 2:
        raise ValueError(f"theory.{function}: expected n >= 2, got {n}.")
