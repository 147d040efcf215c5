"""The step: the same parameters on any number of devices, under every parallelism, traced once."""

import functools

import jax
import numpy as np
import pytest

from contrastive_jax import spmd
from contrastive_jax.data import batches, sources
from contrastive_jax.training import run
from contrastive_jax.training import step as step_lib
from tests.training.jobs import config

STEPS = 20


@functools.cache
def train(parallelism, devices, **overrides):
    """The state after STEPS steps, the last outputs, and how often the step was traced."""
    job = config(**{"batch_size": 64, "optimizer.learning_rate": 0.1, **overrides})
    source = sources.load("digits", split="train")
    order = batches.BatchOrder(len(source), job.batch_size, job.seed, job.partition)
    program, state = run.build(job, source, order)
    traces = []

    def step(state, batch):
        traces.append(1)
        return step_lib.train_step(program, state, batch)

    mapped = spmd.map_step(step, parallelism=parallelism, devices=jax.devices()[:devices])
    placed = mapped.place_state(state)
    for k in range(STEPS):
        images, _ = source.take(order.indices(k))
        placed, outputs = mapped.step(
            placed, mapped.place_batch({"image": images, "id": order.indices(k).astype(np.int32)})
        )
    return jax.device_get((mapped.read(placed), mapped.read(outputs))), len(traces), state


@pytest.mark.parametrize(
    ("parallelism", "devices"), [("shard_map", 2), ("shard_map", 4), ("pmap", 1), ("pmap", 2), ("pmap", 4)]
)
def test_devices_and_parallelism_change_nothing(parallelism, devices):
    (state, outputs), traces, _ = train(parallelism, devices)
    (reference, reference_outputs), _, _ = train("shard_map", 1)
    assert traces == 1
    compare = functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4)
    jax.tree.map(compare, state, reference)
    np.testing.assert_allclose(outputs["loss"], reference_outputs["loss"], rtol=1e-5)
    for got, want in zip(outputs["distribution"], reference_outputs["distribution"], strict=True):
        assert got.count == want.count == got.counts.sum()
        np.testing.assert_allclose(got[2:], want[2:], rtol=1e-3, atol=1e-4)


def test_training_moves_the_parameters_and_keeps_the_initial_state():
    (state, _), _, initial = train("shard_map", 1)
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), state.params, initial.params)
    assert min(jax.tree.leaves(moved)) > 0
    assert state.step == STEPS and initial.step == 0


def test_contrast_sets_across_devices():
    overrides = {"contrast_size": 16, "vrns_weight": 3.0}
    (state, outputs), _, _ = train("shard_map", 8, **overrides)
    (reference, reference_outputs), _, _ = train("shard_map", 1, **overrides)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4), state, reference)
    assert outputs["distribution"].cross_view.count == 4 * 16 * 15
    total = reference_outputs["simclr"] + 3 * reference_outputs["vrns"]
    np.testing.assert_allclose(reference_outputs["loss"], total, rtol=1e-5)
