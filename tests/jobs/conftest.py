"""Optax's schedules rely on implicit promotion, so training is tested without the strict rule of the pure modules."""

import jax
import pytest


@pytest.fixture(autouse=True)
def standard_promotion():
    with jax.numpy_dtype_promotion("standard"):
        yield
