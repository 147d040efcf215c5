"""A network small enough to compile for every number of devices, with every kind of layer."""

import functools

import pytest

from contrastive_jax.models import ResNet


@pytest.fixture
def tiny():
    """A ResNet of two basic blocks: one plain, one strided with a projected shortcut."""
    return functools.partial(ResNet, "basic", (1, 1))
