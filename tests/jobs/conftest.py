"""Optax's schedules rely on implicit promotion, so training is tested without the strict rule of the pure modules."""

import jax
import pytest

from tests.jobs import support


@pytest.fixture(scope="module", autouse=True)
def without_pictures():
    """Tests of pictures draw them: `with support.drawing(True):`."""
    with support.drawing(False):
        yield


@pytest.fixture(autouse=True)
def standard_promotion():
    with jax.numpy_dtype_promotion("standard"):
        yield
