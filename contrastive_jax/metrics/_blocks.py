"""Distributions over all pairs of a small set, or over the pairs of random blocks of a large one with their errors."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from contrastive_jax.metrics import _geometry
from contrastive_jax.metrics._rows import OnProgress, Rows, take, unit_rows
from contrastive_jax.metrics._similarity import similarity_distribution, to_host


class Estimate(NamedTuple):
    """A number, and the standard error of what stands for it; 0 where it was computed from all pairs."""

    value: float
    standard_error: float


class Histogram(NamedTuple):
    """Where the similarities of one kind lie."""

    counts: np.ndarray  # uint64 [num_bins], of the pairs that were formed; equal bins over [-1, 1]
    share: np.ndarray  # float64 [num_bins], of all pairs, as far as these tell
    standard_error: np.ndarray  # float64 [num_bins], of each share; zeros where all pairs were formed
    least: float  # of the pairs that were formed; inf without any
    greatest: float


class Blocks(NamedTuple):
    """What was found by forming similarities pair by pair."""

    cross_view: Histogram
    within_view: Histogram
    uniformity: tuple[Estimate, Estimate]  # of u and v
    wasserstein_uniformity: tuple[Estimate, Estimate]
    rows: np.ndarray  # int64, the rows that were drawn, each once


def draw_blocks(kept: np.ndarray, *, num_blocks: int, block_rows: int, seed: int) -> list[np.ndarray]:
    """Independent blocks of rows, each drawn without repetition: every pair is as likely to be in one as any other."""
    rng = np.random.default_rng(seed)
    return [np.sort(kept[rng.choice(len(kept), block_rows, replace=False)]) for _ in range(num_blocks)]


def measure_blocks(
    u: Rows, v: Rows, ids: np.ndarray, blocks: list[np.ndarray], *, num_bins: int, on_progress: OnProgress
) -> Blocks:
    """Form all pairs within each block.

    Args:
      u: one set.
      v: the other.
      ids: int32 [n].
      blocks: the rows of each; a single one is taken for all pairs, and has no error.
      num_bins: of the histograms.
      on_progress: told after each block.
    """
    distribution = jax.jit(lambda u, v, ids: similarity_distribution(u, v, ids=ids, num_bins=num_bins))
    distributions = []
    energies: list[list[float]] = [[], []]
    fine: list[list[np.ndarray]] = [[], []]
    for k, block in enumerate(blocks):
        units = [unit_rows(take(x, block)).astype(np.float32) for x in (u, v)]
        distributions.append(to_host(distribution(*map(jnp.asarray, (*units, ids[block])))))
        for view, unit in enumerate(units):
            energies[view].append(np.exp(_geometry.uniformity(unit)))
            fine[view].append(_geometry.count_similarities(unit))
        on_progress("pairs", k + 1, len(blocks))
    uniformity = [_estimate(_log_mean, np.stack([e, np.ones(len(e))], axis=1)) for e in energies]
    distance = [
        _estimate(lambda c: _geometry.distance_from_uniform(c, u.shape[1]), np.stack(counts)) for counts in fine
    ]
    return Blocks(
        cross_view=_histogram([each.cross_view for each in distributions]),
        within_view=_histogram([each.within_view for each in distributions]),
        uniformity=(uniformity[0], uniformity[1]),
        wasserstein_uniformity=(distance[0], distance[1]),
        rows=np.unique(np.concatenate(blocks)),
    )


def _log_mean(sums: np.ndarray) -> float:
    return float(np.log(sums[0] / sums[1]))


def _histogram(parts: list) -> Histogram:
    counts = np.stack([part.counts for part in parts])
    share, error = jackknife(lambda sums: sums / max(sums.sum(), 1), counts.astype(np.float64))
    ends = min(float(part.least) for part in parts), max(float(part.greatest) for part in parts)
    return Histogram(counts.sum(axis=0), share, error, *ends)


def _estimate(statistic: Callable[[np.ndarray], float], parts: np.ndarray) -> Estimate:
    value, error = jackknife(statistic, parts)
    return Estimate(float(value), float(error))


def jackknife(statistic: Callable[[np.ndarray], np.ndarray | float], parts: np.ndarray) -> tuple:
    r"""A statistic of the sum of b independent parts, and its standard error; an error of 0 for a single part.

    .. math:: \mathrm{SE}^2 = \frac{b-1}{b} \sum_k (\theta_{-k} - \bar\theta)^2

    with theta_{-k} that of the sum without part k.
    """
    total, number = parts.sum(axis=0), len(parts)
    value = np.asarray(statistic(total))
    if number == 1:
        return value, np.zeros_like(value)
    without = np.stack([statistic(total - part) for part in parts])
    return value, np.sqrt((number - 1) * np.var(without, axis=0))
