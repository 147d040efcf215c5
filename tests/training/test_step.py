"""The step: the same parameters on any number of devices, under every parallelism, traced once."""

import functools

import jax
import numpy as np
import pytest

from contrastive_jax import spmd
from contrastive_jax.data import batches, sources
from contrastive_jax.training import step as step_lib
from tests.jobs.support import build, config

STEPS = 20


@functools.cache
def train(parallelism, devices, **overrides):
    """The state after STEPS steps, the last outputs, how often the step was traced, and the state before.

    A network just initialised is chaotic at an ordinary learning rate: a difference of rounding grows twentyfold a
    step. A rate of 2.5e-5 keeps rounding small, while any error of the gradient would still show.
    """
    job = config(**{"optimizer.learning_rate": 1e-4, "optimizer.warmup_epochs": 0.0, **overrides})
    source = sources.load("digits", split="train")
    order = batches.BatchOrder(len(source), job.batch_size, job.seed, job.partition)
    program, state = build(job, source, order)
    traces = []

    def step(state, batch):
        traces.append(1)
        return step_lib.train_step(program, state, batch)

    mapped = spmd.map_step(step, parallelism=parallelism, devices=jax.devices()[:devices])
    placed = mapped.place_state(state)
    for k in range(STEPS):
        indices = order.indices(k)
        images, labels = source.take(indices), source.labels[indices]
        known = {"image": images, "label": labels, "id": indices.astype(np.int32)}
        batch = {name: known[name] for name in program.inputs}
        placed, outputs = mapped.step(placed, mapped.place_batch(batch))
    return jax.device_get((mapped.read(placed), mapped.read(outputs))), len(traces), state


def assert_same(result, reference, atol=2e-6):
    (state, outputs), (want, want_outputs) = result, reference
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=atol)
    jax.tree.map(close, state.params, want.params)
    jax.tree.map(functools.partial(close, rtol=1e-4, atol=1e-4), state.model_state, want.model_state)
    np.testing.assert_allclose(outputs["loss"], want_outputs["loss"], rtol=1e-5)
    for got, expected in zip(outputs["distribution"], want_outputs["distribution"], strict=True):
        assert got.count == expected.count == got.counts.sum()
        np.testing.assert_allclose(got[2:], expected[2:], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("parallelism", "devices"), [("shard_map", 4), ("pmap", 1), ("pmap", 4)])
def test_devices_and_parallelism_change_nothing(parallelism, devices):
    result, traces, _ = train(parallelism, devices)
    assert traces == 1
    assert_same(result, train("shard_map", 1)[0])


def test_training_moves_every_parameter_and_keeps_the_initial_state():
    (state, _), _, initial = train("shard_map", 1)
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), state.params, initial.params)
    assert min(jax.tree.leaves(moved)) > 1e-5
    assert state.step == STEPS and initial.step == 0


def test_contrast_sets_across_devices():
    """And what is learnt of the loss is the same on every device, too."""
    overrides = {"contrast_size": 16, "vrns_weight": 3.0, "loss.learnable": True}
    result, _, _ = train("shard_map", 8, **overrides)
    reference, _, initial = train("shard_map", 1, **overrides)
    assert_same(result, reference, atol=1e-5)  # eight shares, which JAX 0.8 rounds otherwise than one
    state, _ = reference
    assert initial.params.loss["log_scale"] == pytest.approx(-np.log(0.2))
    assert abs(state.params.loss["log_scale"] - initial.params.loss["log_scale"]) > 1e-5
    outputs = reference[1]
    assert outputs["distribution"].cross_view.count == 4 * 16 * 15
    np.testing.assert_allclose(outputs["loss"], outputs["simclr"] + 3 * outputs["vrns"], rtol=1e-5)
