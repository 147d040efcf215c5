"""Two sets of embeddings under the lens: all that this package measures, of sets of any size in bounded memory."""

from typing import Any, NamedTuple

import numpy as np
from jax.typing import ArrayLike

from contrastive_jax.errors import UsageError
from contrastive_jax.metrics import _blocks, _exact_moments, _moments, _nearest
from contrastive_jax.metrics._blocks import Blocks, Estimate, Histogram
from contrastive_jax.metrics._classes import ClassVariance, variance_by_class
from contrastive_jax.metrics._exact_moments import ExactMoments
from contrastive_jax.metrics._nearest import HardestNegatives
from contrastive_jax.metrics._pairing import number_names
from contrastive_jax.metrics._rows import OnProgress, Read, RowReport, Rows, chunks, read, take, unit_rows
from contrastive_jax.metrics._similarity import similarity_edges

RANK_TOLERANCE = 1e-5  # that of `rank`
MAX_CLASSES = 65_536


class Sampling(NamedTuple):
    """Which pairs are formed. Moments, spectra, ranks, gaps and classes are of all rows whatever it says."""

    exact_rows: int = 10_000  # up to so many rows all pairs are formed
    num_blocks: int = 32  # beyond: random blocks
    block_rows: int = 2_048  # of each; all pairs within a block are formed
    num_anchors: int = 1_024  # beyond: random anchors, each compared with all rows
    seed: int = 0


class KindOfPair(NamedTuple):
    """The similarities of one kind of pair."""

    number: int  # of all such pairs
    mean: float  # of all of them, float64
    variance: float  # of all of them, divided by their number
    histogram: Histogram


class View(NamedTuple):
    """One set by itself."""

    report: RowReport  # of all its rows; everything else of those that are kept
    mean_length: float  # of the mean of the unit rows; 0 is centred
    uniformity: Estimate
    wasserstein_uniformity: Estimate
    effective_rank: float
    rank: int
    spectrum: np.ndarray  # float64 [d], variances along the principal axes, descending
    classes: ClassVariance | None


class Gap(NamedTuple):
    """The distance of the two sets' means, and how the rows that were formed lie along it."""

    distance: float  # of the mean of u from that of v
    u: np.ndarray  # float64 [r], each row's component along the direction from the mean of v to that of u
    v: np.ndarray  # float64 [r]


class Analysis(NamedTuple):
    """What `analyze` finds."""

    num_rows: int  # given
    num_kept: int  # pairs whose rows are finite and not zero in both sets
    num_instances: int  # different ids among them
    dimensions: int
    sampling: Sampling | None  # None where all pairs were formed
    num_bins: int
    positive: KindOfPair
    cross_view: KindOfPair
    within_view: KindOfPair
    alignment: float
    gap: Gap
    u: View
    v: View
    hardest: HardestNegatives
    retrieval: Estimate  # share of the anchors whose positive is more similar than every negative
    identical_pairs: int  # pairs of two equal directions


