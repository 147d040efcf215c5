"""The picture of how the similarities changed during a run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from contrastive_jax import metrics
from contrastive_jax.jobs.logs import rows as logs
from contrastive_jax.jobs.machine import files

_TITLES = {
    "positive": "Positive pairs",
    "cross_view": "Cross-view negatives",
    "within_view": "Within-view negatives",
}
_BEFORE, _AFTER, _THEORY = "#999999", "#0072B2", "#D55E00"  # distinguishable to colour-blind readers
_MAX_COLUMNS = 400
_MEASURED = {
    "knn": "k-NN accuracy",
    "alignment": "alignment",
    "uniformity": "uniformity",
    "wasserstein_uniformity": "Wasserstein uniformity",
    "effective_rank": "effective rank",
}


def save_similarity_picture(
    path: Path,
    counts: np.ndarray | None,
    rows: Sequence[Mapping[str, Any]],
    training_set: Sequence[metrics.SimilarityDistribution] | None,
    *,
    optimum: Mapping[str, float],
    title: str,
) -> None:
    """Draw the similarity distributions of each kind of pair, in three columns.

    The rows show the distribution over the steps, at the first and the last step, and over the training set. A last row
    shows what was measured of the encoder while it trained.

    Args:
      path: the file to write; its suffix sets the format. An existing file is replaced atomically.
      counts: [steps, 3, num_bins], the histograms that `StepLog` wrote; None leaves their rows out.
      rows: the rows of metrics.jsonl, one for each step.
      training_set: the distributions over the training set under the untrained and the trained encoder; None leaves
        their row out.
      optimum: the values that theory predicts, from `logs.compute_optimum`.
      title: the title of the picture, which identifies the run.
    """
    from matplotlib.figure import Figure  # imported here because the import takes half a second
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    measured = [row for row in rows if any(name.startswith(logs.MONITORED) for name in row)]
    num_rows = 2 * (counts is not None) + (training_set is not None) + bool(measured)
    layout = ConstrainedLayoutEngine(w_pad=0.12)  # inches, so that the labels of two panels stay apart
    figure = Figure(figsize=(12.5, 3.3 * max(num_rows, 1) + 0.3), dpi=150, layout=layout)
    figure.suptitle(title, fontsize=11, parse_math=False)  # a path may contain a $
    panels = figure.subplots(max(num_rows, 1), 3, squeeze=False)
    for k, kind in enumerate(logs.KINDS):
        panels[0, k].set_title(_TITLES[kind])
        if counts is not None:
            image = _draw_history(panels[0, k], kind, counts[:, k], rows)
            _draw_ends(panels[1, k], kind, counts[:, k], rows)
        if training_set is not None:
            axes = panels[2 * (counts is not None), k]
            _draw_training_set(axes, kind, [getattr(each, kind) for each in training_set], optimum)
    if counts is not None:
        figure.colorbar(image, ax=list(panels[0]), label="share of pairs in a bin,\nrelative to the step's fullest")
        panels[0, 0].set_ylabel("cosine similarity")
        panels[1, 0].set_ylabel("within contrast sets:\ndensity of pairs")
    if training_set is not None:
        label = f"over {training_set[0].positive.count} training images:\ndensity of pairs"
        panels[2 * (counts is not None), 0].set_ylabel(label)
    if measured:
        _draw_measured(panels[-1], measured)
    with files.replace_atomically(path) as temporary:
        figure.savefig(temporary)


def _draw_history(axes: Any, kind: str, counts: np.ndarray, rows: Sequence[Mapping[str, Any]]) -> Any:
    steps = len(counts)
    # Sum neighbouring steps to keep the columns of a long run legible.
    starts = np.unique(np.linspace(0, steps, min(steps, _MAX_COLUMNS), endpoint=False).astype(int))
    columns = np.add.reduceat(counts.astype(np.float64), starts, axis=0)
    columns /= np.maximum(columns.max(axis=1, keepdims=True), 1)
    times = np.append(starts, steps)
    image = axes.pcolormesh(
        times, metrics.similarity_edges(counts.shape[1]), columns.T, cmap="Greys", vmin=0, vmax=1, rasterized=True
    )
    x = np.arange(steps) + 0.5
    axes.plot(x, [row[f"{kind}_mean"] for row in rows], color=_AFTER, linewidth=1.5, label="mean")
    for values, style, label in _find_theory_lines(kind, rows):
        axes.plot(x, values, style, color=_THEORY, linewidth=1.2, label=label)
    axes.set(xlabel="step", ylim=(-1.02, 1.02), xlim=(0, steps))
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(loc="lower right", fontsize=7, framealpha=0.9)
    return image


def _find_theory_lines(kind: str, rows: Sequence[Mapping[str, Any]]) -> list[tuple[Any, str, str]]:
    """The lines that theory predicts for a kind of pair: (values [rows], line style, label)."""
    if kind == "positive":
        bound = np.minimum([row["theory_positive_bound"] for row in rows], 1)
        return [(bound, "--", "greatest possible mean (Thm 5.2)")]
    return [([row["theory_contrast_set_negative"] for row in rows], "--", r"optimum $-1/(m-1)$")]


def _draw_ends(axes: Any, kind: str, counts: np.ndarray, rows: Sequence[Mapping[str, Any]]) -> None:
    last = len(counts) - 1
    for step, name, color in ((0, "first step", _BEFORE), (last, "last step", _AFTER)):
        mean, variance = rows[step][f"{kind}_mean"], rows[step][f"{kind}_variance"]
        _draw_density(axes, counts[step], mean, variance, name=f"{name} ({step})", color=color)
    for values, style, label in _find_theory_lines(kind, rows[-1:]):
        axes.axvline(values[0], linestyle=style, color=_THEORY, linewidth=1.2, label=label)
    _finish_densities(axes)


def _draw_training_set(
    axes: Any, kind: str, distributions: Sequence[metrics.PairSimilarities], optimum: Mapping[str, float]
) -> None:
    for pairs, name, color in zip(distributions, ("untrained", "trained"), (_BEFORE, _AFTER), strict=True):
        _draw_density(axes, pairs.counts, pairs.mean, pairs.variance, name=name, color=color)
    value, label = 1.0, "optimum 1 (Thm 5.1)"
    if kind != "positive":
        value, label = optimum["theory_full_batch_negative"], r"optimum $-1/(n-1)$ (Thm 5.1)"
    axes.axvline(value, linestyle="--", color=_THEORY, linewidth=1.2, label=label)
    if kind == "cross_view":
        least, greatest = optimum["theory_variance_least"], optimum["theory_variance_greatest"]
        axes.plot([], [], " ", label=f"optimal variance (Thm 5.5):\n{least:.2g} to {greatest:.2g}")
    _finish_densities(axes)


def _draw_measured(panels: Sequence[Any], rows: Sequence[Mapping[str, Any]]) -> None:
    """What was measured of the encoder every few epochs, two numbers a panel at most."""
    names = [name for name in _MEASURED if logs.MONITORED + name in rows[0]]
    steps = [row["step"] + 1 for row in rows]
    groups = [names[:1], names[1:3], names[3:]]
    for left, group in zip(panels, groups, strict=True):
        sides = (left, left.twinx()) if len(group) > 1 else (left,)
        for axes, name, color in zip(sides, group, (_AFTER, _THEORY), strict=False):
            values = [row[logs.MONITORED + name] for row in rows]
            axes.plot(steps, values, color=color, linewidth=1.5, marker=".", markersize=5, clip_on=False)
            axes.set_ylabel(_MEASURED[name], color=color)
            axes.tick_params(axis="y", labelcolor=color)
        left.set(xlabel="step", xlim=(0, max(steps)))
        left.xaxis.get_major_locator().set_params(integer=True)
    panels[1].set_title("Measured while it trained, on a sample of the test images", fontsize=10)


def describe(config: ConfigDict, *, contrast_size: int, num_instances: int) -> str:
    """What identifies a run in a line, for titles."""
    return f"{config.loss.name} on {config.data.source}, m = {contrast_size}, n = {num_instances}"


def _draw_density(
    axes: Any, counts: np.ndarray, mean: float | jax.Array, variance: float | jax.Array, *, name: str, color: str
) -> None:
    edges = metrics.similarity_edges(len(counts))
    density = counts / max(counts.sum(), 1) / np.diff(edges)
    axes.stairs(density, edges, fill=True, alpha=0.45, color=color)
    axes.stairs(density, edges, color=color, linewidth=1.2, label=f"{name}: mean {mean:.3f}, var. {variance:.4f}")


def _finish_densities(axes: Any) -> None:
    axes.set(xlabel="cosine similarity", xlim=(-1.02, 1.02), ylim=(0, axes.get_ylim()[1] * 1.35))
    axes.legend(loc="upper left", fontsize=6.5, framealpha=0.9)
