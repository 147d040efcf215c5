"""A step of one's own parts: on one device or many, in pieces, outside a mapped axis, with own numbers logged."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from contrastive_jax import losses, models, training
from contrastive_jax.data.views import ViewConfig
from contrastive_jax.losses import contract
from contrastive_jax.training import step as step_lib
from tests.jobs import own_parts

SHAPE, COUNT, STEPS = (8, 8, 1), 32, 3
VIEWS = ViewConfig(size=8, jitter=0.0, blur=0.0)
IMAGES = own_parts.Stripes(COUNT, 0).take(np.arange(COUNT))


def own_model(encoder=own_parts.Encoder):
    return models.create(encoder, image_shape=SHAPE, head_kwargs={"hidden": 8, "out": 6})


def take_steps(encoder=own_parts.Encoder, loss=losses.simclr, batch=None, steps=STEPS, **options):
    """The step, the last state and the metrics of every step."""
    state, step = training.create(own_model(encoder), loss, optax.sgd(0.01), VIEWS, **options)
    batch, logged = {"image": IMAGES, **(batch or {})}, []
    for _ in range(steps):
        state, metrics = step(state, batch)
        logged.append(jax.device_get(metrics))
    return step, state, logged


def read(step, state):
    return jax.tree.map(np.asarray, nnx.state(step.model(state)))


@pytest.mark.parametrize(
    ("encoder", "parallelism", "devices"),
    [(own_parts.Encoder, "shard_map", 4), (own_parts.linen_encoder, "pmap", 2)],
    ids=["nnx-shard_map", "linen-pmap"],
)
def test_devices_change_nothing(encoder, parallelism, devices):
    """Not even for layers of Flax's own that normalise by the batch and drop at random."""
    one_step, one_state, one = take_steps(encoder)
    step, state, many = take_steps(encoder, devices=jax.devices()[:devices], parallelism=parallelism)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    jax.tree.map(close, read(step, state), read(one_step, one_state))
    for a, b in zip(one, many, strict=True):
        np.testing.assert_allclose(a["loss"], b["loss"], rtol=1e-5)
        np.testing.assert_array_equal(a["distribution"].cross_view.count, COUNT * (COUNT - 1))


def test_a_loop_that_starts_from_zeros_trains_on_many_devices():
    """shard_map's check refuses the loop, and on JAX 0.12.0 the gradient of the GELU; the numbers are right."""
    one_step, one_state, one = take_steps(own_parts.Recurrent)
    step, state, many = take_steps(own_parts.Recurrent, devices=jax.devices()[:4])
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    jax.tree.map(close, read(step, state), read(one_step, one_state))
    np.testing.assert_allclose([x["loss"] for x in many], [x["loss"] for x in one], rtol=1e-5)


def test_numbers_that_differ_between_devices_are_refused():
    def of_this_device(state, embeddings, batch, *, axis_name):
        return embeddings.mean()

    with pytest.raises(ValueError, match="require replication"):
        take_steps(devices=jax.devices()[:2], metrics=[of_this_device], steps=1)


def test_dropout_draws_anew_at_every_step_and_is_seeded():
    alike = {
        name: take_steps(seed=seed, steps=2, batch={"id": np.arange(COUNT)})[2] for name, seed in (("a", 0), ("b", 0))
    }
    assert [x["loss"] for x in alike["a"]] == [x["loss"] for x in alike["b"]]
    assert take_steps(seed=1, steps=1)[2][0]["loss"] != alike["a"][0]["loss"]


def test_pieces_change_nothing_without_normalisation():
    def linear(image_shape, *, rngs):
        return nnx.Sequential(lambda x: x.reshape(len(x), -1), nnx.Linear(64, 8, rngs=rngs))

    model = functools.partial(models.create, linear, image_shape=SHAPE, head="none")
    states = []
    for batch_size in (None, 8):
        state, step = training.create(model(), losses.dhel, optax.sgd(0.1), VIEWS, batch_size=batch_size)
        for _ in range(2):
            state, _ = step(state, {"image": IMAGES})
        states.append(state.params)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), *states)


def test_it_is_traced_once():
    state, step = training.create(own_model(), views=VIEWS)

    @jax.jit
    @chex.assert_max_traces(n=1)
    def jitted(state, batch):
        return step_lib.train_step(step.program, state, batch, axis_name=None)

    batch = {"image": jnp.asarray(IMAGES), "id": jnp.arange(COUNT)}
    for _ in range(3):
        state, metrics = jitted(state, batch)
    assert int(state.step) == 3 and np.isfinite(metrics["loss"])