def analyze(
    u: Rows,
    v: Rows,
    *,
    ids: ArrayLike | None = None,
    labels: ArrayLike | None = None,
    num_bins: int = 200,
    sampling: Sampling = Sampling(),  # noqa: B008
    on_progress: OnProgress = lambda *_: None,
) -> Analysis:
    r"""Similarities, geometry, classes, gap and hardest negatives of pairs of embeddings from anywhere.

    Exact for any number of rows, in float64 and in time linear in it: mean and variance of all three kinds of pair, the
    histogram of the positives, alignment, spectra, ranks, the variance by class, and the gap. Of up to
    `sampling.exact_rows` rows all pairs are formed, in float32: histograms, uniformity, Wasserstein uniformity and
    hardest negatives are those of all pairs. Beyond that, histograms and both uniformities are estimates from all pairs
    within `num_blocks` random blocks of `block_rows` rows, with the jackknife's standard error over the blocks: of each
    bin's share, and of each number. Hardest negatives are then of `num_anchors` random anchors, among all rows.

    Memory is O(n) numbers, a few for each row, and O(d^2 + classes d) besides pieces of a fixed size, so that u and v
    may be memory-mapped files larger than the memory. Rows with NaN, infinity or zeros alone are left out, with their
    pairs; they and repeated rows are reported.

    Args:
      u: [n, d] embeddings of one set, d >= 2, float16, float32 or float64; normalised inside. Any object with `shape`
        and `dtype` that gives rows by slice and by an array of ascending indices.
      v: [n, d] of the other; u_i and v_i are a positive pair.
      ids: [n] instance ids, integers or strings; pairs with equal ids are no negatives. Default: all differ.
      labels: [n] classes, integers or strings, for the variance by class. They do not change what is a negative.
      num_bins: equal bins of the histograms over [-1, 1].
      sampling: which pairs are formed.
      on_progress: called as (stage, done, total) after each piece of work.

    Returns:
      An `Analysis`. Where a kind has no pairs, its moments are 0.

    Raises:
      UsageError: shapes or dtypes that do not fit, fewer than two usable pairs, or more than 65,536 classes.

    Example:
      >>> u = np.random.default_rng(0).normal(size=(100, 8))
      >>> found = metrics.analyze(u, u)
      >>> found.cross_view.number, round(found.positive.mean, 6), found.retrieval.value
      (9900, 1.0, 1.0)

    References:
      Lee et al., 2025, Section 5; Koromilas et al., 2024, Section 7; Efron and Stein, 1981, on the jackknife.
    """
    ids, labels = (None if names is None else np.asarray(names) for names in (ids, labels))
    _check(u, v, ids, labels, num_bins, sampling)
    found, numbered = read(u, v, on_progress), None if ids is None else number_names(ids)
    kept = found.kept
    if len(kept) < 2:
        raise UsageError(
            f"expected at least 2 pairs with finite rows that are not zero, got {len(kept)} of {u.shape[0]}."
        )
    every = np.arange(u.shape[0], dtype=np.int32) if numbered is None else numbered
    is_exact = len(kept) <= sampling.exact_rows
    rows, anchors = ([kept], kept) if is_exact else _draw(kept, sampling)
    blocks = _blocks.measure_blocks(u, v, every, rows, num_bins=num_bins, on_progress=on_progress)
    cross_view, within_view = _moments_of_negatives(u, v, found, numbered)
    views = _views(u, v, found, blocks, labels)
    hardest = _nearest.find_hardest(u, v, every, anchors, kept, on_progress)
    return Analysis(
        num_rows=u.shape[0],
        num_kept=len(kept),
        num_instances=len(np.unique(every[kept])),
        dimensions=u.shape[1],
        sampling=None if is_exact else sampling,
        num_bins=num_bins,
        positive=_positives(found.positive, num_bins),
        cross_view=KindOfPair(*cross_view, blocks.cross_view),
        within_view=KindOfPair(*within_view, blocks.within_view),
        alignment=found.squared_distance,
        gap=_gap(u, v, found, blocks.rows),
        u=views[0],
        v=views[1],
        hardest=hardest,
        retrieval=_retrieval(hardest, is_exact),
        identical_pairs=int(np.sum(found.positive >= 1 - 1e-12)),
    )


def _draw(kept: np.ndarray, sampling: Sampling) -> tuple[list[np.ndarray], np.ndarray]:
    """Blocks of rows whose pairs are formed, and anchors whose hardest negative is found."""
    block_rows, num_anchors = (min(number, len(kept)) for number in (sampling.block_rows, sampling.num_anchors))
    blocks = _blocks.draw_blocks(kept, num_blocks=sampling.num_blocks, block_rows=block_rows, seed=sampling.seed)
    return blocks, np.sort(np.random.default_rng(sampling.seed + 1).choice(kept, num_anchors, replace=False))


def _moments_of_negatives(u: Rows, v: Rows, found: Read, ids: np.ndarray | None) -> tuple[ExactMoments, ExactMoments]:
    """Of the cross-view and the within-view negatives."""
    groups, is_alone = _exact_moments.find_groups(found.kept, ids)
    ones = np.ones(int(is_alone.sum()))
    of = found.moments
    cross = _exact_moments.negatives(u, v, of, alone=found.positive[is_alone], groups=groups)
    within = [
        _exact_moments.negatives(x, x, (m, m), alone=ones, groups=groups) for x, m in zip((u, v), of, strict=True)
    ]
    mean = (within[0].mean + within[1].mean) / 2  # both have the same number
    variance = np.mean([each.variance + (each.mean - mean) ** 2 for each in within])
    return cross, ExactMoments(within[0].number, mean, float(variance))  # each pair of both sets once


