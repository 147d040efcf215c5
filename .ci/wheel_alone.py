"""End with an error unless the installed package works without its extras, and names the one that a part needs."""

import importlib.util
import sys

import jax

import contrastive_jax
from contrastive_jax.errors import MissingExtraError

assert "site-packages" in contrastive_jax.__file__, contrastive_jax.__file__
assert importlib.util.find_spec("flax") is None

u, v = jax.random.normal(jax.random.key(0), (2, 16, 8))
value, gradient = jax.value_and_grad(lambda u: contrastive_jax.losses.dhel(u, v, temperature=0.2).mean())(u)
assert jax.numpy.isfinite(value) and jax.numpy.isfinite(gradient).all()
for name in ("metrics", "pairwise", "spmd", "theory"):
    getattr(contrastive_jax, name)

for name in ("models", "training"):
    try:
        getattr(contrastive_jax, name)
    except MissingExtraError as error:
        assert 'pip install "contrastive_jax[train]"' in str(error), error
    else:
        sys.exit(f"contrastive_jax.{name} was imported without its extra")
print("the wheel works alone")
