"""Excessive separation: the general condition against SigLIP's own, in both signs of the bias."""

import jax
import numpy as np
import pytest

from contrastive_jax import theory


@pytest.mark.parametrize("n", [2, 3, 8, 512])
def test_siglip_condition_is_the_general_one(n):
    rng = np.random.default_rng(0)
    for scale, bias in zip(rng.uniform(0.1, 20, 20), rng.uniform(-15, 15, 20), strict=True):
        general = theory.excessive_separation(
            lambda x, a=scale, b=bias: -jax.nn.softplus(-a * x - b),
            lambda x, a=scale, b=bias: (n - 1) * jax.nn.softplus(a * x + b),
            n,
        )
        assert general == theory.siglip_separates_excessively(scale=scale, bias=bias, n=n)


@pytest.mark.parametrize("n", [3, 16, 100])
def test_siglip_condition_is_equation_10_in_the_papers_sign(n):
    t, b = np.meshgrid(np.linspace(0.5, 12, 20), np.linspace(-9, 9, 21))
    paper = (1 + np.exp(t / (n - 1) + b)) / (1 + np.exp(t - b)) < (n - 2) / 2
    ours = theory.siglip_separates_excessively(scale=t, bias=-b, n=n)
    assert ours.shape == t.shape
    assert 0 < ours.sum() < ours.size
    np.testing.assert_array_equal(ours, paper)


def test_two_instances_never_separate_excessively_and_nothing_overflows():
    assert theory.siglip_separates_excessively(scale=5.0, bias=100.0, n=2) is False
    assert theory.siglip_separates_excessively(scale=1e4, bias=0.0, n=8) is True


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: theory.excessive_separation(lambda x: x, lambda x: x, 1), "n >= 2.*got 1"),
        (lambda: theory.siglip_separates_excessively(scale=1.0, bias=0.0, n=1), "n >= 2.*got 1"),
        (lambda: theory.siglip_separates_excessively(scale=-1.0, bias=0.0, n=4), "expected scale > 0, got -1"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
