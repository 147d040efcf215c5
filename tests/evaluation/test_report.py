"""The scores of a representation, and the tables as they are printed."""

import numpy as np

from contrastive_jax import evaluation


def test_geometry():
    rows = {"trained encoder": evaluation.Geometry(360, 0.25, -3.0, 0.125, 9.5, 16)}
    assert evaluation.format_geometry(rows).splitlines() == [
        "| projections of 360 test images | alignment | uniformity | Wasserstein unif. | effective rank | rank |",
        "|---|---:|---:|---:|---:|---:|",
        "| trained encoder | 0.2500 | -3.0000 | 0.1250 | 9.50 | 16 |",
    ]


def test_similarities_beside_the_theory():
    rows = {"in batch, last step": evaluation.Similarities(64, 0.9, -0.01, 0.05)}
    table = evaluation.format_similarities(rows, negative_optimum=-0.001, variance_bounds=(1e-5, 0.01))
    assert table.splitlines() == [
        "| similarities | pairs | s_pos mean | s_neg mean (cross-view) | s_neg variance (cross-view) |",
        "|---|---:|---:|---:|---:|",
        "| in batch, last step | 64 | 0.9000 | -0.0100 | 0.05 |",
        "| optimum (Theorems 5.1, 5.5) | | 1 | -0.0010 | 1e-05 to 0.01 |",
    ]


def test_scores_are_those_of_the_three_evaluations(digits):
    train, train_labels, test, test_labels = digits
    few_labels = {"num_classes": 10, "labels_per_class": 2, "draws": 2, "seed": 1}
    settings = evaluation.Settings(probe_epochs=3, knn_neighbours=5, **few_labels)
    batches = (
        [{"image": x[i : i + 600], "label": y[i : i + 600]} for i in range(0, len(x), 600)]
        for x, y in ((train, train_labels), (test, test_labels))
    )
    found = evaluation.score(np.sqrt, *batches, settings)
    data = np.sqrt(train), train_labels, np.sqrt(test), test_labels
    few = evaluation.few_label_probe(*data, **few_labels)
    assert found == evaluation.Scores(
        linear_probe=evaluation.linear_probe(*data, num_classes=10, epochs=3, seed=1).accuracy,
        knn=evaluation.knn(*data, num_classes=10, k=5),
        few_labels=few.accuracy,
        few_labels_std=few.standard_deviation,
    )


def test_scores():
    settings = evaluation.Settings(num_classes=10, knn_neighbours=20)
    assert evaluation.format_scores(
        {"raw pixels": evaluation.Scores(0.9, 0.95, 0.8, 0.0123)}, settings
    ).splitlines() == [
        "| representation | linear probe | 20-NN | probe, 5 labels/class (3 draws) |",
        "|---|---:|---:|---:|",
        "| raw pixels | 90.0 | 95.0 | 80.0 ± 1.2 |",
    ]
