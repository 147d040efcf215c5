"""Alignment, uniformity and ranks against the authors' values, plain NumPy, and the uniform law."""

import json
from pathlib import Path

import numpy as np
import pytest

from contrastive_jax import metrics, theory

AUTHORS = np.load(Path(__file__).parents[1] / "losses" / "authors_values.npz")
CASES = range(len(json.loads(str(AUTHORS["meta"]))))


def unit(n, d, seed=0):
    x = np.random.default_rng(seed).normal(size=(n, d))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def authors(case):
    u, v = (AUTHORS[f"c{case}/{name}"] for name in "uv")
    return [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (u, v)]


@pytest.mark.parametrize("case", CASES)
def test_authors_values(case):
    u, v = authors(case)
    want = {name: float(AUTHORS[f"c{case}/metric/{name}"]) for name in ("alignment[alpha=2]", "uniformity[t=2]")}
    assert metrics.alignment(u, v, alpha=2) == pytest.approx(want["alignment[alpha=2]"], rel=1e-10)
    assert metrics.uniformity(u, t=2) == pytest.approx(want["uniformity[t=2]"], rel=1e-5)
    assert metrics.effective_rank(u) == pytest.approx(float(AUTHORS[f"c{case}/metric/effective_rank"]), rel=1e-4)
    assert metrics.rank(u) == float(AUTHORS[f"c{case}/metric/rank"])


@pytest.mark.parametrize("n", [2, 5, 1030, 2048])
def test_blocks_leave_no_pair_out_and_count_none_twice(n):
    x = unit(n, 6)
    similarity = (x @ x.T)[~np.eye(n, dtype=bool)]
    want = np.log(np.mean(np.exp(-2 * (2 - 2 * similarity))))
    assert metrics.uniformity(x) == pytest.approx(want, rel=1e-4)
    grid = np.linspace(-1, 1, 100_001)
    empirical = np.searchsorted(np.sort(similarity), grid, side="right") / len(similarity)
    gap = np.abs(empirical - theory.similarity_distribution_function(grid, 6))
    assert metrics.wasserstein_uniformity(x) == pytest.approx(np.mean(gap) * 2, abs=1.5e-4)


@pytest.mark.parametrize("d", [16, 128, 512])
def test_uniform_points_are_uniform(d):
    x = unit(4000, d)
    assert metrics.wasserstein_uniformity(x) <= 0.002
    assert metrics.uniformity(x) == pytest.approx(np.log(theory.expected_gaussian_energy(2.0, d)), abs=0.01)


def test_collapsed_points_are_as_far_from_uniform_as_can_be():
    x = np.tile(unit(1, 8), (50, 1))
    assert metrics.wasserstein_uniformity(x) == pytest.approx(1, abs=2e-4)  # mean of 1 - s under the uniform law
    assert metrics.uniformity(x) == pytest.approx(0, abs=1e-5)
    assert metrics.effective_rank(x) == pytest.approx(1, abs=1e-3)
    assert metrics.rank(x) == 0


def test_uniformity_of_energies_below_the_smallest_float():
    assert metrics.uniformity(np.eye(2), t=60.0) == pytest.approx(-120)


def test_ranks_of_a_subspace():
    x = unit(200, 3) @ np.linalg.qr(np.random.default_rng(1).normal(size=(10, 10)))[0][:3]
    assert metrics.rank(x) == 3
    assert 2.9 < metrics.effective_rank(x) < 3.01
    assert metrics.effective_rank(x[:2]) <= 2


@pytest.mark.parametrize(
    "call",
    [
        lambda x: metrics.alignment(x, x),
        metrics.uniformity,
        metrics.wasserstein_uniformity,
        metrics.effective_rank,
        metrics.rank,
    ],
)
def test_bad_input(call):
    with pytest.raises(ValueError, match="expected unit-norm embeddings, got norms from 1 to 7;"):
        call(np.diag([1.0, 7.0]))
    with pytest.raises(ValueError, match=r"expected embeddings \[n >= 2, d\], got shape \(3,\)"):
        call(np.ones(3))
    with pytest.raises(ValueError, match="norms from nan to nan"):
        call(np.array([[1.0, 0.0], [np.nan, 0.0]]))
