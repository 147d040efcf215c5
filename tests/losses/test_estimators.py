"""What the small-batch estimators are beyond one value a pair: their queue, keys and averages, and what carries a
gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax import losses
from tests.losses import oracles
from tests.losses.table import averages
from tests.mappings import AXIS, MAPPINGS

M, D, T = 8, 5, 0.2
U, V, KEYS_U, KEYS_V, QUEUE = np.asarray(jax.random.normal(jax.random.key(0), (5, M, D)))
AVERAGES = averages(M)["log_average"]
ARANGE = np.arange(M)


def value_and_grad(fn, *arrays):
    """The sum of fn's values, each weighed differently, and its gradient with respect to every array."""

    def weighed(*arrays):
        return jnp.vdot(fn(*arrays), jnp.arange(1, M + 1, dtype=arrays[0].dtype))

    return jax.jit(jax.value_and_grad(weighed, argnums=range(len(arrays))))(*arrays)


def test_an_empty_queue_leaves_info_nce():
    value, grads = value_and_grad(lambda u, v: losses.moco(u, v, jnp.zeros((0, D)), temperature=T), U, V)
    want, want_grads = value_and_grad(lambda u, v: losses.info_nce(u, v, temperature=T), U, V)
    assert value == want
    np.testing.assert_allclose(grads, want_grads, rtol=1e-5, atol=1e-5)


def test_queue_and_keys_carry_no_gradient():
    def fn(u, v, queue, *keys):
        return losses.moco(u, v, queue, keys=keys, temperature=T)

    _, (of_u, of_v, *rest) = value_and_grad(fn, U, V, QUEUE, KEYS_U, KEYS_V)
    assert min(np.linalg.norm(of_u, axis=1).min(), np.linalg.norm(of_v, axis=1).min()) > 1e-3
    for grad in rest:
        np.testing.assert_array_equal(grad, 0)


@pytest.mark.parametrize(("mapping", "devices"), [("shard_map", 1), ("shard_map", 4), ("pmap", 4)])
def test_moco_with_keys(mapping, devices):
    """The value is the oracle's, and the gradient reaches the anchors alone."""
    ids = np.array([0, 1, 2, 0, 4, 5, 6, 7], np.int32)
    queue, queue_ids = (jnp.asarray(x) for x in oracles.queue(D))

    def local(u, v, ids, *keys):
        options = {"ids": ids, "queue_ids": queue_ids, "axis_name": AXIS}
        return losses.moco(u, v, queue, keys=keys, temperature=T, **options)

    call = MAPPINGS[mapping](local, devices)
    weights, direction, step = np.arange(1.0, M + 1), np.random.default_rng(0).normal(size=(2, M, D)), 1e-5

    @jax.jit
    def values_and_grads(u, v):
        values, pull = jax.vjp(lambda *x: call(*x, ids, KEYS_U, KEYS_V), u, v)
        return values, jnp.stack(pull(jnp.asarray(weights, values.dtype)))

    values, grads = values_and_grads(U, V)
    np.testing.assert_allclose(values, oracles.moco(U, V, ids, T, (KEYS_U, KEYS_V)), rtol=1e-5)
    ends = [
        oracles.moco(*(np.stack([U, V]) + sign * step * direction), ids, T, (KEYS_U, KEYS_V)) @ weights
        for sign in (1, -1)
    ]
    assert np.vdot(grads, direction) == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-4)


def test_an_instance_is_told_from_its_past_by_its_id():
    fn = jax.jit(lambda ids, queue_ids: losses.moco(U, V, U, ids=ids, queue_ids=queue_ids, temperature=T))
    assert np.all(fn(ARANGE, ARANGE - M) > fn(ARANGE, ARANGE) + 0.1)
    np.testing.assert_array_equal(fn(0 * ARANGE, 0 * ARANGE), 0)


def sogclr_options(update_weight, ids=ARANGE):
    return {"temperature": T, "update_weight": update_weight, "ids": ids}


