"""The picture of an analysis: similarities, spectrum, gap, norms and classes."""

from pathlib import Path
from typing import Any

import numpy as np

from contrastive_jax import metrics, theory
from contrastive_jax.jobs.machine import files

# Okabe and Ito's palette, for every kind of colour vision.
_U, _V, _THEORY, _HARD, _LAW = "#0072B2", "#E69F00", "#D55E00", "#999999", "#000000"
_MAX_BARS = 30
_TINY = 1e-12
_LEAST_RANGE = 1e-3  # of an axis
_LEAST_GAP = 1e-6  # below it the line between the means is one between two rounding errors
_MOST_LETTERS = 45  # that fit side by side below the bars


def save_picture(path: Path, analysis: metrics.Analysis, *, names: tuple[str, str], title: str) -> None:
    """Draw an analysis.

    The upper row has the positives with each anchor's hardest negative, the cross-view and the within-view negatives.
    The lower row has the spectra, the two sets along the line between their means, and the variance by class, or the
    norms where there are no labels.

    Args:
      path: the file to write; its suffix sets the format. An existing file is replaced atomically.
      analysis: from `metrics.analyze`.
      names: what the two sets are called.
      title: the title of the picture.
    """
    from matplotlib.figure import Figure  # imported here because the import takes half a second

    names = _literally(names[0]), _literally(names[1])

    figure = Figure(figsize=(13.5, 7.6), dpi=130, layout="constrained", facecolor="white")
    figure.suptitle(title, fontsize=12, parse_math=False)
    panels = figure.subplots(2, 3)
    _draw_positives(panels[0, 0], analysis)
    _draw_negatives(panels[0, 1], analysis, "cross_view")
    _draw_negatives(panels[0, 2], analysis, "within_view")
    _draw_spectra(panels[1, 0], analysis, names)
    _draw_gap(panels[1, 1], analysis, names)
    if analysis.u.classes is None or analysis.v.classes is None:
        _draw_norms(panels[1, 2], analysis, names)
    else:
        _draw_classes(panels[1, 2], analysis.u.classes, analysis.v.classes, names)
    for axes in panels.flat:
        axes.spines[["top", "right"]].set_visible(False)
    with files.replace_atomically(path) as temporary:
        figure.savefig(temporary)


def _literally(text: object) -> str:
    """Text of the user, in which a $ begins no formula."""
    return str(text).replace("$", r"\$")


def _place_legend(axes: Any) -> None:
    """Below the panel, where it covers no data."""
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), fontsize=8, frameon=False, ncols=1)


def _draw_density(axes: Any, share: np.ndarray, color: str, label: str, error: np.ndarray | None = None) -> None:
    edges = metrics.similarity_edges(len(share))
    width = edges[1] - edges[0]
    axes.stairs(share / width, edges, fill=True, alpha=0.4, color=color)
    axes.stairs(share / width, edges, color=color, linewidth=1.2, label=label)
    if error is not None and error.any():
        axes.stairs(
            (share + 2 * error) / width, edges, baseline=np.maximum(share - 2 * error, 0) / width, fill=True,
            color="black", alpha=0.5, label="± 2 standard errors",
        )  # fmt: skip


def _choose_bins(count: int, most: int) -> int:
    """So few bins that the number of rows in each is more than noise."""
    return int(np.clip(4 * np.sqrt(count), min(20, most), most))


def _widen(share: np.ndarray, count: int) -> np.ndarray:
    """Shares of bins as many times as wide as few pairs need."""
    most = _choose_bins(count, len(share))
    return share.reshape(max(k for k in range(1, most + 1) if len(share) % k == 0), -1).sum(axis=1)


def _draw_positives(axes: Any, analysis: metrics.Analysis) -> None:
    kind, hardest = analysis.positive, analysis.hardest
    exists = hardest.negative >= 0
    counts, _ = np.histogram(np.clip(hardest.similarity[exists], -1, 1), metrics.similarity_edges(analysis.num_bins))
    wrong = 100 * (1 - analysis.retrieval.value)
    _draw_density(
        axes,
        _widen(counts / max(counts.sum(), 1), counts.sum()),
        _HARD,
        f"hardest negative of each anchor; beats or ties its positive: {wrong:.3g}%",
    )
    _draw_density(
        axes,
        _widen(kind.histogram.share, kind.number),
        _U,
        f"positives: mean {kind.mean:.3f}, variance {kind.variance:.3g}",
    )
    axes.axvline(1, linestyle="--", color=_THEORY, linewidth=1.4, label="optimum 1 (Lee 2025, Thm 5.1)")
    if analysis.num_instances == analysis.num_kept:
        bound = float(theory.positive_similarity_bound(analysis.cross_view.mean, analysis.num_instances))
        if bound < 1:
            axes.axvline(
                bound, linestyle=":", color=_THEORY, linewidth=1.4, label=f"mean at most {bound:.3f} (Thm 5.2)"
            )
    _finish_similarities(axes, "Positive pairs, and what competes with them")


def _draw_negatives(axes: Any, analysis: metrics.Analysis, name: str) -> None:
    kind: metrics.KindOfPair = getattr(analysis, name)
    share = kind.histogram.share
    _draw_density(axes, share, _U, f"mean {kind.mean:.4f}, variance {kind.variance:.3g}", kind.histogram.standard_error)
    n, d = analysis.num_instances, analysis.dimensions
    edges = metrics.similarity_edges(len(share))
    law = np.diff(theory.similarity_distribution_function(edges, d)) / np.diff(edges)
    axes.plot((edges[1:] + edges[:-1]) / 2, law, color=_LAW, linewidth=1, label=f"uniform points: variance {1 / d:.3g}")
    axes.axvline(kind.mean, color=_U, linewidth=1.2)
    if n > 1:
        optimum = theory.negative_similarity_optimum(n)
        label = f"optimum {optimum:.2g} (Lee 2025, Thm 5.1)"
        axes.axvline(optimum, linestyle="--", color=_THEORY, linewidth=1.4, label=label)
    titles = {"cross_view": "Cross-view negatives", "within_view": "Within-view negatives"}
    _finish_similarities(axes, titles[name])


