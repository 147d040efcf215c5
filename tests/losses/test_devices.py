"""The contract across devices: the `pmean` of each device's mean is the loss of the whole batch, gradient included."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from contrastive_jax import losses
from tests.losses.table import ROWS
from tests.mappings import AXIS, MAPPINGS

M, D = 16, 6
IDS = np.array([0, 1, 2, 3, 4, 5, 6, 7, 0, 9, 10, 11, 3, 13, 14, 13], np.int32)  # equal ids on different devices

every_mapping = pytest.mark.parametrize("mapped", MAPPINGS.values(), ids=MAPPINGS.keys())


def batch(row=None):
    """u, v, ids, and what else the loss of the row takes for each pair."""
    images = jax.random.normal(jax.random.key(0), (2, M, D))
    return (*images, jnp.asarray(IDS), *(jnp.asarray(x) for x in (row.arrays(M) if row else {}).values()))


def forms():
    """Every loss under `shard_map` on all its numbers of devices, under the other mappings on one each, in turn.

    What a mapping does on so many devices is the engine's, so each pair of them is met by some losses.
    """
    others = [name for name in MAPPINGS if name != "shard_map"]
    for k, (name, row) in enumerate(ROWS.items()):
        yield from ((name, "shard_map", n) for n in row.devices)
        for i, mapping in enumerate(others):
            if mapping in row.mappings:
                yield name, mapping, row.devices[(k + i) % len(row.devices)]


def forms_of_parameters():
    """Every loss under `shard_map` and under one other mapping, in turn."""
    names = [name for name, row in ROWS.items() if not row.variant]
    others = [name for name in MAPPINGS if name != "shard_map"]
    return [(name, mapping) for k, name in enumerate(names) for mapping in ("shard_map", others[k % len(others)])]


def local_loss(row, axis_name, weights=None):
    def fn(u, v, ids, *arrays):
        u, v = (u, v) if weights is None else (u @ weights, jnp.tanh(v @ weights))
        arrays = dict(zip(row.arrays(M), arrays, strict=True))
        values = row.fn(u, v, ids=ids, axis_name=axis_name, **arrays, **row.kwargs, **row.form)
        return values.mean() if axis_name is None else jax.lax.pmean(values.mean(), axis_name)

    return fn


@functools.cache
def single_device(name):
    """Value and gradients of the whole batch on one device."""
    return jax.jit(jax.value_and_grad(local_loss(ROWS[name], None), argnums=(0, 1)))(*batch(ROWS[name]))


@pytest.mark.parametrize(("name", "mapping", "devices"), forms())
def test_loss_and_embedding_gradients_equal_the_single_device_ones(name, mapping, devices):
    u, v, *arrays = batch(ROWS[name])
    call = MAPPINGS[mapping](local_loss(ROWS[name], AXIS), devices)

    @jax.jit
    def value_and_grad(u, v):
        return jax.value_and_grad(lambda u, v: call(u, v, *arrays, out=PartitionSpec()), argnums=(0, 1))(u, v)

    value, grads = value_and_grad(u, v)
    want, want_grads = single_device(name)
    np.testing.assert_allclose(value, want, rtol=1e-5)
    for got, expected in zip(grads, want_grads, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)


def parameters():
    return jax.random.normal(jax.random.key(1), (D, D))


@functools.cache
def single_device_gradient_of_parameters(name):
    return jax.jit(jax.grad(lambda w: local_loss(ROWS[name], None, w)(*batch(ROWS[name]))))(parameters())


@pytest.mark.parametrize(("name", "mapping"), forms_of_parameters())
def test_gradient_of_replicated_parameters(name, mapping):
    """Trap 4: `pmean(grad(pmean(loss)))`, taken on each device, is exact under every mapping."""
    weights = parameters()

    def per_device(*local):
        grads = jax.grad(lambda w: local_loss(ROWS[name], AXIS, w)(*local))(weights)
        return jax.lax.pmean(grads, AXIS)

    got = jax.jit(lambda *a: MAPPINGS[mapping](per_device, 4)(*a, out=PartitionSpec()))(*batch(ROWS[name]))
    np.testing.assert_allclose(got, single_device_gradient_of_parameters(name), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("devices", [1, 2, 4, 8])
@every_mapping
def test_every_device_sees_all_negatives_of_dhel(mapped, devices):
    """Trap 3: with all embeddings equal, the log-sum-exp counts the negatives: m - 1 on every device."""
    u = jnp.ones((M, D))
    call = mapped(lambda u, v: losses.dhel(u, v, temperature=0.5, axis_name=AXIS, form="one_sided"), devices)
    values = jax.jit(call)(u, u)
    assert values.shape == (M,)
    np.testing.assert_allclose(values, np.log(M - 1), rtol=1e-5)


@every_mapping
def test_one_pair_a_device(mapped):
    u, v, _ = (x[:8] for x in batch())
    got = jax.jit(mapped(lambda u, v: losses.simclr(u, v, axis_name=AXIS), 8))(u, v)
    np.testing.assert_allclose(got, jax.jit(losses.simclr)(u, v), rtol=1e-5)


def test_two_mesh_axes():
    mesh = jax.make_mesh((2, 4), ("replica", "data"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    u, v, _ = batch()
    spec = PartitionSpec(("replica", "data"))
    fn = jax.shard_map(
        lambda u, v: losses.dcl(u, v, axis_name=("replica", "data")), mesh=mesh, in_specs=spec, out_specs=spec
    )
    np.testing.assert_allclose(jax.jit(fn)(u, v), jax.jit(losses.dcl)(u, v), rtol=1e-5)