@pytest.mark.parametrize("update_weight", [0.3, 1.0])
def test_gradient_of_sogclr(update_weight, x64):
    """It is that of -s_ii / t + g_i / a_i, a_i fixed at its new value: central differences of the oracle's."""
    ids = np.array([0, 1, 2, 3, 4, 4, 6, 1])
    u, v = (np.asarray(x, np.float64) for x in (U, V))
    options = sogclr_options(update_weight, ids)
    direction = np.random.default_rng(0).normal(size=(2, M, D))
    with np.errstate(divide="ignore"):
        log_average = oracles.sogclr_averages(u, v, ids, AVERAGES, T, update_weight)

    def surrogate(u, v):
        positives = np.sum(oracles.unit(u) * oracles.unit(v), axis=1)
        values = np.exp(oracles.sogclr_means(u, v, ids, T) - log_average) - positives / T
        return values @ np.arange(1, M + 1)

    step = 1e-6
    want = (surrogate(*([u, v] + step * direction)) - surrogate(*([u, v] - step * direction))) / (2 * step)
    _, grads = value_and_grad(lambda u, v: losses.sogclr(u, v, jnp.asarray(AVERAGES), **options)[0], u, v)
    assert np.vdot(grads, direction) == pytest.approx(want, rel=1e-7)


def test_value_and_gradient_of_sogclr_are_each_others_for_update_weight_one(x64):
    def plain(u, v):
        u, v = (x / jnp.linalg.norm(x, axis=1, keepdims=True) for x in (u, v))
        of_others = jnp.where(jnp.eye(M) == 1, 0, sum(jnp.exp(a @ b.T / T) for a in (u, v) for b in (u, v)))
        return jnp.log(of_others.sum(1) / (4 * (M - 1))) - jnp.sum(u * v, axis=1) / T

    u, v = (np.asarray(x, np.float64) for x in (U, V))
    got = value_and_grad(lambda u, v: losses.sogclr(u, v, jnp.asarray(AVERAGES), **sogclr_options(1.0))[0], u, v)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9), got, value_and_grad(plain, u, v))


@pytest.mark.parametrize("temperature", [T, 0.005])
def test_averages_start_with_each_instance_and_stay_without_negatives(temperature):
    one_left_alone = np.zeros(M, np.int32)
    for ids in (ARANGE, np.array([0, 1, 2, 3, 4, 4, 6, 1]), one_left_alone):
        options = {"temperature": temperature, "update_weight": 0.3}
        got = jax.jit(lambda ids, options: losses.sogclr(U, V, AVERAGES, ids=ids, **options)[1])(ids, options)
        want = oracles.sogclr_averages(U, V, ids, AVERAGES, temperature, 0.3)
        np.testing.assert_allclose(got, want, rtol=1e-5)
    np.testing.assert_array_equal(got, AVERAGES.astype(np.float32))


@pytest.mark.parametrize("mapping", ["shard_map", "pmap"])
def test_averages_are_the_same_on_four_devices(mapping):
    def local(u, v, log_average):
        return losses.sogclr(u, v, log_average, temperature=T, update_weight=0.3, axis_name=AXIS)[1]

    got = jax.jit(MAPPINGS[mapping](local, 4))(U, V, AVERAGES.astype(np.float32))
    np.testing.assert_allclose(got, oracles.sogclr_averages(U, V, ARANGE, AVERAGES, T, 0.3), rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda u: losses.moco(u, u, u[0]), r"expected a queue of shape \[k, 5\].*float32 of \(5,\)"),
        (lambda u: losses.moco(u, u, u[:, :3]), r"queue of shape \[k, 5\].*\(8, 3\)"),
        (lambda u: losses.moco(u, u, u.astype(int)), "queue.*float dtype.*int32"),
        (lambda u: losses.moco(u, u, u, queue_ids=jnp.arange(M)), "expected ids with queue_ids, got None"),
        (lambda u: losses.moco(u, u, u, ids=jnp.arange(M), queue_ids=jnp.arange(3)), r"queue_ids.*\(8,\).*\(3,\)"),
        (lambda u: losses.moco(u, u, u, ids=jnp.arange(M), queue_ids=jnp.ones(M)), "queue_ids.*integers.*float32"),
        (lambda u: losses.moco(u, u, u, keys=(u[:3], u[:3])), r"keys of the embeddings' shape \(8, 5\).*\(3, 5\)"),
        (lambda u: losses.sogclr(u, u, u), r"log_average to be floats of shape \(8,\).*\(8, 5\)"),
        (lambda u: losses.sogclr(u, u, jnp.arange(M)), r"log_average to be floats.*int32"),
        (lambda u: losses.sogclr(u, u, u[:, 0], update_weight=0), r"update_weight in \(0, 1\].*got 0"),
        (lambda u: losses.sogclr(u, u, u[:, 0], update_weight=1.5), r"update_weight in \(0, 1\].*got 1.5"),
        (lambda u: losses.sogclr(u, u, u[:, 0], update_weight=u[:, 0]), r"scalar update_weight.*\(8,\)"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(call, U)
