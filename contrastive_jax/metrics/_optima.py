"""How far embeddings are from what the theorems say of the optimum."""

import math
from typing import NamedTuple

from contrastive_jax import theory
from contrastive_jax.errors import UsageError
from contrastive_jax.metrics._analysis import Analysis, View


class Comparison(NamedTuple):
    """A measured number beside the theory's."""

    quantity: str
    measured: float
    standard_error: float  # 0 where all pairs or rows were used
    theory: tuple[float, float]  # the interval in which the optimum, or what is possible, lies; often one point
    distance: float  # from the nearer end of the interval; 0 inside it
    reference: str


def compare_with_optima(
    analysis: Analysis, *, contrast_size: int | None = None, names: tuple[str, str] = ("u", "v")
) -> list[Comparison]:
    r"""Each measured number beside the optimum that a theorem gives for so many instances in so many dimensions.

    - Theorem 5.1: s_pos = 1 and s_neg = -1/(n-1), with no variance; attainable for d >= n - 1;
    - Theorem 5.2: E[s_pos] <= 1 + E[s_neg] + 1/(n-1), for any encoder; left out, as the ranks are, where
      several pairs share an id;
    - Theorem 5.5: the variance of the negatives at the optimum of fixed mini-batches of `contrast_size`;
    - where n > d + 1, so that no simplex fits: aligned pairs of the mean -1/(n-1) have a variance of at least
      (n-d)/(d(n-1)) - 1/(n-1)^2, that of a tight frame;
    - uniform points have a variance of 1/d, and the uniformities of the uniform law.

    Args:
      analysis: from `analyze`. n is its number of instances.
      contrast_size: m, how many instances training compared with each other; without it Theorem 5.5 is left out.
      names: what the two sets are called.

    Returns:
      A `Comparison` of each.

    Raises:
      UsageError: for a contrast_size below 2 or above n.

    Example:
      >>> x = theory.simplex(4, 3)
      >>> rows = metrics.compare_with_optima(metrics.analyze(x, x))
      >>> max(row.distance for row in rows if row.reference.startswith("Lee")) < 1e-12
      True

    References:
      Lee et al., 2025, Theorems 5.1, 5.2 and 5.5; Koromilas et al., 2024, Section 5; Welch, 1974, whose bound
      the tight frame attains.
    """
    n, d = analysis.num_instances, analysis.dimensions
    if n < 2:
        return []
    optimum, is_one_pair_each = theory.negative_similarity_optimum(n), n == analysis.num_kept
    positive, negative, name = analysis.positive.mean, analysis.cross_view, "Lee 2025, Theorem 5.1"
    rows = [
        _compare("mean of positives", positive, 1.0, name),
        _compare("mean of cross-view negatives", negative.mean, optimum, name),
        _compare("mean of within-view negatives", analysis.within_view.mean, optimum, name),
        _compare("gap of the means", analysis.gap.distance, 0.0, name),
    ]
    if is_one_pair_each:
        bound = float(theory.positive_similarity_bound(negative.mean, n))
        rows.append(_compare("mean of positives, given the negatives'", positive, bound, "Lee 2025, Theorem 5.2"))
    rows += _variances(negative.variance, n, d, contrast_size)
    for called, view in zip(names, (analysis.u, analysis.v), strict=True):
        rows += _spread(called, view, d)
        if is_one_pair_each:
            rows.append(_compare(f"effective rank of {called}", view.effective_rank, min(n - 1.0, d), "all axes used"))
    return rows


def _spread(name: str, view: View, d: int) -> list[Comparison]:
    uniformity, distance = view.uniformity, view.wasserstein_uniformity
    energy = math.log(theory.expected_gaussian_energy(2.0, d))
    return [
        _compare(f"uniformity of {name}", uniformity.value, energy, "uniform law", uniformity.standard_error),
        _compare(f"Wasserstein uniformity of {name}", distance.value, 0.0, "uniform law", distance.standard_error),
    ]


def _variances(variance: float, n: int, d: int, contrast_size: int | None) -> list[Comparison]:
    what = "variance of cross-view negatives"
    least = max(0.0, (n - d) / (d * (n - 1)) - 1 / (n - 1) ** 2)
    name = "Lee 2025, Theorem 5.1" if least == 0 else "tight frame, n > d + 1"
    rows = [_compare(what, variance, least, name), _compare(what, variance, 1 / d, "uniform law")]
    if contrast_size is not None:
        if not 2 <= contrast_size <= n:
            raise UsageError(
                f"metrics.compare_with_optima: expected a contrast_size from 2 to n = {n}, got {contrast_size}."
            )
        bounds = theory.negative_variance_bounds(n - n % contrast_size, contrast_size)
        rows.append(_compare(what, variance, bounds, f"Lee 2025, Theorem 5.5, m = {contrast_size}"))
    return rows


def _compare(
    quantity: str, measured: float, optimum: float | tuple[float, float], reference: str, error: float = 0.0
) -> Comparison:
    least, greatest = optimum if isinstance(optimum, tuple) else (optimum, optimum)
    distance = float(max(least - measured, measured - greatest, 0.0))
    return Comparison(quantity, float(measured), error, (least, greatest), distance, reference)
