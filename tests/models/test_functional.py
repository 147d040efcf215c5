"""Any module as the training step uses it: the same on any number of devices, whatever state it holds."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx
from jax import lax
from jax.sharding import PartitionSpec as P

from contrastive_jax import models
from contrastive_jax.errors import UsageError
from contrastive_jax.models import ContrastiveModel, ProjectionHead, ResNet

ROWS, SHAPE, SIZE = 16, (4, 4, 1), 5
IMAGES = np.random.default_rng(0).uniform(size=(ROWS, *SHAPE)).astype(np.float32)
TARGETS = np.random.default_rng(1).normal(size=(ROWS, SIZE)).astype(np.float32)
KEYS = jax.random.split(jax.random.key(7), ROWS)


class Own(nnx.Module):
    """A user's module: any of the layers that make training depend on more than the image."""

    def __init__(self, *layers, rngs):
        self.first = nnx.Linear(16, 8, rngs=rngs)
        self.norm = nnx.data(nnx.BatchNorm(8, rngs=rngs, axis_name="of another life") if "norm" in layers else None)
        self.dropouts = nnx.List([nnx.Dropout(0.5, rngs=rngs) for name in layers if name == "dropout"])
        self.last = nnx.Linear(8, SIZE, rngs=rngs)

    def __call__(self, images):
        x = self.first(images.reshape(len(images), -1))
        for dropout in self.dropouts:
            x = dropout(x)
        return self.last(jnp.tanh(x if self.norm is None else self.norm(x)))


class OwnLinen(linen.Module):
    """The same in Linen, which takes its mode as an argument."""

    @linen.compact
    def __call__(self, images, train):
        x = linen.Dense(8)(images.reshape(len(images), -1))
        x = linen.Dropout(0.5)(x, deterministic=not train)
        x = linen.BatchNorm(use_running_average=not train, momentum=0.9)(x)
        return linen.Dense(SIZE)(jnp.tanh(x))


class Centred(nnx.Module):
    """Keeps a state of its own: the average of what it saw, over all devices where it is told to."""

    def __init__(self, mean, *, rngs, rate=0.0):
        self.mean, self.linear = mean, nnx.Linear(16, SIZE, rngs=rngs)
        self.centre = nnx.Variable(jnp.zeros(SIZE))
        self.calls = nnx.Variable(0)
        self.dropout = nnx.data(nnx.Dropout(rate, rngs=rngs) if rate else None)

    def __call__(self, images, *, train):
        x = self.linear(images.reshape(len(images), -1))
        if train:
            self.centre[...] = 0.5 * self.centre[...] + 0.5 * self.mean(x)
            self.calls.set_value(self.calls.get_value() + 1)
        x = x - self.centre[...][None]
        return x if self.dropout is None else self.dropout(x)


def in_linen():
    module = nnx.bridge.ToNNX(OwnLinen(), rngs=nnx.Rngs(0))
    return module.lazy_init(jnp.zeros((1, *SHAPE)), train=False)


def resnet():
    encoder = ResNet("basic", (1, 1), channels=1, stem="small", width=8, rngs=nnx.Rngs(0))
    return ContrastiveModel(encoder, ProjectionHead(16, 16, SIZE, rngs=nnx.Rngs(1)))


BUILD = {
    "resnet": resnet,
    "plain": lambda: Own(rngs=nnx.Rngs(0)),
    "norm": lambda: Own("norm", rngs=nnx.Rngs(0)),
    "dropout": lambda: Own("dropout", "dropout", rngs=nnx.Rngs(0)),
    "norm and dropout": lambda: ContrastiveModel(Own("norm", "dropout", rngs=nnx.Rngs(0))),
    "linen": in_linen,
    "linen as encoder": lambda: ContrastiveModel(in_linen(), ProjectionHead(SIZE, 8, SIZE, rngs=nnx.Rngs(1))),
    "own state": lambda: Centred(models.batch_mean, rngs=nnx.Rngs(0)),
    "own state and dropout": lambda: Centred(models.batch_mean, rngs=nnx.Rngs(0), rate=0.5),
}


@functools.cache
def build(name):
    return models.functional(BUILD[name]())


def step(graphdef, params, state, images, targets, keys, *, axis_name=None):
    """(loss, gradient, state after it) of a loss that differs between images."""
    mean = functools.partial(lax.pmean, axis_name=axis_name) if axis_name else lambda tree: tree

    def loss_fn(params):
        projections, new = models.apply(graphdef, params, state, images, train=True, axis_name=axis_name, keys=keys)
        return mean(((projections - targets) ** 2).mean()), new

    (loss, new), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
    return loss, mean(grads), new


