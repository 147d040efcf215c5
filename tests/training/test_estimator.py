"""What the small-batch estimators carry from step to step: the same on any number of devices, in pieces, resumed."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax import losses, models, pairwise, spmd
from contrastive_jax.data import batches, sources
from contrastive_jax.jobs.machine.checkpoints import Checkpoints
from contrastive_jax.training import estimator, gradient, objective
from contrastive_jax.training import step as step_lib
from tests.jobs.support import build, config
from tests.losses import oracles
from tests.losses.table import averages
from tests.training.test_gradient import Model

BATCH, QUEUE, STEPS, MOMENTUM = 40, 70, 6, 0.6
ESTIMATORS = {
    "moco": {"estimator.queue_size": QUEUE, "estimator.encoder_momentum": MOMENTUM},
    "moco_without_encoder": {"estimator.queue_size": QUEUE},
    "sogclr": {"loss.kwargs.update_weight": 0.5},
}
IN_SETS = {"contrast_size": 20, "vrns_weight": 3.0}  # which straddle the borders of four devices
ESTIMATORS |= {f"{name}_in_sets": ESTIMATORS[name] | IN_SETS for name in ("moco", "sogclr")}
NORMALISED = ("moco_in_sets",)  # in pieces normalisation would differ
IN_PIECES = {"devices": 4, "pass_size": 20}  # the batch is laid out anew


@pytest.fixture(autouse=True)
def loop(monkeypatch):
    """Over the pieces: it compiles in half the time."""
    monkeypatch.setattr(gradient, "_MAX_UNROLLED", 0)


@functools.cache
def prepare(name, pass_size=BATCH):
    """The program, the order of its batches and the first state of a job with the smallest model."""
    cheaper = {"views.jitter": 0.0, "views.flip": 0.0, "log.distribution": False}
    options = {"batch_size": BATCH, "loss.name": name.split("_")[0], "optimizer.warmup_epochs": 0.0}
    job, source = config(**cheaper, **options, **ESTIMATORS[name]), sources.load("digits", split="train")
    order = batches.BatchOrder(len(source), BATCH, 0, "reshuffled")
    program, _ = build(job, source, order)
    graphdef, params, model_state = models.functional(Model(normalised=name in NORMALISED))
    program = program._replace(graphdef=graphdef, batch_size=pass_size, dimensions=8)
    state = step_lib.init(program, params, model_state)
    if name.startswith("sogclr"):  # as if some instances had been seen
        log_average = jnp.asarray(averages(len(source))["log_average"], jnp.float32)
        state = state._replace(estimator={"memory": {"log_average": log_average}})
    return program, order, state


@functools.cache
def mapped_step(name, parallelism, devices, pass_size):
    program, *_ = prepare(name, pass_size)
    return spmd.map_step(
        lambda state, batch: step_lib.train_step(program, state, batch),
        parallelism=parallelism,
        devices=jax.devices()[:devices],
    )


def take_steps(name, state, parallelism="shard_map", devices=1, pass_size=BATCH):
    """The states after each of the steps that are left."""
    _, order, _ = prepare(name, pass_size)
    mapped = mapped_step(name, parallelism, devices, pass_size)
    positions, source = gradient.layout(BATCH, pass_size, devices), sources.load("digits", split="train")
    placed, states = mapped.place_state(state), []
    for k in range(int(state.step), STEPS):
        indices = order.indices(k)[positions]
        batch = {"image": source.take(indices), "id": indices.astype(np.int32)}
        placed, _ = mapped.step(placed, mapped.place_batch(batch))
        states.append(jax.tree.map(np.array, mapped.read(placed)))
    return states


@functools.cache
def train(name, **options):
    """The state before, and those after each step."""
    _, _, state = prepare(name)
    return [state, *take_steps(name, state, **options)]


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("moco", {"parallelism": "shard_map", **IN_PIECES}),
        ("moco_in_sets", {"parallelism": "pmap", "devices": 4}),
        ("sogclr", {"parallelism": "pmap", **IN_PIECES}),
    ],
)
def test_devices_and_pieces_change_nothing(name, other):
    want, got = train(name)[-1], train(name, **other)[-1]
    for part in ("params", "model_state", "estimator"):
        close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
        jax.tree.map(close, getattr(got, part), getattr(want, part))


@pytest.mark.parametrize("name", ["moco_in_sets", "sogclr"])
def test_resumed_equals_uninterrupted(name, tmp_path):
    states = train(name)
    half = states[STEPS // 2]
    moved = jax.tree.map(lambda a, b: not np.array_equal(a, b), states[0].estimator, half.estimator)
    assert all(jax.tree.leaves(moved))
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(half)
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        restored = checkpoints.restore(states[0])
    jax.tree.map(np.testing.assert_array_equal, restored, half)
    jax.tree.map(np.testing.assert_array_equal, take_steps(name, restored), states[1 + STEPS // 2 :])


def test_the_start():
    program, _, state = prepare("moco")
    start, other = state.estimator, estimator.init(program._replace(seed=1), None, None)
    np.testing.assert_allclose(np.linalg.norm(start["memory"]["queue"], axis=1), 1, rtol=1e-5)
    assert not np.allclose(start["memory"]["queue"], other["memory"]["queue"])
    np.testing.assert_array_equal(start["memory"]["queue_ids"], np.full(QUEUE, -1))
    jax.tree.map(np.testing.assert_array_equal, start["encoder_params"], state.params.model)
    of_sogclr = estimator.init(prepare("sogclr")[0], None, None)
    np.testing.assert_array_equal(of_sogclr["memory"]["log_average"], np.full(1437, -np.inf))
    simclr = program._replace(objective=objective.Objective(losses.simclr), encoder_momentum=None)
    assert estimator.init(simclr, None, None) == {}


def test_the_queue_is_filled_in_the_order_of_the_batches():
    _, order, _ = prepare("moco")
    states = train("moco", parallelism="shard_map", **IN_PIECES)
    ids, position = np.full(QUEUE, -1), 0
    for k, state in enumerate(states[1:]):
        for i in order.indices(k):
            ids[position % QUEUE] = i
            position += 1
        np.testing.assert_array_equal(state.estimator["memory"]["queue_ids"], ids)
        assert state.estimator["memory"]["position"] == position % QUEUE


@functools.cache
def encode():
    """(params, step, images, ids) -> the embeddings [b, 8] of two views, of the model that all jobs here have."""
    program, _, state = prepare("moco")

    def embeddings(params, step, images, ids):
        batch = {"image": images, "id": ids}
        return gradient._encode(program, state._replace(step=step), params, state.model_state, batch, axis_name=None)[0]

    return jax.jit(embeddings)


def batch_of(order, step):
    ids = order.indices(step).astype(np.int32)
    return sources.load("digits", split="train").take(ids), ids


def test_keys_are_those_of_the_momentum_encoder_and_follow_the_parameters():
    _, order, _ = prepare("moco")
    for k, (before, after) in enumerate(itertools.pairwise(train("moco"))):
        old, new = before.estimator["encoder_params"], after.estimator["encoder_params"]
        want = jax.tree.map(lambda a, b: MOMENTUM * a + (1 - MOMENTUM) * b, old, after.params.model)
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7), new, want)
        keys, embeddings = (encode()(params, k, *batch_of(order, k))[1] for params in (old, before.params.model))
        slots = (before.estimator["memory"]["position"] + np.arange(BATCH)) % QUEUE
        np.testing.assert_allclose(
            after.estimator["memory"]["queue"][slots], pairwise.normalize(keys), rtol=1e-4, atol=1e-5
        )
    assert not np.allclose(keys, embeddings, atol=1e-3)


def test_without_a_momentum_encoder_the_embeddings_are_the_keys():
    _, order, state = prepare("moco_without_encoder")
    after, before = train("moco_without_encoder")[1].estimator["memory"], state.estimator["memory"]
    assert state.estimator.keys() == {"memory"} and after.keys() == before.keys() == {"queue", "queue_ids", "position"}
    keys = encode()(state.params.model, 0, *batch_of(order, 0))[1]
    np.testing.assert_allclose(after["queue"][:BATCH], pairwise.normalize(keys), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(after["queue"][BATCH:], before["queue"][BATCH:])


@pytest.mark.parametrize(
    ("name", "size", "options"), [("sogclr", 40, {}), ("sogclr_in_sets", 20, {"parallelism": "pmap", "devices": 4})]
)
def test_averages_are_kept_by_instance(name, size, options):
    """And one that was not seen before starts at its own first mean, whoever else is in its contrast set."""
    _, order, _ = prepare(name)
    for k, (before, after) in enumerate(itertools.pairwise(train(name, **options))):
        images, ids = batch_of(order, k)
        u, v = encode()(before.params.model, k, images, ids)
        want = np.array(before.estimator["memory"]["log_average"])
        for part in (slice(i, i + size) for i in range(0, BATCH, size)):
            old = want[ids[part]]
            assert 0 < np.isneginf(old).sum() < size
            want[ids[part]] = oracles.sogclr_averages(u[part], v[part], ids[part], old, 0.2, 0.5)
        np.testing.assert_allclose(after.estimator["memory"]["log_average"], want, rtol=1e-4)
