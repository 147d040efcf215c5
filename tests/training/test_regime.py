"""Contrast sets do not depend on where the devices' borders fall."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from contrastive_jax import losses, metrics
from contrastive_jax.training import objective, regime
from contrastive_jax.training.objective import Instances
from tests.mappings import AXIS, MAPPINGS

BATCH, D = 24, 5
# Sets inside a device, of a device, over several devices, straddling their borders, and the whole batch.
LAYOUTS = [(1, 6), (2, 4), (2, 8), (2, 12), (4, 2), (4, 4), (4, 8), (4, 12), (8, 2), (8, 6), (8, 8), (8, 24)]
ONE_OF_EACH = [(2, 4), (2, 12), (4, 4), (8, 6), (8, 24)]
OTHER_MAPPINGS = [name for name in MAPPINGS if name != "shard_map"]
CASES = [("shard_map", *layout) for layout in LAYOUTS]
CASES += [(name, *layout) for name in OTHER_MAPPINGS for layout in ONE_OF_EACH]
# Each of those layouts under one of the other mappings, in turn.
CASES_OF_GRADIENTS = [case for k, case in enumerate(CASES) if case[0] == "shard_map" or k % 3 == 0]


def batch():
    u, v = jax.random.normal(jax.random.key(0), (2, BATCH, D))
    return Instances((u, v), jnp.arange(BATCH) % 11)


def simclr(instances, *, axis_name):
    return losses.simclr(*instances.views, ids=instances.ids, axis_name=axis_name)


def expected(fn, instances, size):
    """Each contrast set on its own, one after the other."""
    sets = jax.tree.map(lambda x: x.reshape(-1, size, *x.shape[1:]), instances)
    values = jax.lax.map(lambda one: fn(one, axis_name=None), sets)
    return jax.tree.map(lambda x: x.reshape(BATCH, *x.shape[2:]), values)


def map_instances(mapping, fn, devices):
    """fn of this device's instances as a function of all instances."""

    def call(instances, **options):
        leaves, structure = jax.tree.flatten(instances)
        mapped = MAPPINGS[mapping](lambda *leaves: fn(structure.unflatten(leaves)), devices)
        return mapped(*leaves, **options)

    return call


def close(got, want):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), got, want)


@pytest.mark.parametrize(("mapping", "devices", "size"), CASES_OF_GRADIENTS)
def test_values_and_gradients(mapping, devices, size):
    instances = batch()

    def local(instances):
        values = regime.map_sets(simclr, instances, contrast_size=size, axis_name=AXIS)
        return jax.lax.pmean(values.mean(), AXIS)

    def mean(fn):
        return jax.jit(jax.value_and_grad(lambda views: fn(instances._replace(views=views))))(instances.views)

    call = map_instances(mapping, local, devices)
    close(
        mean(lambda instances: call(instances, out=PartitionSpec())),
        mean(lambda instances: expected(simclr, instances, size).mean()),
    )


@pytest.mark.parametrize(("devices", "size"), [(2, 4), (2, 8), (4, 12), (8, 6), (8, 24)])
def test_each_device_keeps_the_values_of_its_own_instances(devices, size):
    instances = batch()
    call = map_instances("shard_map", lambda x: regime.map_sets(simclr, x, contrast_size=size, axis_name=AXIS), devices)
    np.testing.assert_allclose(jax.jit(call)(instances), expected(simclr, instances, size), rtol=1e-5)


def labelled_and_many_views(instances, *, axis_name):
    """The losses that are no function of two views alone, and VRNS over three."""
    options = {"ids": instances.ids, "axis_name": axis_name}
    stacked = jnp.stack(instances.views)
    vrns = objective.Objective(losses.multi_view_info_nce, {}, 1.0, 50)(instances, axis_name=axis_name)["vrns"]
    return {
        "sup_con": losses.sup_con(*instances.views[:2], instances.labels, **options),
        "multi_view_info_nce": losses.multi_view_info_nce(stacked, form="joint", **options),
        "multi_view_dhel": losses.multi_view_dhel(stacked, **options),
        "vrns": vrns,
    }


@pytest.mark.parametrize(("devices", "size"), [(1, 12), (4, 8), (8, 12), (8, 24)])
def test_labels_and_many_views(devices, size):
    ids = jnp.arange(BATCH) % 11
    views = tuple(jax.random.normal(jax.random.key(0), (3, BATCH, D)))

    def objective_of(fn):
        def total(views):
            values = fn(Instances(views, ids, ids % 3))
            weighed = [weight * values[name].mean() for weight, name in enumerate(sorted(values), 1)]
            return sum(weighed), values

        return jax.jit(jax.value_and_grad(total, has_aux=True))(views)

    call = map_instances(
        "shard_map",
        lambda x: regime.map_sets(labelled_and_many_views, x, contrast_size=size, axis_name=AXIS),
        devices,
    )
    close(objective_of(call), objective_of(lambda x: expected(labelled_and_many_views, x, size)))


@pytest.mark.parametrize(("mapping", "devices", "size"), [case for case in CASES if case[0] in ("shard_map", "pmap")])
def test_distribution_counts_each_set_once(mapping, devices, size):
    """And the moments of the negatives are the distribution's."""
    (u, v), ids, *_ = batch()
    options = {"contrast_size": size, "axis_name": AXIS}

    def local(u, v, ids):
        full = regime.distribution(u, v, ids, num_bins=10, **options)
        return full, regime.negative_moments(u, v, ids, **options)

    got, moments = jax.jit(lambda *a: MAPPINGS[mapping](local, devices)(*a, out=PartitionSpec()))(u, v, ids)
    sets = [x.reshape(-1, size, *x.shape[1:]) for x in (u, v, ids)]
    each = jax.vmap(lambda u, v, ids: metrics.similarity_distribution(u, v, ids=ids, num_bins=10))
    want = jax.jit(lambda *sets: metrics.merge(each(*sets)))(*sets)
    for kind in metrics.SimilarityDistribution._fields:
        a, b = getattr(got, kind), getattr(want, kind)
        np.testing.assert_array_equal(a.counts, b.counts)
        assert a.count == b.count
        np.testing.assert_allclose(a[2:], b[2:], rtol=1e-4, atol=1e-6)
    full = got.cross_view
    np.testing.assert_allclose(moments, (full.count, full.mean, full.variance), rtol=1e-5, atol=1e-7)


def test_a_size_that_does_not_divide_the_batch_is_refused():
    with pytest.raises(ValueError, match=r"expected a divisor >= 2 of the step's 24 instances, got 7"):
        regime.map_sets(simclr, batch(), contrast_size=7)
