"""The theorems, against configurations that attain them."""

import numpy as np
import pytest

from contrastive_jax import theory


def simplex(n):
    """n unit vectors at equal angles, [n, n]."""
    x = np.eye(n) - 1 / n
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def off_diagonal(similarities):
    return similarities[~np.eye(len(similarities), dtype=bool)]


@pytest.mark.parametrize("n", [2, 5, 64])
def test_negative_similarity_optimum_is_that_of_a_simplex(n):
    x = simplex(n)
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
def test_negative_variance_bounds_are_attained(n, m):
    least, greatest = theory.negative_variance_bounds(n, m)
    orthogonal = np.kron(np.eye(n // m), simplex(m))
    shared = np.kron(np.ones((n // m, 1)), simplex(m))
    np.testing.assert_allclose(np.var(off_diagonal(orthogonal @ orthogonal.T)), least, atol=1e-12)
    np.testing.assert_allclose(np.var(off_diagonal(shared @ shared.T)), greatest, atol=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: theory.negative_similarity_optimum(1), "n >= 2.*got 1"),
        (lambda: theory.positive_similarity_bound(0.0, 1), "n >= 2.*got 1"),
        (lambda: theory.positive_similarity_bound(0.0, 2, sharp=True), "n >= 3.*got 2"),
        (lambda: theory.negative_variance_bounds(8, 1), "m >= 2.*got 1"),
        (lambda: theory.negative_variance_bounds(7, 2), "multiple of m = 2.*n = 7"),
        (lambda: theory.negative_variance_bounds(2, 4), "multiple of m = 4.*n = 2"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