def run_mapped(kind, devices, graphdef, params, state, *data):
    per_device = functools.partial(step, graphdef, axis_name="batch")
    axes, parts = (None, None, 0, 0, 0), [x.reshape(devices, -1, *x.shape[1:]) for x in data]
    if kind in ("pmap", "vmap"):
        if kind == "pmap":
            mapped = jax.pmap(per_device, "batch", in_axes=axes, devices=jax.devices()[:devices])
        else:
            mapped = jax.jit(jax.vmap(per_device, axes, axis_name="batch"))
        out = mapped(params, state, *parts)
        for leaf in jax.tree.leaves(out):
            np.testing.assert_array_equal(leaf, jnp.broadcast_to(leaf[:1], leaf.shape))
        return jax.tree.map(lambda leaf: leaf[0], out)
    mesh, specs = jax.sharding.Mesh(jax.devices()[:devices], "batch"), (P(), P(), *[P("batch")] * 3)
    checked = kind == "checked shard_map"
    sharded = jax.shard_map(per_device, mesh=mesh, in_specs=specs, out_specs=P(), check_vma=checked)
    return jax.jit(sharded)(params, state, *data)


@functools.cache
def single_device(name):
    graphdef, *rest = build(name)
    return jax.jit(functools.partial(step, graphdef))(*rest, IMAGES, TARGETS, KEYS)


OTHERS = [("unchecked shard_map", 4), ("pmap", 4), ("vmap", 4)]


@pytest.mark.parametrize(
    ("name", "kind", "devices"),
    [  # every model on four devices; on another number of them, and under another mapping, in turn
        (name, *where)
        for k, name in enumerate(BUILD)
        for where in (("checked shard_map", 4), ("checked shard_map", (8, 1)[k % 2]), OTHERS[k % 3])
    ],
)
def test_step_is_the_same_on_any_number_of_devices(name, kind, devices):
    graphdef, params, state = build(name)
    result, expected = run_mapped(kind, devices, graphdef, params, state, IMAGES, TARGETS, KEYS), single_device(name)
    assert jax.tree.structure(result) == jax.tree.structure(expected)
    assert jax.tree.structure(result[2]) == jax.tree.structure(state)
    for leaf, wanted in zip(jax.tree.leaves(result), jax.tree.leaves(expected), strict=True):
        scale = np.abs(np.asarray(wanted, np.float64)).max()
        np.testing.assert_allclose(leaf, wanted, atol=2e-4 * scale + 1e-6)


@pytest.mark.parametrize("name", BUILD)
def test_training_moves_the_statistics_and_leaves_the_given_state_and_the_streams(name):
    _, _, state = build(name)
    before = jax.tree.map(np.array, state)
    _, _, after = single_device(name)
    jax.tree.map(np.testing.assert_array_equal, state, before)
    streams, old = nnx.split_state(before, nnx.RngState, ...)
    same, new = nnx.split_state(after, nnx.RngState, ...)
    jax.tree.map(np.testing.assert_array_equal, same, streams)
    for a, b in zip(jax.tree.leaves(new), jax.tree.leaves(old), strict=True):
        assert (a != b).any() and a.dtype == b.dtype