def _positives(similarities: np.ndarray, num_bins: int) -> KindOfPair:
    counts, _ = np.histogram(np.clip(similarities, -1, 1), similarity_edges(num_bins))
    share = counts / len(similarities)
    ends = float(similarities.min()), float(similarities.max())
    histogram = Histogram(counts.astype(np.uint64), share, np.zeros(num_bins), *ends)
    return KindOfPair(len(similarities), float(similarities.mean()), float(similarities.var()), histogram)


def _views(u: Rows, v: Rows, found: Read, blocks: Blocks, labels: np.ndarray | None) -> list[View]:
    return [
        View(
            report=found.reports[k],
            mean_length=float(np.linalg.norm(moments.mean)),
            uniformity=blocks.uniformity[k],
            wasserstein_uniformity=blocks.wasserstein_uniformity[k],
            effective_rank=_moments.effective_rank_of(moments),
            rank=int(np.sum(_moments.spectrum_of(moments) > RANK_TOLERANCE)),
            spectrum=_moments.spectrum_of(moments),
            classes=None if labels is None else _classes(rows, found.kept, np.asarray(labels)),
        )
        for k, (rows, moments) in enumerate(zip((u, v), found.moments, strict=True))
    ]


def _classes(rows: Rows, kept: np.ndarray, labels: np.ndarray) -> ClassVariance:
    names, which = np.unique(labels[kept], return_inverse=True)
    which, d = which.reshape(-1), rows.shape[1]
    if len(names) > MAX_CLASSES:
        raise UsageError(
            f"expected labels of at most {MAX_CLASSES:,} classes, got {len(names):,}; leave them out, or "
            "give them as ids."
        )
    parts = ((unit_rows(take(rows, kept[part])), which[part]) for part in chunks(len(kept), d))
    return variance_by_class(names, parts, d)


def _gap(u: Rows, v: Rows, found: Read, rows: np.ndarray) -> Gap:
    difference = found.moments[0].mean - found.moments[1].mean
    distance = float(np.linalg.norm(difference))
    direction = difference / distance if distance > 0 else difference
    parts = list(chunks(len(rows), u.shape[1]))
    along = [np.concatenate([unit_rows(take(x, rows[part])) @ direction for part in parts]) for x in (u, v)]
    return Gap(distance, *along)


def _retrieval(hardest: HardestNegatives, is_exact: bool) -> Estimate:
    share = float(np.mean(hardest.positive > hardest.similarity))
    return Estimate(share, 0.0 if is_exact else float(np.sqrt(share * (1 - share) / len(hardest.anchor))))


def _check(
    u: Rows, v: Rows, ids: np.ndarray | None, labels: np.ndarray | None, num_bins: int, sampling: Sampling
) -> None:
    if len(u.shape) != 2 or tuple(u.shape) != tuple(v.shape):
        raise UsageError(f"expected u and v of the same shape [n, d], got {list(u.shape)} and {list(v.shape)}.")
    if u.shape[0] < 2 or u.shape[1] < 2:
        raise UsageError(f"expected at least 2 rows of at least 2 dimensions, got {list(u.shape)}.")
    for name, x in (("u", u), ("v", v)):
        check_float(name, x.dtype)
    for name, given in (("ids", ids), ("labels", labels)):
        if given is not None:
            check_names(name, given, u.shape[0])
    for name, value, least in (
        ("num_bins", num_bins, 1),
        *((n, getattr(sampling, n), 2) for n in Sampling._fields[:4]),
    ):
        if value < least:
            raise UsageError(f"expected {name} of at least {least}, got {value}.")


def check_float(name: str, dtype: Any) -> None:
    """Refuse embeddings that are not float16, float32 or float64."""
    dtype = np.dtype(dtype)
    if dtype.kind != "f" or dtype.itemsize > 8:
        raise UsageError(
            f"expected {name} of float16, float32 or float64, got {dtype}; convert it by .astype('float32')."
        )


def check_names(name: str, given: np.ndarray, n: int) -> None:
    """Refuse ids or labels that are not one integer or string for each row."""
    if given.shape != (n,) or given.dtype.kind not in "iuUSb":
        raise UsageError(
            f"expected {name} to be integers or strings of shape [{n}], got {given.dtype} of shape {list(given.shape)}."
        )
