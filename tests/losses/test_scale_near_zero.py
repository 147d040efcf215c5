"""A scale, or a temperature, that is learnt through its logarithm, however far it strays: no NaN."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from contrastive_jax import losses, pairwise
from tests.losses.table import ROWS
from tests.losses.test_values import batch
from tests.mappings import AXIS, MAPPINGS

M, D = 8, 5
LEARNT = {name: row for name, row in ROWS.items() if row.kwargs.keys() & {"temperature", "scale"}}


def mean(row, implementation, axis_name=None):
    def fn(log_scale, u, v, *arrays):
        scale = pairwise.finite_exp(-log_scale if "temperature" in row.kwargs else log_scale)
        learnt = {"temperature" if "temperature" in row.kwargs else "scale": scale}
        options = {"implementation": implementation, "axis_name": axis_name, **row.kwargs, **row.form, **learnt}
        value = row.fn(u, v, **dict(zip(row.arrays(M), arrays, strict=True)), **options).mean()
        return value if axis_name is None else jax.lax.pmean(value, axis_name)

    return fn


FORMS = ("dcl_weighted", "dhel_sum", "dhel_one_sided")  # they reduce as `dcl` and `dhel_mean` do


@pytest.mark.parametrize(
    ("name", "implementation"),
    [(name, "dense") for name in LEARNT]
    + [
        pytest.param(name, implementation, marks=pytest.mark.slow)
        for name, row in LEARNT.items()
        for implementation in ("blockwise", "ring")
        if not row.variant and name not in FORMS
    ],
)
def test_the_gradient_is_zero_to_rounding(name, implementation):
    row = LEARNT[name]
    arrays = [*batch(M, D), *(jnp.asarray(x) for x in row.arrays(M).values())]
    fn = mean(row, implementation)
    if implementation == "ring":
        mapped = mean(row, implementation, AXIS)

        def fn(log_scale, *arrays):
            call = MAPPINGS["shard_map"](functools.partial(mapped, log_scale), 2)
            return call(*arrays, out=PartitionSpec())

    value_and_grads = jax.jit(jax.value_and_grad(fn, argnums=(0, 1, 2)))
    want = mean(row, "dense")(jnp.float32(-40), *arrays)  # the scale is 4e-18: its limit, to rounding
    for log_scale in (-80, -86, -88, -104, -1e4, -np.inf):
        value, grads = value_and_grads(jnp.float32(log_scale), *arrays)
        np.testing.assert_allclose(value, want, rtol=1e-6)
        for grad in grads:
            np.testing.assert_allclose(grad, 0, atol=1e-30)


@pytest.mark.parametrize("implementation", [pytest.param("dense", marks=pytest.mark.slow), "blockwise"])
@pytest.mark.parametrize("name", [name for name in LEARNT if "temperature" in LEARNT[name].kwargs])
def test_an_infinite_temperature_has_a_gradient_of_zero(name, implementation):
    row = LEARNT[name]
    u, v = batch(M, D)

    @jax.jit
    @jax.grad
    def gradient(temperature):
        given = {**row.arrays(M), **row.kwargs, **row.form, "temperature": temperature}
        return row.fn(u, v, implementation=implementation, **given).mean()

    for temperature in (1e30, 3e38, jnp.exp(104.0)):
        np.testing.assert_allclose(gradient(jnp.float32(temperature)), 0, atol=1e-30)


def test_finite_exp():
    x = jnp.array([-np.inf, -104, -86.5, -85, -1, 1, 85, 86.5, 104, np.inf])
    y, gradient = jax.vmap(jax.value_and_grad(pairwise.finite_exp))(x)
    inside = np.abs(x) < 86
    np.testing.assert_allclose(y, np.exp(np.clip(np.asarray(x, np.float64), -86, 86)), rtol=1e-5)
    np.testing.assert_allclose(gradient, np.where(inside, y, 0), rtol=1e-6)
    np.testing.assert_allclose(y * y[::-1], 1, rtol=1e-5)
    assert np.isnan(pairwise.finite_exp(jnp.nan))


def test_a_learnt_scale_comes_back_from_where_it_still_counts():
    """Its gradient is the true one as long as a float holds it."""
    u, v = batch(M, D)

    def loss(log_scale):
        return losses.info_nce(u, v, temperature=pairwise.finite_exp(-log_scale)).mean()

    step = 1e-3
    for log_scale in (-4.0, 0.0, 3.0):
        want = (loss(log_scale + step) - loss(log_scale - step)) / (2 * step)
        np.testing.assert_allclose(jax.grad(loss)(log_scale), want, rtol=2e-2, atol=1e-3)
