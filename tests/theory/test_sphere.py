"""The uniform law against sampling, quadrature and itself."""

import numpy as np
import pytest

from contrastive_jax import theory

GRID = np.linspace(-1, 1, 200_001)


@pytest.mark.parametrize("d", [3, 4, 16, 128])
def test_density_has_mass_one_mean_zero_and_variance_one_over_d(d):
    density = theory.similarity_density(GRID, d)
    step = GRID[1] - GRID[0]
    assert (density * step).sum() == pytest.approx(1, abs=1e-4)
    assert (density * GRID * step).sum() == pytest.approx(0, abs=1e-9)
    assert (density * GRID**2 * step).sum() == pytest.approx(1 / d, abs=1e-4)
    assert theory.similarity_density([-1.5, 2.0], d).tolist() == [0, 0]


@pytest.mark.parametrize("d", [2, 3, 16, 512])
def test_quantiles_invert_the_distribution_function(d):
    q = np.linspace(0, 1, 33)
    quantiles = theory.similarity_quantile(q, d)
    np.testing.assert_allclose(theory.similarity_distribution_function(quantiles, d), q, atol=1e-9)


def test_quantiles_are_those_of_random_points():
    x, y = np.random.default_rng(0).normal(size=(2, 200_000, 5))
    s = np.sum(x * y, 1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)
    q = np.array([0.01, 0.25, 0.5, 0.9])
    np.testing.assert_allclose(theory.similarity_quantile(q, 5), np.quantile(s, q), atol=0.01)


@pytest.mark.parametrize("d", [3, 16, 128])
@pytest.mark.parametrize("t", [0.0, 0.5, 2.0, 50.0])
def test_gaussian_energy_is_the_mean_over_the_law(t, d):
    step = GRID[1] - GRID[0]
    want = (theory.similarity_density(GRID, d) * np.exp(-t * (2 - 2 * GRID)) * step).sum()
    assert theory.expected_gaussian_energy(t, d) == pytest.approx(want, rel=1e-3)


def test_gaussian_energy_does_not_overflow():
    # On the sphere in three dimensions the energy is (1 - exp(-4t)) / 4t.
    assert theory.expected_gaussian_energy(2000.0, 3) == pytest.approx(1 / 8000, rel=1e-9)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: theory.similarity_density(0.0, 1), "d >= 2.*got 1"),
        (lambda: theory.similarity_quantile(1.5, 3), r"q in \[0, 1\]"),
        (lambda: theory.expected_gaussian_energy(-1.0, 3), "expected t >= 0, got -1"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
