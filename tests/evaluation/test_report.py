"""The tables as they are printed."""

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
