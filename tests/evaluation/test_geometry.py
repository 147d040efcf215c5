"""The geometry of two views."""

import math

import numpy as np
import pytest

from contrastive_jax import evaluation, metrics
from contrastive_jax.errors import UsageError


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_each_number_is_that_of_the_metrics():
    u, v = np.random.default_rng(0).normal(size=(2, 20, 4)).astype(np.float32)
    found = evaluation.geometry(3 * u, v)
    assert found.pairs == 20
    assert found.alignment == pytest.approx(metrics.alignment(unit(u), unit(v)), rel=1e-5)
    for name in ("uniformity", "wasserstein_uniformity", "effective_rank", "rank"):
        assert getattr(found, name) == pytest.approx(getattr(metrics, name)(unit(u)), rel=1e-5)


def test_pairs_without_a_direction_are_left_out():
    u, v = np.random.default_rng(0).normal(size=(2, 20, 4))
    u[3], v[7] = 0, 0
    kept = np.delete(np.arange(20), [3, 7])
    assert evaluation.geometry(u, v) == pytest.approx(evaluation.geometry(u[kept], v[kept]), rel=1e-6)
    nothing = evaluation.geometry(np.zeros((5, 4)), v[:5])
    assert (nothing.pairs, nothing.rank) == (0, 0) and math.isnan(nothing.uniformity)


@pytest.mark.parametrize("scale", [1e-30, 1e19, 3e37])
def test_scale_does_not_count(scale):
    u, v = np.random.default_rng(0).uniform(-1, 1, size=(2, 20, 4)).astype(np.float32)
    assert evaluation.geometry(scale * u, scale * v) == pytest.approx(evaluation.geometry(u, v), rel=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"u": np.ones((3, 2))}, r"expected u and v of the same shape \[n, d\], got \[3, 2\] and \[4, 3\]"),
        ({"u": np.ones((4, 1)), "v": np.ones((4, 1))}, r"at least 2 dimensions, got u and v \[4, 1\]"),
        ({"u": np.where(np.arange(4) == 2, np.nan, 1.0)[:, None] * np.ones((1, 3))}, "embeddings u .* in row 2 of 4"),
        ({"v": np.full((4, 3), np.inf)}, "embeddings v .* NaN or infinity in rows 0, 1, 2, 3 of 4"),
    ],
)
def test_bad_embeddings_are_refused(change, message):
    with pytest.raises(UsageError, match=message):
        evaluation.geometry(**{"u": np.ones((4, 3)), "v": np.ones((4, 3))} | change)
