"""Moments of the negatives without their similarities: those of the distribution, for any number of rows."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from contrastive_jax import metrics
from tests.mappings import AXIS, MAPPINGS

M, D = 48, 6
IDS = {"none": None, "different": np.arange(M)[::-1].copy(), "paired": np.arange(M) // 2, "few": np.arange(M) % 5}


def pairs(kind="spread"):
    u, v = np.random.default_rng(0).normal(size=(2, M, D))
    center = {"spread": 0, "collapsed": 100}[kind]
    return (jnp.asarray(x + center, jnp.float32) for x in (u, v))


def expect(u, v, ids):
    u, v = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in np.asarray((u, v), np.float64))
    ids = np.arange(M) if ids is None else ids
    s = (u @ v.T)[ids[:, None] != ids]
    return s.size, s.mean(), s.var()


@pytest.mark.parametrize("ids", IDS.values(), ids=IDS.keys())
@pytest.mark.parametrize("kind", ["spread", "collapsed"])
def test_those_of_all_negatives(kind, ids):
    """Of collapsed embeddings, too, whose variance is 1e-7 of their mean: E[s^2] - E[s]^2 would lose it."""
    u, v = pairs(kind)
    found = jax.jit(lambda u, v: metrics.negative_moments(u, v, ids=ids))(u, v)
    number, mean, variance = expect(u, v, ids)
    assert found.number == number
    np.testing.assert_allclose(found.mean, mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.variance, variance, rtol=2e-3 if kind == "collapsed" else 1e-5, atol=1e-13)


@pytest.mark.parametrize("devices", [2, 8])
@pytest.mark.parametrize("mapped", MAPPINGS.values(), ids=MAPPINGS.keys())
def test_any_number_of_devices(mapped, devices):
    u, v = pairs()
    ids = jnp.asarray(IDS["paired"])
    fn = functools.partial(metrics.negative_moments, axis_name=AXIS)
    call = functools.partial(mapped(lambda u, v, ids: fn(u, v, ids=ids), devices), out=PartitionSpec())
    found = jax.jit(call)(u, v, ids)
    np.testing.assert_allclose(found, expect(u, v, IDS["paired"]), rtol=1e-5, atol=1e-6)


def test_without_negatives_and_with_nan():
    u = jnp.ones((1, 3))
    assert [float(x) for x in metrics.negative_moments(u, u)] == [0, 0, 0]
    found = metrics.negative_moments(jnp.ones((3, 2)).at[0, 0].set(jnp.nan), jnp.ones((3, 2)))
    assert np.isnan(found.mean) and np.isnan(found.variance)
    with pytest.raises(ValueError, match=r"metrics.negative_moments: expected u and v of the same shape \[m, d\], got"):
        metrics.negative_moments(u, u[:, :2])


def test_moments_of_several_sets_merge():
    u, v = (x.reshape(4, M // 4, D) for x in pairs())
    found = metrics.merge_negative_moments(jax.vmap(metrics.negative_moments)(u, v))
    u, v = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in np.asarray((u, v), np.float64))
    s = np.einsum("kid,kjd->kij", u, v)[:, ~np.eye(M // 4, dtype=bool)]
    np.testing.assert_allclose(found, (s.size, s.mean(), s.var()), rtol=1e-5, atol=1e-6)