@pytest.mark.parametrize("devices", [None, 4])
def test_own_numbers_are_those_of_the_whole_batch(devices):
    seen = []

    def order(state, embeddings, batch):
        seen.append((embeddings.shape, batch["image"].shape, int(state.step.ndim)))
        return {"ids": batch["id"], "first_pixels": batch["image"][:, 0, 0, 0], "rows": embeddings[0]}

    devices = devices and jax.devices()[:devices]
    options = {"metrics": [order, own_parts.spread], "batch_size": 16, "devices": devices}
    ids = np.arange(COUNT)[::-1]
    _, _, (metrics,) = take_steps(steps=1, batch={"id": ids}, **options)
    # In the order in which the batch was given, though it is encoded in pieces.
    np.testing.assert_array_equal(metrics["ids"], ids)
    np.testing.assert_array_equal(metrics["first_pixels"], IMAGES[:, 0, 0, 0])
    assert metrics["rows"].shape == (COUNT, 6) and seen[0] == ((2, COUNT, 6), (COUNT, *SHAPE), 0)
    assert metrics["spread_by_dimension"].shape == (6,)
    np.testing.assert_allclose(metrics["spread"], metrics["rows"].std(), rtol=1e-5)


def test_the_losses_memory_and_the_momentum_encoder_travel_in_the_state():
    options = {"queue_size": 48, "encoder_momentum": 0.5, "dimensions": 6, "num_instances": COUNT}
    _, state, _ = take_steps(loss=losses.moco, steps=2, **options)
    np.testing.assert_array_equal(state.estimator["memory"]["queue_ids"], np.r_[16:32, 16:32, 0:16])
    _, state, _ = take_steps(loss=losses.sogclr, steps=1, num_instances=COUNT)
    assert np.isfinite(state.estimator["memory"]["log_average"]).all()


def test_a_loss_of_ones_own_may_need_labels():
    @contract.declare(labels=True)
    def between_classes(u, v, *, labels, ids=None, axis_name=None):
        return losses.info_nce(u, v, ids=labels, axis_name=axis_name)

    labels = np.arange(COUNT) % 4
    _, _, (metrics,) = take_steps(loss=between_classes, batch={"label": labels}, steps=1, num_bins=0)
    assert metrics["loss"] == metrics["between_classes"] and "distribution" not in metrics
    with pytest.raises(ValueError, match=r"expected 'label' \[32\], which loss 'between_classes' needs, got.*'image'"):
        take_steps(loss=between_classes, steps=1)


def test_a_memory_keeps_its_shapes():
    memory = contract.Memory(init=lambda _: {"keys": jnp.zeros((4, 6))}, update=lambda state, kept: {"keys": kept.keys})

    @contract.declare(memory=memory)
    def forgetful(u, v, *, ids=None, axis_name=None):
        return losses.simclr(u, v, ids=ids, axis_name=axis_name)

    message = r"'forgetful': expected its memory's update to return {'keys': 'float32\[4, 6\]'}.*got.*\[32, 6\]"
    with pytest.raises(ValueError, match=message):
        take_steps(loss=forgetful, num_instances=COUNT, dimensions=6, steps=1)


@pytest.mark.parametrize("learnable", [("margin",), ("scale", "temperature")])
def test_what_a_loss_learns_is_a_scale_or_a_temperature(learnable):
    with pytest.raises(ValueError, match=r"contract.declare: expected either 'scale' or 'temperature' in learnable"):
        contract.declare(learnable=learnable)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"loss": own_parts.reduced},
            r"loss 'reduced': expected one value for each pair, floats of shape \(32,\), got float32 of shape \(\)",
        ),
        ({"vrns_weight": 1.0}, "num_instances: expected the size of the training set, which VRNS needs, got None"),
        ({"loss": losses.moco, "num_instances": 9}, "dimensions: expected d of the embeddings .*which moco needs"),
        ({"loss": losses.sogclr}, "expected the size of the training set, which sogclr needs"),
        ({"metrics": [own_parts.loss]}, "logged numbers: expected a name of its own, got 'loss'"),
        ({"metrics": [own_parts.spread] * 2}, "expected functions of different names, got 'spread' twice"),
        ({"encoder": own_parts.flat_encoder}, r"expected an encoder that gives float features \[b, f\].*Pool"),
        ({"contrast_size": 5}, "expected a divisor >= 2 of the step's 32 instances, got 5"),
    ],
)
def test_what_does_not_fit_is_said(options, message):
    with pytest.raises(ValueError, match=message):
        take_steps(steps=1, **options)


def test_what_is_no_model_is_said():
    with pytest.raises(ValueError, match=r"nnx\.Module"):
        training.create(own_parts.LinenEncoder())
    state, step = training.create(own_model(), views=VIEWS)
    with pytest.raises(
        ValueError, match=r"batch: expected a dict with 'image' uint8 \[B, h, w, c\], got the fields \['x'\]"
    ):
        step(state, {"x": IMAGES})


def test_the_trained_model_comes_back():
    step, state, _ = take_steps(steps=1)
    model = step.model(state)
    features = model.features(jnp.asarray(IMAGES, jnp.float32) / 255)
    assert features.shape == (COUNT, 8) and model.encoder.norm.mean.get_value().any()
