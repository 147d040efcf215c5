"""The examples in the docstrings run and give what they show."""

import doctest
import importlib
import pkgutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import contrastive_jax
from contrastive_jax import losses, metrics, pairwise, theory
from contrastive_jax.losses import contract
from contrastive_jax.training import regime

MODULES = [m.name for m in pkgutil.walk_packages(contrastive_jax.__path__, "contrastive_jax.")]
NAMES = {
    "jax": jax,
    "jnp": jnp,
    "np": np,
    "nnx": nnx,
    "contract": contract,
    "losses": losses,
    "metrics": metrics,
    "pairwise": pairwise,
    "regime": regime,
    "theory": theory,
}


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    module = importlib.import_module(name)
    with jax.numpy_dtype_promotion("standard"):
        result = doctest.testmod(module, extraglobs=NAMES, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0
