"""The model as the training step uses it: functional, differentiated, on any number of devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import PartitionSpec as P

from contrastive_jax import models

pytestmark = pytest.mark.usefixtures("tiny")
IMAGES = np.random.default_rng(0).uniform(size=(16, 4, 4, 1)).astype(np.float32)
TARGETS = np.random.default_rng(1).normal(size=(16, 128)).astype(np.float32)


@functools.cache
def build(axis_name=None):
    return models.functional(models.create("tiny", channels=1, width=8, axis_name=axis_name))


def step(params, batch_stats, images, targets, *, axis_name=None):
    """(loss, gradient, new statistics) of a loss that differs between examples."""
    graphdef = build(axis_name)[0]
    mean = functools.partial(lax.pmean, axis_name=axis_name) if axis_name else lambda tree: tree

    def loss_fn(params):
        projections, new_stats = models.apply(graphdef, params, batch_stats, images, train=True)
        return mean(((projections - targets) ** 2).mean()), new_stats

    (loss, new_stats), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
    return loss, mean(grads), new_stats


def run(step, *arguments):
    # Nine compilations of the step: optimising its code would take most of the time of this file.
    return step.lower(*arguments).compile({"xla_backend_optimization_level": 0})(*arguments)


def run_mapped(kind, devices, params, batch_stats, *data):
    per_device = functools.partial(step, axis_name="batch")
    if kind == "pmap":
        pmapped = jax.pmap(per_device, "batch", in_axes=(None, None, 0, 0), devices=jax.devices()[:devices])
        out = run(pmapped, params, batch_stats, *(x.reshape(devices, -1, *x.shape[1:]) for x in data))
        for leaf in jax.tree.leaves(out):
            np.testing.assert_array_equal(leaf, jnp.broadcast_to(leaf[:1], leaf.shape))
        return jax.tree.map(lambda leaf: leaf[0], out)
    mesh = jax.sharding.Mesh(jax.devices()[:devices], "batch")
    specs = P(), P(), P("batch"), P("batch")
    checked = kind == "checked shard_map"
    sharded = jax.shard_map(per_device, mesh=mesh, in_specs=specs, out_specs=P(), check_vma=checked)
    return run(jax.jit(sharded), params, batch_stats, *data)


@functools.cache
def single_device():
    return run(jax.jit(step), *build()[1:], IMAGES, TARGETS)


@pytest.mark.parametrize("devices", [1, 2, 4])
@pytest.mark.parametrize("kind", ["checked shard_map", "unchecked shard_map", "pmap"])
def test_step_is_the_same_on_any_number_of_devices(kind, devices):
    _, params, batch_stats = build("batch")
    result = run_mapped(kind, devices, params, batch_stats, IMAGES, TARGETS)
    expected = single_device()
    assert jax.tree.structure(result) == jax.tree.structure(expected)
    for leaf, wanted in zip(jax.tree.leaves(result), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(leaf, wanted, atol=2e-4 * float(jnp.abs(wanted).max()) + 1e-6)


def test_training_moves_the_statistics_and_leaves_the_given_ones():
    graphdef, params, batch_stats = build()
    before = jax.tree.map(np.asarray, batch_stats)
    _, after = jax.jit(functools.partial(models.apply, train=True), static_argnums=0)(
        graphdef, params, batch_stats, IMAGES
    )
    assert jax.tree.structure(after) == jax.tree.structure(batch_stats)
    leaves = zip(*map(jax.tree.leaves, (before, batch_stats, after)), strict=True)
    for old, given, new in leaves:
        np.testing.assert_array_equal(given, old)
        assert (new != old).any()


def test_evaluation_needs_no_mapped_axis_and_rows_do_not_depend_on_each_other():
    graphdef, params, _ = build("batch")
    batch_stats = single_device()[2]
    evaluate = jax.jit(lambda images: models.features(graphdef, params, batch_stats, images))
    np.testing.assert_allclose(evaluate(IMAGES)[:4], evaluate(IMAGES[:4]), rtol=1e-4, atol=1e-6)
    projections, unmoved = models.apply(graphdef, params, batch_stats, IMAGES, train=False)
    assert projections.shape == (16, 128)
    jax.tree.map(np.testing.assert_array_equal, unmoved, batch_stats)


def test_seed_alone_decides_the_parameters():
    _, params, _ = build()
    for other in (build("batch"), models.functional(models.create("tiny", channels=1, width=8, dtype="bfloat16"))):
        for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(other[1]), strict=True):
            np.testing.assert_array_equal(a, b)
    other = models.functional(models.create("tiny", channels=1, width=8, seed=1))[1]
    assert (params["head"]["out"]["kernel"][...] != other["head"]["out"]["kernel"][...]).any()


def test_model_and_functional_form_agree():
    model = models.create("tiny", channels=1, width=8, head_hidden=16, head_out=5)
    form = models.functional(model)
    assert model(IMAGES).shape == (16, 5)
    assert model.head.hidden.kernel.shape == (16, 16)
    np.testing.assert_array_equal(model(IMAGES), models.apply(*form, IMAGES, train=False)[0])
    np.testing.assert_array_equal(model.features(IMAGES), models.features(*form, IMAGES))


def test_unknown_name_is_refused():
    with pytest.raises(ValueError, match="want one of resnet10, resnet18, resnet34, resnet50"):
        models.create("vit")