def _finish_similarities(axes: Any, title: str) -> None:
    axes.set(title=title, xlabel="cosine similarity", ylabel="density of pairs", xlim=(-1.02, 1.02))
    axes.set_ylim(bottom=0)
    _place_legend(axes)


def _draw_spectra(axes: Any, analysis: metrics.Analysis, names: tuple[str, str]) -> None:
    least = _TINY
    for name, view, color, style in zip(names, (analysis.u, analysis.v), (_U, _V), ("-", "--"), strict=True):
        values = view.spectrum[view.spectrum > _TINY]
        label = f"{name}: effective rank {view.effective_rank:.3g}, rank {view.rank}"
        axes.plot(np.arange(1, len(values) + 1), values, style, color=color, linewidth=1.8, label=label)
        least = min(least, *values) if len(values) else least
    d = analysis.dimensions
    axes.axhline(1 / d, color=_LAW, linewidth=1, linestyle=":", label=f"uniform points: {1 / d:.3g} each")
    axes.set(title="Variance along each principal axis", xlabel="axis", ylabel="variance", yscale="log")
    axes.set_xlim(0.5, d + 0.5)
    _place_legend(axes)


def _draw_gap(axes: Any, analysis: metrics.Analysis, names: tuple[str, str]) -> None:
    gap = analysis.gap
    if gap.distance < _LEAST_GAP:
        axes.set(title="No gap between the means", xticks=[], yticks=[])
        text = f"{names[0]} and {names[1]} have the same mean, to rounding"
        axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", fontsize=9)
        return
    ends = min(gap.u.min(), gap.v.min()), max(gap.u.max(), gap.v.max())
    edges = np.linspace(ends[0], max(ends[1], ends[0] + _LEAST_RANGE), _choose_bins(len(gap.u), 80) + 1)
    for name, along, color in zip(names, (gap.u, gap.v), (_U, _V), strict=True):
        density, _ = np.histogram(np.clip(along, edges[0], edges[-1]), edges, density=True)
        axes.stairs(density, edges, fill=True, alpha=0.4, color=color)
        axes.stairs(density, edges, color=color, linewidth=1.2, label=f"{name}: mean {along.mean():.3f}")
    axes.set(title=f"Gap between the means: {gap.distance:.3g}", ylabel="density of rows")
    axes.set_xlabel("component along the line from one mean to the other")
    axes.set_ylim(bottom=0)
    _place_legend(axes)


def _draw_norms(axes: Any, analysis: metrics.Analysis, names: tuple[str, str]) -> None:
    both = [view.report.norms[view.report.norms > 0] for view in (analysis.u, analysis.v)]
    ends = min(x.min() for x in both), max(x.max() for x in both)
    middle = np.median(np.concatenate(both))
    bins = _choose_bins(len(both[0]), 80)
    edges = np.linspace(ends[0], max(ends[1], ends[0] + _LEAST_RANGE * middle), bins + 1)
    is_wide = ends[1] > 100 * ends[0]
    if is_wide:
        edges = np.geomspace(*ends, bins + 1)
        axes.set_xscale("log")
    for name, norms, color in zip(names, both, (_U, _V), strict=True):
        counts, _ = np.histogram(np.clip(norms, edges[0], edges[-1]), edges)
        axes.stairs(counts / len(norms), edges, fill=True, alpha=0.4, color=color)
        label = f"{name}: {norms.min():.3g} to {norms.max():.3g}, median {np.median(norms):.3g}"
        axes.stairs(counts / len(norms), edges, color=color, linewidth=1.2, label=label)
    axes.set(title="Norms before normalising", xlabel="norm", ylabel="share of rows")
    axes.set_ylim(bottom=0)
    _place_legend(axes)


def _draw_classes(axes: Any, u: metrics.ClassVariance, v: metrics.ClassVariance, names: tuple[str, str]) -> None:
    order = np.argsort(u.within, kind="stable")
    place = np.arange(len(order))
    for k, (name, found, color) in enumerate(zip(names, (u, v), (_U, _V), strict=True)):
        label = f"{name}: {100 * found.share_between:.0f}% of the variance lies between classes"
        if len(order) <= _MAX_BARS:
            axes.bar(place + 0.4 * k - 0.2, found.within[order], 0.4, color=color, label=label)
        else:
            axes.plot(place, found.within[order], ".", color=color, markersize=3, label=label)
    if len(order) <= _MAX_BARS:
        ticks = [_literally(str(name)[:12]) for name in u.classes[order]]
        axes.set_xticks(place, ticks, rotation=90 if sum(map(len, ticks)) > _MOST_LETTERS else 0)
    axes.axhline(v.total, color=_V, linewidth=1, linestyle=":", label="all rows, whatever their class")
    axes.axhline(u.total, color=_U, linewidth=1, linestyle=":")
    axes.set(title="Variance within each class", xlabel="class, narrowest first", ylabel="mean squared distance")
    # Names of classes may be long: the legend is above the bars, not below them.
    axes.set_ylim(0, 1.4 * max(u.total, v.total, *u.within, *v.within, _TINY))
    axes.legend(loc="upper center", fontsize=8, frameon=False)
