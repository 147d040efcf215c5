"""A network small enough to compile for every number of devices, with every kind of layer."""

import pytest

from contrastive_jax.models import _resnet as resnet


@pytest.fixture
def tiny(monkeypatch):
    """The name of a ResNet of two basic blocks: one plain, one strided with a projected shortcut."""
    monkeypatch.setitem(resnet.VARIANTS, "tiny", (resnet.BasicBlock, (1, 1)))
    return "tiny"
