"""The geometry of two views."""

import math

import numpy as np
import pytest

from contrastive_jax import evaluation, metrics


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


def test_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match=r"u and v are \[3, 2\] and \[4, 2\], want one shape"):
        evaluation.geometry(np.ones((3, 2)), np.ones((4, 2)))
