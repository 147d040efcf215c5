"""What rounded products cost is within the bounds that the documentation states."""

import hypothesis
import pytest
from hypothesis import strategies as st

from contrastive_jax import jax_versions, pairwise
from experiments.studies import precision

BOUNDED = [(name, x) for name in precision.LOSSES for x in precision.ROUNDINGS]


@pytest.mark.parametrize("name", precision.LOSSES)
@hypothesis.given(
    kind=st.sampled_from(list(precision.EMBEDDINGS)),
    t=st.sampled_from(precision.TEMPERATURES) | st.floats(0.05, 0.5),
    seed=st.integers(0, 2**32 - 1),
)
def test_errors_are_within_the_bounds(name, kind, t, seed):
    with jax_versions.enable_x64():
        errors = precision.measure(name, *precision.draw(precision.EMBEDDINGS[kind], 64, 32, seed), t)
    for arithmetic, bound in precision.BOUNDS.items():
        if precision.is_bounded(name, kind, arithmetic):
            assert errors[arithmetic].value <= bound.value
            assert errors[arithmetic].gradient <= bound.gradient


def test_less_precision_costs_more_and_none_is_free():
    with jax_versions.enable_x64():
        errors = precision.measure("simclr", *precision.draw(precision.EMBEDDINGS["clustered"], 64, 32, 0), 0.2)
    gradients = [errors[x].gradient for x in ("bf16x3", "TF32", "bf16")]
    assert 2e-7 < gradients[0] < gradients[1] / 10 < gradients[2] / 20


def test_the_bounds_are_those_of_the_documentation():
    text = pairwise.similarities.__doc__
    for bound in precision.BOUNDS.values():
        assert f"{bound.value:.0e}    {bound.gradient:.0e}" in text
