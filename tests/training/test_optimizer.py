"""Schedules and optimisers against their definitions."""

import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax.training import optimizer


def schedule(**overrides):
    options = {"update_size": 512, "steps_per_epoch": 10, "warmup_epochs": 2.0, "epochs": 12, "decay": "cosine"}
    return optimizer.learning_rate_schedule(0.3, **{**options, **overrides})


def test_warm_up_then_cosine_scaled_by_the_batch():
    rate = [float(schedule()(step)) for step in range(121)]
    peak = 0.3 * 512 / 256
    np.testing.assert_allclose(rate[:21], np.linspace(0, peak, 21), atol=1e-7)
    np.testing.assert_allclose(rate[20:], peak * (1 + np.cos(np.pi * np.arange(101) / 100)) / 2, atol=1e-6)


def test_constant_after_the_warm_up():
    assert float(schedule(decay="constant", warmup_epochs=0.0)(100)) == pytest.approx(0.6)


def updates(name, params, grads, steps=2, **overrides):
    options = {"weight_decay": 0.01, **overrides} | ({} if name == "adamw" else {"momentum": 0.9})
    tx = optimizer.OPTIMIZERS[name](lambda step: jnp.float32(0.1), **options)
    state = tx.init(params)
    for _ in range(steps):
        update, state = tx.update(grads, state, params)
    return update


@pytest.mark.parametrize("name", optimizer.OPTIMIZERS)
def test_scalars_are_neither_decayed_nor_adapted(name):
    scalars, gradient = {"log_scale": jnp.float32(2.0)}, {"log_scale": jnp.float32(0.5)}
    decayed, plain = (
        updates(name, PARAMS | scalars, GRADS | gradient, weight_decay=decay)["log_scale"] for decay in (10.0, 0.0)
    )
    np.testing.assert_array_equal(decayed, plain)
    want = -0.1 if name == "adamw" else -0.1 * 0.5 * (1 + 0.9)
    np.testing.assert_allclose(plain, want, rtol=1e-4)


PARAMS = {"kernel": jnp.full((2, 3), 2.0), "bias": jnp.full(3, 2.0)}
GRADS = {"kernel": jnp.full((2, 3), 0.5), "bias": jnp.full(3, 0.5)}


def test_sgd_is_that_of_the_papers():
    decayed = 0.5 + 0.01 * 2
    for update in updates("sgd", PARAMS, GRADS).values():
        np.testing.assert_allclose(update, -0.1 * (decayed + 0.9 * decayed), rtol=1e-6)


def test_lars_adapts_and_decays_matrices_alone():
    first = updates("lars", PARAMS, GRADS, steps=1)
    np.testing.assert_allclose(first["bias"], -0.1 * 0.5, rtol=1e-6)
    gradient = 0.5 + 0.01 * 2
    trust = 0.001 * np.sqrt(6 * 4) / np.sqrt(6 * gradient**2)
    np.testing.assert_allclose(first["kernel"], -0.1 * trust * gradient, rtol=1e-3)


def test_adamw_decays_matrices_alone():
    update = updates("adamw", PARAMS, GRADS, steps=1)
    np.testing.assert_allclose(update["bias"], -0.1, rtol=1e-4)
    np.testing.assert_allclose(update["kernel"], -0.1 - 0.1 * 0.01 * 2, rtol=1e-4)
