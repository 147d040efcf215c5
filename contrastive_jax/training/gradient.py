"""The gradient of a batch: in one pass through the encoder, or in pieces when the batch is too large for one.

In pieces (gradient caching), the encoder runs over the batch once, piece by piece, keeping nothing but the embeddings;
the loss and its gradient are taken at the embeddings of the whole batch; and the encoder runs over each piece again, on
the same views, to carry that gradient back to the parameters. The result is the gradient of the whole batch, for one
more forward pass. Batch normalisation is the exception that a piece makes: it sees the statistics of its own piece,
`pass_size` instances over all devices, as it would in a batch of that size; the running averages move once for each
piece, in the first pass.
"""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from contrastive_jax import models, spmd
from contrastive_jax.data import views
from contrastive_jax.training import estimator, regime
from contrastive_jax.training import objective as objective_lib
from contrastive_jax.training.state import Program, TrainState

_MAX_UNROLLED = 16
Batch = Mapping[str, jax.Array]
Found = tuple[Any, tuple[dict[str, Any], Any, tuple[jax.Array, ...], estimator.Fresh]]


def direct(program: Program, state: TrainState, batch: Batch, axis_name: spmd.AxisName) -> Found:
    """The gradient of this device's share of a batch, by one pass.

    Returns:
      (gradient of the parameters, (the loss's parts, running statistics, the views' embeddings, what was found for
      the estimator)): average the gradient over the devices.
    """
    keys, key_stats = _encode_keys(program, state, state.estimator.get("encoder_batch_stats"), batch)

    def loss_fn(params):
        embeddings, batch_stats = _encode(program, state, params.model, state.batch_stats, batch)
        parts, log_average = _loss(program, state, params.loss, embeddings, keys, batch, axis_name)
        fresh = estimator.Fresh(log_average, (keys or embeddings)[1], key_stats)
        return parts["loss"], (parts, batch_stats, embeddings, fresh)

    return jax.grad(loss_fn, has_aux=True)(state.params)


def cached(program: Program, state: TrainState, batch: Batch, axis_name: spmd.AxisName) -> Found:
    """The same in pieces of `program.pass_size` instances over all devices."""
    size = program.pass_size // spmd.axis_size(axis_name)
    encode = functools.partial(_encode, program, state)

    def forward(stats, piece):
        embeddings, batch_stats = encode(state.params.model, stats[0], piece)
        keys, key_stats = _encode_keys(program, state, stats[1], piece)
        return (batch_stats, key_stats), (embeddings, keys)

    stats = (state.batch_stats, state.estimator.get("encoder_batch_stats"))
    (batch_stats, key_stats), (embeddings, keys) = _over_pieces(forward, stats, dict(batch), size)

    def loss_fn(embeddings, parameters):
        parts, log_average = _loss(program, state, parameters, embeddings, keys, batch, axis_name)
        return parts["loss"], (parts, log_average)

    at_embeddings = jax.grad(loss_fn, argnums=(0, 1), has_aux=True)
    (of_embeddings, of_loss), (parts, log_average) = at_embeddings(embeddings, state.params.loss)

    def backward(total, piece):
        cotangents, piece = piece
        _, pull = jax.vjp(lambda model: encode(model, state.batch_stats, piece)[0], state.params.model)
        return jax.tree.map(jnp.add, total, pull(cotangents)[0]), None

    zeros = jax.tree.map(jnp.zeros_like, state.params.model)
    of_model, _ = _over_pieces(backward, zeros, (of_embeddings, dict(batch)), size)
    fresh = estimator.Fresh(log_average, (keys or embeddings)[1], key_stats)
    return state.params._replace(model=of_model, loss=of_loss), (parts, batch_stats, embeddings, fresh)


def layout(batch_size: int, pass_size: int, num_devices: int) -> np.ndarray:
    """Which instance of a batch lies where: [batch_size] positions, the devices' shares one after the other.

    Piece k consists of the instances k pass_size to (k + 1) pass_size of the batch on any number of devices, so each
    device's share of the batch has to hold its share of every piece.

    Example:
      >>> layout(8, 4, num_devices=2).tolist()
      [0, 1, 4, 5, 2, 3, 6, 7]
    """
    starts = range(0, batch_size, pass_size)
    pieces = [np.arange(start, min(start + pass_size, batch_size)).reshape(num_devices, -1) for start in starts]
    return np.concatenate(pieces, axis=1).reshape(-1)


def _encode(program, state, model_params, batch_stats, batch):
    """The embeddings, [b, d] for each view, and the running statistics after them."""
    stacked = views.random_views(
        batch["image"],
        batch["id"],
        seed=program.seed,
        epoch=state.step // program.steps_per_epoch,
        num_views=program.num_views,
        config=program.view_config,
    )
    images = stacked.reshape(-1, *stacked.shape[2:])
    projections, batch_stats = models.apply(program.graphdef, model_params, batch_stats, images, train=True)
    return tuple(jnp.split(projections, program.num_views)), batch_stats


def _encode_keys(program, state, batch_stats, batch):
    """The same of the momentum encoder, which nothing carries a gradient to; (None, None) where there is none."""
    if program.encoder_momentum is None:
        return None, None
    return _encode(program, state, state.estimator["encoder_params"], batch_stats, batch)


def _loss(program, state, parameters, embeddings, keys, batch, axis_name):
    """Means over all devices of the loss and its parts, and the new averages of this device's instances, if any."""
    queue, log_average = estimator.queue_of(state.estimator), estimator.log_average_of(state.estimator, batch["id"])
    parts = regime.values(
        functools.partial(program.objective, parameters=parameters, queue=queue),
        objective_lib.Instances(embeddings, batch["id"], batch.get("label"), keys, log_average),
        contrast_size=program.contrast_size,
        axis_name=axis_name,
    )
    log_average = parts.pop("log_average", None)
    return spmd.pmean(jax.tree.map(jnp.mean, parts), axis_name), log_average


def _over_pieces(fn, carry, arrays, size):
    """`lax.scan` of fn over pieces [size, ...] of arrays [b, ...], the last perhaps smaller; outputs are [b, ...]."""
    whole = jax.tree.leaves(arrays)[0].shape[0] // size * size
    pieces = jax.tree.map(lambda x: x[:whole].reshape(-1, size, *x.shape[1:]), arrays)
    rest = jax.tree.map(lambda x: x[whole:], arrays)
    # Inside a loop XLA's convolutions for CPUs are a tenth as fast; unrolling a few pieces costs some compilation.
    unroll = jax.default_backend() == "cpu" and whole // size <= _MAX_UNROLLED
    carry, outputs = lax.scan(fn, carry, pieces, unroll=unroll)
    outputs = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), outputs)
    if not jax.tree.leaves(rest)[0].shape[0]:
        return carry, outputs
    carry, last = fn(carry, rest)
    return carry, jax.tree.map(lambda x, y: jnp.concatenate([x, y]), outputs, last)
