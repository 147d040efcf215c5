"""The minimum of each loss in closed form: its value where positives align and negatives form a simplex."""

import math
from collections.abc import Callable

from contrastive_jax.theory import _separation
from contrastive_jax.theory._optima import negative_similarity_optimum


def minimum(name: str, *, m: int, **hyperparameters: float | str) -> float:
    r"""Minimum of a loss of m pairs over all embeddings in enough dimensions (m - 1; m for `spectral`).

    With s = -1/(m-1), the similarity of all negatives at the optimum, and a = m / ((m-1) t), t the temperature:

    ================================  ==================================================
    loss                              minimum
    ================================  ==================================================
    `info_nce`                        log(1 + (m-1) exp(-a))
    `simclr`                          log(1 + 2 (m-1) exp(-a))
    `dcl`                             log(2 (m-1)) - a
    `dhel`, form "mean"               log(m-1) - a
    `dhel`, form "sum"                2 (log(m-1) + s/t) - 1/t
    `siglip`                          softplus(-scale - bias) + (m-1) softplus(scale s + bias)
    `spectral`                        -1
    `kcl`                             2 gamma K(2 - 2s) - 2 K(0)
    `align_uniform`                   -2 t weight m / (m-1)
    `sup_con`                         as `simclr`: every label different
    `multi_view_info_nce`             as `info_nce`, in both forms
    `multi_view_dhel`, form "mean"    log(m-1) - a - log(V (V-1) / 2)
    `multi_view_dhel`, form "sum"     V (log(m-1) + s/t) - 1/t - log(V (V-1) / 2)
    ================================  ==================================================

    The minimum of `spectral` is not at the simplex: its psi, the square, decreases below 0, where the theorems need it
    to increase, and orthogonal negatives are better than the simplex, whose value is -1 + 1/(m-1)^2.

    Args:
      name: of a loss in `contrastive_jax.losses`.
      m: pairs compared with each other, at least 2; the whole training set in the full batch.
      **hyperparameters: the loss's own, with its own defaults; for the multi-view losses also `num_views`, V, by
        default 2.

    Returns:
      A Python float.

    Raises:
      ValueError: for m < 2; a loss or hyperparameter without a closed form; `siglip` where it separates excessively, so
        that the simplex is not its optimum; `kcl` with a Riesz kernel that is infinite where a pair coincides.

    Example:
      >>> round(theory.minimum("info_nce", m=8, temperature=0.5), 4)
      0.5376

    References:
      Koromilas et al., 2024, Theorems 4.1 and 6.1; Lee et al., 2025, Theorem 5.1.
    """
    if name not in _MINIMA:
        raise ValueError(f"theory.minimum: expected one of {', '.join(map(repr, _MINIMA))}, got {name!r}.")
    try:
        return float(_MINIMA[name](m, negative_similarity_optimum(m), **hyperparameters))
    except (TypeError, KeyError):
        given = ", ".join(f"{key}={value!r}" for key, value in hyperparameters.items())
        raise ValueError(
            f"theory.minimum: expected hyperparameters of {name!r} that have a closed form, got {given}."
        ) from None


def _softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def _info_nce(m: int, s: float, *, temperature: float = 0.2, form: str = "pairwise", num_views: int = 2) -> float:
    return _softplus(math.log(m - 1) + (s - 1) / temperature)


def _simclr(m: int, s: float, *, temperature: float = 0.2) -> float:
    return _softplus(math.log(2 * (m - 1)) + (s - 1) / temperature)


def _dcl(m: int, s: float, *, temperature: float = 0.2) -> float:
    return math.log(2 * (m - 1)) + (s - 1) / temperature


def _dhel(m: int, s: float, *, temperature: float = 0.2, form: str = "mean") -> float:
    return _multi_view_dhel(m, s, temperature=temperature, form=form)


def _multi_view_dhel(m: int, s: float, *, temperature: float = 0.2, form: str = "sum", num_views: int = 2) -> float:
    weight = {"sum": num_views, "mean": 1}[form]
    return weight * (math.log(m - 1) + s / temperature) - 1 / temperature - math.log(math.comb(num_views, 2))


def _siglip(m: int, s: float, *, scale: float = 10.0, bias: float = -10.0) -> float:
    if _separation.siglip_separates_excessively(scale=scale, bias=bias, n=m):
        raise ValueError(
            f"theory.minimum: expected a scale and bias at which siglip's optimum is the simplex, got scale = {scale} "
            f"and bias = {bias}, where it separates {m} pairs excessively and has no closed form here."
        )
    return _softplus(-scale - bias) + (m - 1) * _softplus(scale * s + bias)


def _spectral(m: int, s: float) -> float:
    return -1


def _kcl(m: int, s: float, *, kernel: str = "gaussian", t: float = 2.0, gamma: float = 16.0) -> float:
    if kernel == "riesz" and t > 0:
        raise ValueError(f"theory.minimum: expected t < 0 for kcl's riesz kernel, got {t}; above 0 K(0) is infinite.")
    of_positives = _KERNELS["gaussian"](0.0, 2.0) if kernel == "gaussian_riesz" else _KERNELS[kernel](0.0, t)
    return 2 * gamma * _KERNELS[kernel](2 - 2 * s, t) - 2 * of_positives


def _align_uniform(m: int, s: float, *, weight: float = 1.0, alpha: float = 2.0, t: float = 2.0) -> float:
    return -weight * t * (2 - 2 * s)


def _riesz(squared: float, t: float) -> float:
    return math.copysign(1, t) * squared ** (-t / 2)


_KERNELS: dict[str, Callable[[float, float], float]] = {
    "gaussian": lambda squared, t: math.exp(-t * squared),
    "log": lambda squared, t: -math.log1p(t * squared) / 2,
    "imq": lambda squared, t: t / math.sqrt(t**2 + squared),
    "riesz": _riesz,
    "gaussian_riesz": _riesz,
}
_MINIMA: dict[str, Callable[..., float]] = {
    "info_nce": _info_nce,
    "simclr": _simclr,
    "dcl": _dcl,
    "dhel": _dhel,
    "siglip": _siglip,
    "spectral": _spectral,
    "kcl": _kcl,
    "align_uniform": _align_uniform,
    "sup_con": _simclr,
    "multi_view_info_nce": _info_nce,
    "multi_view_dhel": _multi_view_dhel,
}
