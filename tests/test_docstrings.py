"""The examples in the docstrings run and give what they show."""

import doctest
import importlib
import inspect
import pathlib
import pkgutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import contrastive_jax
from contrastive_jax import evaluation, losses, metrics, models, pairwise, theory
from contrastive_jax.losses import contract
from contrastive_jax.training import regime

MODULES = [m.name for m in pkgutil.walk_packages(contrastive_jax.__path__, "contrastive_jax.")]
ROOT = pathlib.Path(__file__).parents[1]
MODULES += [  # of the checkout; importing one that has no examples may need more
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in sorted((ROOT / "experiments").rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]
NAMES = {
    "jax": jax,
    "jnp": jnp,
    "np": np,
    "nnx": nnx,
    "contract": contract,
    "losses": losses,
    "evaluation": evaluation,
    "metrics": metrics,
    "models": models,
    "pairwise": pairwise,
    "regime": regime,
    "theory": theory,
}


class Finder(doctest.DocTestFinder):
    """Finds decorated functions as well, in the module that they were written in."""

    def _from_module(self, module, object):
        return super()._from_module(module, inspect.unwrap(object))


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    module = importlib.import_module(name)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    with jax.numpy_dtype_promotion("standard"):
        for test in Finder().find(module, extraglobs=NAMES):
            runner.run(test)
    assert runner.failures == 0


def test_examples_of_decorated_functions_are_found():
    names = {
        test.name.rsplit(".", 1)[1]
        for test in Finder().find(importlib.import_module("contrastive_jax.losses._softmax"))
    }
    assert {"info_nce", "simclr", "dcl", "dhel"} <= names
