"""Contrast sets do not depend on where the devices' borders fall."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from contrastive_jax import losses, metrics
from contrastive_jax.training import regime
from tests.mappings import AXIS, MAPPINGS

BATCH, D = 24, 5
every_mapping = pytest.mark.parametrize("mapped", MAPPINGS.values(), ids=MAPPINGS.keys())
# Sets inside a device, of a device, over several devices, straddling their borders, and the whole batch.
LAYOUTS = [(1, 6), (2, 4), (2, 8), (2, 12), (4, 2), (4, 4), (4, 8), (4, 12), (8, 2), (8, 6), (8, 8), (8, 24)]


def batch():
    u, v = jax.random.normal(jax.random.key(0), (2, BATCH, D))
    return u, v, jnp.arange(BATCH) % 11


def expected(u, v, ids, size):
    """Each contrast set on its own."""
    parts = [slice(i, i + size) for i in range(0, BATCH, size)]
    return jnp.concatenate([losses.simclr(u[p], v[p], ids=ids[p]) for p in parts])


@pytest.mark.parametrize(("devices", "size"), LAYOUTS)
@every_mapping
def test_values_and_gradients(mapped, devices, size):
    u, v, ids = batch()

    def local(u, v, ids):
        values = regime.values(losses.simclr, u, v, ids, contrast_size=size, axis_name=AXIS)
        return jax.lax.pmean(values.mean(), AXIS)

    call = mapped(local, devices)
    got = jax.jit(jax.value_and_grad(lambda u: call(u, v, ids, out=PartitionSpec())))(u)
    want = jax.jit(jax.value_and_grad(lambda u: expected(u, v, ids, size).mean()))(u)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), got, want)


@pytest.mark.parametrize(("devices", "size"), [(2, 4), (2, 8), (4, 12), (8, 6), (8, 24)])
def test_each_device_keeps_the_values_of_its_own_pairs(devices, size):
    u, v, ids = batch()
    call = MAPPINGS["shard_map"](
        lambda u, v, ids: regime.values(losses.simclr, u, v, ids, contrast_size=size, axis_name=AXIS), devices
    )
    np.testing.assert_allclose(jax.jit(call)(u, v, ids), expected(u, v, ids, size), rtol=1e-5)


@pytest.mark.parametrize(("devices", "size"), LAYOUTS)
@pytest.mark.parametrize("mapped", [MAPPINGS["shard_map"], MAPPINGS["pmap"]], ids=["shard_map", "pmap"])
def test_distribution_counts_each_set_once(mapped, devices, size):
    u, v, ids = batch()

    def local(u, v, ids):
        return regime.distribution(u, v, ids, contrast_size=size, num_bins=10, axis_name=AXIS)

    got = jax.jit(lambda *a: mapped(local, devices)(*a, out=PartitionSpec()))(u, v, ids)
    sets = [x.reshape(-1, size, *x.shape[1:]) for x in (u, v, ids)]
    each = jax.vmap(lambda u, v, ids: metrics.similarity_distribution(u, v, ids=ids, num_bins=10))
    want = jax.jit(lambda *sets: metrics.merge(each(*sets)))(*sets)
    for kind in metrics.SimilarityDistribution._fields:
        a, b = getattr(got, kind), getattr(want, kind)
        np.testing.assert_array_equal(a.counts, b.counts)
        assert a.count == b.count
        np.testing.assert_allclose(a[2:], b[2:], rtol=1e-4, atol=1e-6)


def test_a_size_that_does_not_divide_the_batch_is_refused():
    u, v, ids = batch()
    with pytest.raises(ValueError, match=r"divisor >= 2 of the batch of 24.*got 7"):
        regime.values(losses.simclr, u, v, ids, contrast_size=7)
