"""How good several representations of a data set are, and how their embeddings lie, as Markdown tables."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax

from contrastive_jax.evaluation._features import extract
from contrastive_jax.evaluation._geometry import Geometry
from contrastive_jax.evaluation._knn import knn
from contrastive_jax.evaluation._linear_probe import few_label_probe, linear_probe


class Settings(NamedTuple):
    """How representations are evaluated."""

    num_classes: int
    probe_epochs: int = 200
    probe_learning_rate: float = 0.1
    knn_neighbours: int = 200
    knn_temperature: float = 0.07
    labels_per_class: int = 5
    draws: int = 3
    seed: int = 0


class Scores(NamedTuple):
    """Top-1 test accuracies of one representation, in [0, 1]."""

    linear_probe: float
    knn: float
    few_labels: float  # mean over draws
    few_labels_std: float  # over draws, population


class Similarities(NamedTuple):
    """Means of the similarities of some pairs; the negatives are the cross-view ones."""

    pairs: int
    positive_mean: float
    negative_mean: float
    negative_variance: float


def score(
    feature_fn: Callable[[Any], jax.Array],
    train_batches: Iterable[Mapping[str, Any]],
    test_batches: Iterable[Mapping[str, Any]],
    settings: Settings,
) -> Scores:
    """Score one representation: linear probe, nearest neighbours, and a probe on a few labels a class.

    Args:
      feature_fn: images [b, h, w, c] to features [b, f]; jit it.
      train_batches: the training images and labels, without augmentation; see `extract`.
      test_batches: the same of the test set.
      settings: of the three evaluations.

    Returns:
      `Scores`, Python floats.

    Raises:
      UsageError: features that are not finite, or a class with fewer than `settings.labels_per_class` training images.
    """
    data = (*extract(feature_fn, train_batches), *extract(feature_fn, test_batches))
    classes, seed = settings.num_classes, settings.seed
    probe = linear_probe(
        *data,
        num_classes=classes,
        learning_rate=settings.probe_learning_rate,
        epochs=settings.probe_epochs,
        seed=seed,
    )
    few = few_label_probe(
        *data, num_classes=classes, labels_per_class=settings.labels_per_class, draws=settings.draws, seed=seed
    )
    near = knn(*data, num_classes=classes, k=settings.knn_neighbours, temperature=settings.knn_temperature)
    return Scores(probe.accuracy, near, few.accuracy, few.standard_deviation)


def format_scores(scores: Mapping[str, Scores], settings: Settings) -> str:
    """The scores in per cent, as a Markdown table."""
    few = f"probe, {settings.labels_per_class} labels/class ({settings.draws} draws)"
    lines = [
        f"| representation | linear probe | {settings.knn_neighbours}-NN | {few} |",
        "|---|---:|---:|---:|",
    ]
    for name, row in scores.items():
        lines.append(
            f"| {name} | {100 * row.linear_probe:.1f} | {100 * row.knn:.1f} "
            f"| {100 * row.few_labels:.1f} ± {100 * row.few_labels_std:.1f} |"
        )
    return "\n".join(lines)


def format_geometry(rows: Mapping[str, Geometry]) -> str:
    """The geometry of each encoder's embeddings, as a Markdown table."""
    pairs = max(row.pairs for row in rows.values())
    lines = [
        f"| projections of {pairs} test images | alignment | uniformity | Wasserstein unif. | effective rank | rank |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, row in rows.items():
        lines.append(
            f"| {name} | {row.alignment:.4f} | {row.uniformity:.4f} | {row.wasserstein_uniformity:.4f} "
            f"| {row.effective_rank:.2f} | {row.rank} |"
        )
    return "\n".join(lines)


def format_similarities(
    rows: Mapping[str, Similarities], *, negative_optimum: float, variance_bounds: tuple[float, float]
) -> str:
    """Similarities as measured, beside the theory's, as a Markdown table.

    Args:
      rows: what was measured, by name.
      negative_optimum: every negative similarity at the full batch's optimum (Lee 2025, Theorem 5.1).
      variance_bounds: of the negatives' variance at the optimum of fixed contrast sets (Theorem 5.5).
    """
    lines = [
        "| similarities | pairs | s_pos mean | s_neg mean (cross-view) | s_neg variance (cross-view) |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, row in rows.items():
        negatives = f"{row.negative_mean:.4f} | {row.negative_variance:.3g}"
        lines.append(f"| {name} | {row.pairs} | {row.positive_mean:.4f} | {negatives} |")
    least, greatest = variance_bounds
    lines.append(f"| optimum (Theorems 5.1, 5.5) | | 1 | {negative_optimum:.4f} | {least:.3g} to {greatest:.3g} |")
    return "\n".join(lines)
