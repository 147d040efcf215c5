"""Functions that a user passes to a loss may close over traced integers: dense's gradient in every implementation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from contrastive_jax import losses
from tests.losses.test_values import batch
from tests.mappings import AXIS, MAPPINGS

LOSSES = {
    "info_nce_based": lambda make: functools.partial(losses.info_nce_based, phi=make, psi=jnp.log1p),
    "independently_additive": lambda make: functools.partial(losses.independently_additive, phi=lambda x: x, psi=make),
    "kcl": lambda make: functools.partial(losses.kcl, kernel=lambda squared: make(-squared)),
}


def mean(name, u, v, step, **options):
    def switching(x):
        return jnp.exp(x / jnp.where(step < 5, 0.5, 0.2))

    return LOSSES[name](switching)(u, v, **options).mean()


def jit_inside(fn):
    return jax.grad(jax.jit(fn), argnums=(0, 1))


def jit_outside(fn):
    return jax.jit(jax.grad(fn, argnums=(0, 1)))


@pytest.mark.parametrize("order", [jit_inside, jit_outside])
@pytest.mark.parametrize("name", LOSSES)
def test_blockwise(name, order):
    u, v = batch(9, 4)
    for step in (jnp.int32(3), jnp.int32(7)):
        got = order(functools.partial(mean, name, implementation="blockwise"))(u, v, step)
        want = jit_outside(functools.partial(mean, name, implementation="dense"))(u, v, step)
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_ring(name):
    u, v = batch(8, 4)

    def on_devices(u, v, step):
        def local(u, v):
            return jax.lax.pmean(mean(name, u, v, step, implementation="ring", axis_name=AXIS), AXIS)

        return MAPPINGS["shard_map"](local, 2)(u, v, out=PartitionSpec())

    want = jit_outside(functools.partial(mean, name, implementation="dense"))(u, v, jnp.int32(3))
    np.testing.assert_allclose(jit_inside(on_devices)(u, v, jnp.int32(3)), want, rtol=1e-4, atol=1e-6)


def test_where_the_implementation_is_chosen():
    """1,100 pairs are more than dense is chosen for."""
    u, v = batch(1100, 4)
    got = jit_inside(functools.partial(mean, "info_nce_based"))(u, v, jnp.int32(3))
    want = jit_outside(functools.partial(mean, "info_nce_based", implementation="dense"))(u, v, jnp.int32(3))
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-7)