@pytest.mark.parametrize("name", BUILD)
def test_evaluation_needs_no_axis_or_keys_changes_nothing_and_treats_rows_alone(name):
    graphdef, params, _ = build(name)
    state = single_device(name)[2]
    project = jax.jit(lambda images: models.apply(graphdef, params, state, images, train=False)[0])
    projections, after = models.apply(graphdef, params, state, IMAGES, train=False)
    np.testing.assert_allclose(project(IMAGES), projections, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(project(IMAGES[:4]), projections[:4], rtol=1e-4, atol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, after, state)
    assert projections.shape == (ROWS, SIZE) and projections.dtype == jnp.float32
    features = models.features(graphdef, params, state, IMAGES)
    assert features.shape == (ROWS, 16 if name == "resnet" else SIZE)


def test_normalisation_is_over_the_whole_batch():
    """The statistics are those of a plain Flax model that sees the batch at once."""
    model = Own("norm", rngs=nnx.Rngs(0))
    model.norm.axis_name = None
    expected = model(IMAGES)
    graphdef, params, state = build("norm")
    np.testing.assert_allclose(
        models.apply(graphdef, params, state, IMAGES, train=True)[0], expected, rtol=1e-5, atol=1e-6
    )
    new = single_device("norm")[2]
    np.testing.assert_allclose(new["norm"]["mean"][...], model.norm.mean[...], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(new["norm"]["var"][...], model.norm.var[...], rtol=1e-5)


@pytest.mark.parametrize("wrapped", [False, True])
def test_linen_normalisation_is_over_the_whole_batch(wrapped):
    class Norm(linen.Module):
        @linen.compact
        def __call__(self, images, train):
            return linen.BatchNorm(use_running_average=not train, momentum=0.9)(images.reshape(len(images), -1))

    module = nnx.bridge.ToNNX(Norm(), rngs=nnx.Rngs(0) if wrapped else None)
    module = module.lazy_init(jnp.zeros((1, *SHAPE)), train=False, rngs=nnx.Rngs(0))
    graphdef, params, state = models.functional(module)
    out, new = models.apply(graphdef, params, state, IMAGES, train=True, keys=KEYS)
    rows = IMAGES.reshape(ROWS, -1).astype(np.float64)
    np.testing.assert_allclose(out, (rows - rows.mean(0)) / np.sqrt(rows.var(0) + 1e-5), atol=1e-4)
    statistics = new["BatchNorm_0"]
    np.testing.assert_allclose(statistics["mean"][...], 0.1 * rows.mean(0), rtol=1e-5)
    np.testing.assert_allclose(statistics["var"][...], 0.9 + 0.1 * rows.var(0), rtol=1e-5)


def test_every_leaf_of_the_state_is_a_plain_array_that_a_step_compiles_once_for():
    graphdef, params, state = build("own state and dropout")
    traces = []

    @jax.jit
    def take(state):
        traces.append(1)
        return models.apply(graphdef, params, state, IMAGES, train=True, keys=KEYS)[1]

    for _ in range(3):
        state = take(jax.tree.map(np.array, state))
    assert len(traces) == 1
    assert state["calls"][...] == 3


def test_average_of_the_batch_is_the_mean_over_all_rows():
    rows = np.asarray(nnx.Linear(16, SIZE, rngs=nnx.Rngs(0))(IMAGES.reshape(ROWS, -1)))
    for name in ("own state", "own state and dropout"):
        np.testing.assert_allclose(single_device(name)[2]["centre"][...], rows.mean(0) / 2, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rate", [0.0, 0.5])
@pytest.mark.parametrize("axis_name", [None, "batch"])
def test_state_that_follows_a_share_of_the_batch_is_refused(rate, axis_name):
    form = models.functional(Centred(lambda x: x.mean(0), rngs=nnx.Rngs(0), rate=rate))
    apply = functools.partial(models.apply, *form, train=True, axis_name=axis_name)
    with pytest.raises(UsageError, match=r"centre.* same on every device, got some .* `models.batch_mean`"):
        if axis_name is None:
            apply(IMAGES, keys=KEYS)
        else:
            jax.pmap(lambda x, k: apply(x, keys=k), "batch")(IMAGES[:, None][:8], KEYS[:8, None])


def test_own_subclass_of_a_normalisation_is_held_to_the_same():
    class Local(nnx.BatchNorm):
        def __call__(self, x):
            self.mean[...] = x.mean(0)
            return x

    class Model(nnx.Module):
        def __init__(self):
            self.norm = Local(16, rngs=nnx.Rngs(0))

        def __call__(self, images):
            return self.norm(images.reshape(len(images), -1))

    out, new = models.apply(*models.functional(Model()), IMAGES, train=True)
    np.testing.assert_allclose(new["norm"]["mean"][...], IMAGES.reshape(ROWS, -1).mean(0), rtol=1e-5)
    assert out.shape == (ROWS, 16)


@pytest.mark.parametrize(
    ("output", "got"),
    [
        (lambda x: x, r"float32\[16, 4, 4, 1\]"),
        (lambda x: x.sum((0, 1)), r"float32\[4, 1\]"),
        (lambda x: (x, x), "got tuple"),
        (lambda x: x.sum((1, 2)).astype(jnp.int32), r"int32\[16, 1\]"),
    ],
)
def test_other_outputs_are_refused(output, got):
    class Model(nnx.Module):
        def __call__(self, images):
            return output(images)

    for train in (False, True):
        with pytest.raises(
            UsageError, match=rf"gives floats \[16, d\] .*{got}. Pool over height and width, or flatten"
        ):
            models.apply(*models.functional(Model()), IMAGES, train=train)


def test_state_that_changes_its_shape_is_refused():
    class Model(nnx.Module):
        def __init__(self):
            self.seen = nnx.Variable(jnp.zeros(0))

        def __call__(self, images):
            self.seen.set_value(jnp.append(self.seen.get_value(), 1.0))
            return images.sum((1, 2))

    with pytest.raises(UsageError, match=r"keeps its structure .*seen.* was float32\[0\], is float32\[1\]"):
        models.apply(*models.functional(Model()), IMAGES, train=True)


def test_what_cannot_be_functional_is_refused():
    class Hidden(nnx.Module):
        def __init__(self):
            self.key = nnx.Variable(jax.random.key(0))

    with pytest.raises(
        UsageError, match=r"expected random keys of a model in nnx.Rngs .*, got one in another variable"
    ):
        models.functional(Hidden())
    with pytest.raises(UsageError, match=r"expected a model that is an nnx.Module, got the Linen module .* Wrap it"):
        models.functional(linen.Dense(3))
