"""How the similarities moved: the picture that a run leaves."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from contrastive_jax import files, metrics
from contrastive_jax.training import logs

_TITLES = {
    "positive": "Positive pairs",
    "cross_view": "Cross-view negatives",
    "within_view": "Within-view negatives",
}
_MAX_COLUMNS = 400


def save_similarity_picture(path: Path, counts: np.ndarray, rows: Sequence[Mapping[str, Any]], *, title: str) -> None:
    """Draw the three distributions over the steps, with the theory's lines, and the first and last step side by side.

    Args:
      path: the file; its suffix names the format; replaced whole or not at all.
      counts: [steps, 3, num_bins], as `similarity.npz` holds them.
      rows: the rows of metrics.jsonl, one a step.
      title: what run this is.
    """
    from matplotlib.figure import Figure  # imported here because it takes half a second

    figure = Figure(figsize=(11, 6.5), dpi=150, layout="constrained")
    figure.suptitle(title, fontsize=11)
    panels = figure.subplots(2, 3)
    for k, kind in enumerate(logs.KINDS):
        image = _draw_history(panels[0, k], kind, counts[:, k], rows)
        _draw_ends(panels[1, k], kind, counts[:, k], rows)
    figure.colorbar(image, ax=list(panels[0]), label="share of pairs in a bin,\nrelative to the step's fullest")
    panels[0, 0].set_ylabel("cosine similarity")
    panels[1, 0].set_ylabel("density of pairs")
    with files.replacing(path) as temporary:
        figure.savefig(temporary)


def _draw_history(axes, kind, counts, rows):
    steps = len(counts)
    # Sum neighbouring steps, so that a long run still has a legible number of columns.
    starts = np.unique(np.linspace(0, steps, min(steps, _MAX_COLUMNS), endpoint=False).astype(int))
    columns = np.add.reduceat(counts.astype(np.float64), starts, axis=0)
    columns /= np.maximum(columns.max(axis=1, keepdims=True), 1)
    times = np.append(starts, steps)
    image = axes.pcolormesh(
        times, metrics.similarity_edges(counts.shape[1]), columns.T, cmap="Greys", vmin=0, vmax=1, rasterized=True
    )
    x = np.arange(steps) + 0.5
    axes.plot(x, [row[f"{kind}_mean"] for row in rows], color="#0072B2", linewidth=1.5, label="mean")
    for values, style, label in _theory_lines(kind, rows):
        axes.plot(x, values, style, color="#D55E00", linewidth=1.2, label=label)
    axes.set(title=_TITLES[kind], xlabel="step", ylim=(-1.02, 1.02), xlim=(0, steps))
    axes.legend(loc="lower right", fontsize=7, framealpha=0.9)
    return image


def _theory_lines(kind, rows):
    if kind == "positive":
        bound = np.minimum([row["theory_positive_bound"] for row in rows], 1)
        return [(bound, "--", "greatest possible mean (Thm 5.2)")]
    return [([row["theory_contrast_set_negative"] for row in rows], "--", r"optimum $-1/(m-1)$")]


def _draw_ends(axes, kind, counts, rows):
    edges = metrics.similarity_edges(counts.shape[1])
    for step, color, label in ((0, "#999999", "first step"), (len(counts) - 1, "#0072B2", "last step")):
        density = counts[step] / max(counts[step].sum(), 1) / np.diff(edges)
        axes.stairs(density, edges, fill=True, alpha=0.45, color=color)
        mean, variance = rows[step][f"{kind}_mean"], rows[step][f"{kind}_variance"]
        label = f"{label} ({step}): mean {mean:.3f}, var. {variance:.4f}"
        axes.stairs(density, edges, color=color, linewidth=1.2, label=label)
    for values, style, label in _theory_lines(kind, rows[-1:]):
        axes.axvline(values[0], linestyle=style, color="#D55E00", linewidth=1.2, label=label)
    axes.set(xlabel="cosine similarity", xlim=(-1.02, 1.02), ylim=(0, axes.get_ylim()[1] * 1.35))
    axes.legend(loc="upper left", fontsize=6.5, framealpha=0.9)
