"""The gradient in pieces is the gradient: of any loss, on any number of devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec

from contrastive_jax import models, spmd
from contrastive_jax.data import batches, sources
from contrastive_jax.models import BatchNorm
from contrastive_jax.training import gradient
from contrastive_jax.training import step as step_lib
from tests.jobs.support import build, config
from tests.mappings import MAPPINGS

BATCH = 40


class Model(nnx.Module):
    """The smallest model; without normalisation an image's embedding depends on that image alone."""

    def __init__(self, *, normalised):
        rngs = nnx.Rngs(0)
        self.linear = nnx.Linear(64, 8, rngs=rngs)
        self.norm = BatchNorm(8, rngs=rngs) if normalised else None

    def __call__(self, images, *, train):
        x = self.linear(images.reshape(len(images), -1))
        return jnp.tanh(x if self.norm is None else self.norm(x, train=train))


@functools.cache
def instances():
    source = sources.load("digits", split="train")
    order = batches.BatchOrder(len(source), BATCH, seed=0, partition="reshuffled")
    images, labels = source.take(order.indices(0)), source.labels[order.indices(0)]
    return {"image": images, "label": labels, "id": order.indices(0).astype(np.int32)}


def program_and_state(pass_size, normalised, **overrides):
    job = config(**{"batch_size": 16, "contrast_size": BATCH, **overrides})
    source = sources.load("digits", split="train")
    program, _ = build(job, source, batches.BatchOrder(len(source), BATCH, 0, "reshuffled"))
    graphdef, params, model_state = models.functional(Model(normalised=normalised))
    program = program._replace(graphdef=graphdef, batch_size=pass_size)
    return program, step_lib.init(program, params, model_state)


def take_gradient(pass_size, devices=1, mapping="shard_map", normalised=False, **overrides):
    """The averaged gradient, the loss's parts, the running statistics and the embeddings in the batch's order."""
    program, state = program_and_state(pass_size, normalised, **overrides)
    positions = gradient.layout(BATCH, pass_size, devices)
    batch = {name: x[positions] for name, x in instances().items() if name in program.inputs}
    of_batch = gradient.compute_in_one_pass if pass_size >= BATCH else gradient.compute_in_pieces

    def per_device(*arrays):
        grads, rest = of_batch(program, state, dict(zip(batch, arrays, strict=True)), spmd.AXIS)
        parts, model_state, embeddings, _ = rest
        return spmd.pmean(grads, spmd.AXIS), parts, model_state, spmd.gather(jnp.stack(embeddings, 1), spmd.AXIS)[None]

    out = (PartitionSpec(), PartitionSpec(), PartitionSpec(), PartitionSpec(spmd.AXIS))
    grads, parts, model_state, embeddings = jax.jit(
        lambda *arrays: MAPPINGS[mapping](per_device, devices)(*arrays, out=out)
    )(*batch.values())
    inverse = np.argsort(positions)
    return grads, parts, model_state, np.asarray(embeddings).reshape(-1, *embeddings.shape[-2:])[:BATCH][inverse]


def assert_same(got, want, rtol=1e-5):
    scale = max(np.abs(x).max() for x in jax.tree.leaves(want))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=rtol * scale), got, want)


LOSSES = [
    {"loss.name": "simclr", "vrns_weight": 3.0},
    {"loss.name": "siglip", "loss.learnable": True},
    {"loss.name": "sup_con"},
    {"loss.name": "multi_view_dhel", "num_views": 3},
    {"loss.name": "kcl"},
]


@pytest.mark.parametrize(
    ("overrides", "pass_size"),
    zip(LOSSES, (8, 16, 8, 16, 16), strict=True),  # with 16 the last piece is smaller
    ids=[x["loss.name"] for x in LOSSES],
)
def test_pieces_give_the_gradient_of_the_whole(overrides, pass_size):
    want = take_gradient(BATCH, **overrides)
    got = take_gradient(pass_size, **overrides)
    assert_same(got, want)
    np.testing.assert_allclose(got[3], want[3], rtol=1e-6, atol=1e-6)  # the same views, so the same embeddings


def test_a_loop_over_pieces_is_the_same_as_one_piece_after_the_other(monkeypatch):
    want = take_gradient(8, normalised=True)
    monkeypatch.setattr(gradient, "_MAX_UNROLLED", 0)
    assert_same(take_gradient(8, normalised=True), want)


@pytest.mark.parametrize("mapping", [m for m in MAPPINGS if m != "vmap"])
def test_any_number_of_devices_with_batch_normalisation(mapping):
    want = take_gradient(16, normalised=True)
    got = take_gradient(16, devices=4, mapping=mapping, normalised=True)
    assert_same(got, want)


def test_a_piece_is_normalised_by_its_own_statistics():
    """The embeddings of the first piece are those that a batch of that piece alone would have had."""
    embeddings = take_gradient(8, normalised=True)[3]
    program, state = program_and_state(8, normalised=True)
    piece = {name: jnp.asarray(x[:8]) for name, x in instances().items() if name in program.inputs}

    def alone(*arrays):
        batch = dict(zip(piece, arrays, strict=True))
        embeddings, _ = gradient._encode(
            program, state, state.params.model, state.model_state, batch, axis_name=spmd.AXIS
        )
        return jnp.stack(embeddings, 1)

    call = MAPPINGS["shard_map"](alone, 1)
    want = jax.jit(lambda *arrays: call(*arrays, out=PartitionSpec(spmd.AXIS)))(*piece.values())
    np.testing.assert_allclose(embeddings[:8], want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("batch", "size", "devices"), [(12, 4, 2), (10, 4, 2), (7, 3, 1), (8, 8, 4)])
def test_layout_gives_each_device_its_share_of_every_piece(batch, size, devices):
    positions = gradient.layout(batch, size, devices)
    assert sorted(positions) == list(range(batch))
    shares = positions.reshape(devices, -1)
    for start in range(0, batch, size):
        piece = range(start, min(start + size, batch))
        local = shares[:, start // devices : piece.stop // devices]
        assert sorted(local.reshape(-1)) == list(piece)
