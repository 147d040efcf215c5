"""The theorems, against configurations that attain them."""

import numpy as np
import pytest

from contrastive_jax import theory


def off_diagonal(similarities):
    return similarities[~np.eye(len(similarities), dtype=bool)]


def simplex(n):
    return theory.simplex(n, n)


@pytest.mark.parametrize(("n", "d"), [(2, 1), (5, 4), (5, 9), (64, 63)])
def test_simplex_has_unit_vectors_at_equal_angles(n, d):
    x = theory.simplex(n, d)
    assert x.shape == (n, d)
    np.testing.assert_allclose(np.linalg.norm(x, axis=1), 1, atol=1e-12)
    np.testing.assert_allclose(off_diagonal(x @ x.T), theory.negative_similarity_optimum(n), atol=1e-12)


def test_positive_similarity_bound_holds_and_is_attained():
    rng = np.random.default_rng(0)
    for n in (3, 8):
        for _ in range(20):
            u, v = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in rng.normal(size=(2, n, 4)))
            bound = theory.positive_similarity_bound(off_diagonal(u @ v.T).mean(), n)
            assert np.mean(np.sum(u * v, 1)) <= bound + 1e-12
        x = simplex(n)
        assert theory.positive_similarity_bound(off_diagonal(x @ x.T).mean(), n) == pytest.approx(1)


@pytest.mark.parametrize("n", [3, 4, 10])
@pytest.mark.parametrize("gap", [0.1, 0.6])
def test_sharp_positive_similarity_bound_is_attained_by_a_constant_gap(n, gap):
    """Negatives below the simplex: u - v constant, E[u + v] = 0. The paper's bound holds there, but is not met."""
    flat = np.concatenate([simplex(n), np.zeros((n, 1))], 1) * np.sqrt(1 - gap**2)
    up, down = flat + np.eye(n + 1)[n] * gap, flat - np.eye(n + 1)[n] * gap
    positive, negative = np.mean(np.sum(up * down, 1)), off_diagonal(up @ down.T).mean()
    assert positive == pytest.approx(theory.positive_similarity_bound(negative, n, sharp=True))
    assert positive < theory.positive_similarity_bound(negative, n) - 1e-3


@pytest.mark.parametrize(("n", "m"), [(4, 2), (12, 3), (20, 5), (6, 6)])
@pytest.mark.parametrize(("end", "which"), [(0, "least"), (1, "greatest")])
def test_negative_variance_bounds_are_attained(n, m, end, which):
    x = theory.construct_extreme_variance(n=n, m=m, d=n, which=which)
    assert x.shape == (n, n)
    similarities = off_diagonal(x @ x.T)
    assert np.var(similarities) == pytest.approx(theory.negative_variance_bounds(n, m)[end], abs=1e-12)
    assert similarities.mean() == pytest.approx(theory.negative_similarity_optimum(n))
    for batch in x.reshape(n // m, m, n):
        np.testing.assert_allclose(off_diagonal(batch @ batch.T), theory.negative_similarity_optimum(m), atol=1e-12)


@pytest.mark.parametrize(("which", "d"), [("least", 6), ("greatest", 2)])
def test_extreme_variance_fits_the_least_dimensions(which, d):
    assert theory.construct_extreme_variance(n=9, m=3, d=d, which=which).shape == (9, d)
    with pytest.raises(ValueError, match=f"d >= {d} dimensions.*got {d - 1}"):
        theory.construct_extreme_variance(n=9, m=3, d=d - 1, which=which)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: theory.negative_similarity_optimum(1), "n >= 2.*got 1"),
        (lambda: theory.positive_similarity_bound(0.0, 1), "n >= 2.*got 1"),
        (lambda: theory.positive_similarity_bound(0.0, 2, sharp=True), "n >= 3.*got 2"),
        (lambda: theory.negative_variance_bounds(8, 1), "m >= 2.*got 1"),
        (lambda: theory.negative_variance_bounds(7, 2), "multiple of m = 2.*n = 7"),
        (lambda: theory.negative_variance_bounds(2, 4), "multiple of m = 4.*n = 2"),
        (lambda: theory.simplex(1, 4), "n >= 2.*got 1"),
        (lambda: theory.simplex(4, 2), "expected d >= 3 dimensions for n = 4 vectors, got 2"),
        (lambda: theory.construct_extreme_variance(n=7, m=2, d=7, which="least"), "multiple of m = 2.*n = 7"),
        (lambda: theory.construct_extreme_variance(n=4, m=2, d=3, which="most"), "'least' or 'greatest', got 'most'"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
