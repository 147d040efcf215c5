"""The gradient of a batch: in one pass through the encoder, or in pieces if the batch is too large for one pass.

Computing it in pieces (gradient caching) takes three stages:

1. the encoder runs over the batch piece by piece and keeps only the embeddings;
2. the loss and its gradient are computed at the embeddings of the whole batch;
3. the encoder runs over each piece again, on the same views, and carries that gradient back to the parameters.

The result is the gradient of the whole batch, at the cost of one more forward pass. Batch normalisation is the
exception: it uses the statistics of a piece, `batch_size` instances over all devices, as in a batch of that size. The
running averages are updated once for each piece, in the first stage.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from contrastive_jax import models, spmd
from contrastive_jax.data import views
from contrastive_jax.training import estimator, regime
from contrastive_jax.training.objective import Instances
from contrastive_jax.training.state import Program, TrainState

_MAX_UNROLLED = 16
_MODEL_KEYS = 1  # separates the model's random numbers from those of the views
Batch = Mapping[str, jax.Array]
Embeddings = tuple[jax.Array, ...]
GradientAndAux = tuple[Any, tuple[dict[str, Any], Any, Embeddings, estimator.NewValues]]


def compute_in_one_pass(program: Program, state: TrainState, batch: Batch, axis_name: spmd.AxisName) -> GradientAndAux:
    """Compute the gradient on this device's share of a step in one pass.

    Args:
      program: what never changes.
      state: the same on every device.
      batch: this device's share.
      axis_name: the mapped axis; None outside one.

    Returns:
      (gradient of the parameters, (parts of the loss, state of the model, embeddings of the views, new values for the
      estimator)). The caller averages the gradient over the devices.
    """
    encode = functools.partial(_encode, program, state, axis_name=axis_name)
    keys, key_state = _encode_keys(program, state, state.estimator.get("encoder_state"), batch, axis_name)

    def loss_fn(params: Any) -> tuple[jax.Array, Any]:
        embeddings, model_state = encode(params.model, state.model_state, batch)
        parts, returned = _loss(program, state, params.loss, embeddings, keys, batch, axis_name)
        new_values = estimator.NewValues(returned, (keys or embeddings)[1], key_state)
        return parts["loss"], (parts, model_state, embeddings, new_values)

    return jax.grad(loss_fn, has_aux=True)(state.params)


def compute_in_pieces(program: Program, state: TrainState, batch: Batch, axis_name: spmd.AxisName) -> GradientAndAux:
    """Compute what `compute_in_one_pass` computes, in pieces of `program.batch_size` instances over all devices."""
    assert program.batch_size is not None
    size = program.batch_size // spmd.axis_size(axis_name)
    encode = functools.partial(_encode, program, state, axis_name=axis_name)

    def forward(states: tuple[Any, Any], piece: Batch) -> tuple[tuple[Any, Any], Any]:
        embeddings, model_state = encode(state.params.model, states[0], piece)
        keys, key_state = _encode_keys(program, state, states[1], piece, axis_name)
        return (model_state, key_state), (embeddings, keys)

    states = (state.model_state, state.estimator.get("encoder_state"))
    (model_state, key_state), (embeddings, keys) = _over_pieces(forward, states, dict(batch), size)

    def loss_fn(embeddings: Embeddings, parameters: dict[str, jax.Array]) -> tuple[jax.Array, Any]:
        parts, returned = _loss(program, state, parameters, embeddings, keys, batch, axis_name)
        return parts["loss"], (parts, returned)

    at_embeddings = jax.grad(loss_fn, argnums=(0, 1), has_aux=True)
    (of_embeddings, of_loss), (parts, returned) = at_embeddings(embeddings, state.params.loss)

    def backward(carry: tuple[Any, Any], piece: Any) -> tuple[tuple[Any, Any], None]:
        (summed, before), (cotangents, piece) = carry, piece
        # Each piece sees the model's state that it saw in the first pass.
        _, pull, after = jax.vjp(lambda model: encode(model, before, piece), state.params.model, has_aux=True)
        return (jax.tree.map(jnp.add, summed, pull(cotangents)[0]), after), None

    start = (jax.tree.map(jnp.zeros_like, state.params.model), state.model_state)
    (of_model, _), _ = _over_pieces(backward, start, (of_embeddings, dict(batch)), size)
    new_values = estimator.NewValues(returned, (keys or embeddings)[1], key_state)
    return state.params._replace(model=of_model, loss=of_loss), (parts, model_state, embeddings, new_values)


def layout(update_size: int, piece_size: int, num_devices: int) -> np.ndarray:
    """The order in which the devices hold the instances of a batch.

    On any number of devices, piece k consists of the instances [k piece_size, (k + 1) piece_size) of the batch. So the
    share of each device contains its share of every piece.

    Args:
      update_size: B, the instances of a step.
      piece_size: instances encoded at once, over all devices.
      num_devices: the number of devices; divides every piece.

    Returns:
      [B] positions in the batch: the shares of the devices, one after the other.

    Example:
      >>> layout(8, 4, num_devices=2).tolist()
      [0, 1, 4, 5, 2, 3, 6, 7]
    """
    starts = range(0, update_size, piece_size)
    pieces = [np.arange(start, min(start + piece_size, update_size)).reshape(num_devices, -1) for start in starts]
    return np.concatenate(pieces, axis=1).reshape(-1)


def _encode(
    program: Program, state: TrainState, model_params: Any, model_state: Any, batch: Batch, *, axis_name: spmd.AxisName
) -> tuple[Embeddings, Any]:
    """Encode the views: the embeddings [b, d] of each view, and the new state of the model."""
    epoch = state.step // program.steps_per_epoch
    with jax.named_scope("views"):
        stacked = views.random_views(
            batch["image"],
            batch["id"],
            seed=program.seed,
            epoch=epoch,
            num_views=program.num_views,
            config=program.view_config,
        )
    with jax.named_scope("encoder"):
        projections, model_state = models.apply(
            program.graphdef,
            model_params,
            model_state,
            stacked.reshape(-1, *stacked.shape[2:]),
            train=True,
            axis_name=axis_name,
            keys=_row_keys(program, epoch, batch["id"]),
        )
    return tuple(jnp.split(projections, program.num_views)), model_state


def _row_keys(program: Program, epoch: jax.Array, ids: jax.Array) -> jax.Array:
    """Keys [num_views * b], one for each row of the encoder's input; they depend only on (seed, epoch, id, view)."""
    root = jax.random.fold_in(jax.random.key(program.seed, impl="threefry2x32"), _MODEL_KEYS)
    fold = jax.vmap(jax.random.fold_in, in_axes=(None, 0))
    of_instances = fold(jax.random.fold_in(root, epoch), ids)
    views_of = jnp.arange(program.num_views, dtype=jnp.int32)
    return jax.vmap(lambda view: jax.vmap(jax.random.fold_in, in_axes=(0, None))(of_instances, view))(views_of).ravel()


def _encode_keys(
    program: Program, state: TrainState, encoder_state: Any, batch: Batch, axis_name: spmd.AxisName
) -> tuple[Embeddings | None, Any]:
    """Encode with the momentum encoder, which receives no gradient; (None, None) if there is none."""
    if program.encoder_momentum is None:
        return None, None
    return _encode(program, state, state.estimator["encoder_params"], encoder_state, batch, axis_name=axis_name)


@jax.named_scope("loss")
def _loss(
    program: Program,
    state: TrainState,
    parameters: dict[str, jax.Array],
    embeddings: Embeddings,
    keys: Embeddings | None,
    batch: Batch,
    axis_name: spmd.AxisName,
) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    """The loss and its parts, averaged over all devices, and what the loss returned for this device's instances."""
    shared, remembered = estimator.read_memory(program, state.estimator, batch["id"])
    parts = regime.map_sets(
        functools.partial(program.objective, parameters=parameters, shared=shared),
        Instances(embeddings, batch["id"], batch.get("label"), keys, remembered),
        contrast_size=program.contrast_size or len(batch["id"]) * spmd.axis_size(axis_name),
        axis_name=axis_name,
    )
    returned = parts.pop("returned", {})
    return spmd.pmean(jax.tree.map(jnp.mean, parts), axis_name), returned


def _over_pieces(fn: Callable[[Any, Any], tuple[Any, Any]], carry: Any, arrays: Any, size: int) -> tuple[Any, Any]:
    """Scan fn over pieces [size, ...] of arrays [b, ...]; the last may be smaller. The outputs are [b, ...]."""
    whole = jax.tree.leaves(arrays)[0].shape[0] // size * size
    pieces = jax.tree.map(lambda x: x[:whole].reshape(-1, size, *x.shape[1:]), arrays)
    rest = jax.tree.map(lambda x: x[whole:], arrays)
    # On CPU, convolutions inside a loop are ten times slower; unrolling a few pieces only costs compile time.
    unroll = jax.default_backend() == "cpu" and whole // size <= _MAX_UNROLLED
    carry, outputs = lax.scan(fn, carry, pieces, unroll=unroll)
    outputs = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), outputs)
    if not jax.tree.leaves(rest)[0].shape[0]:
        return carry, outputs
    carry, last = fn(carry, rest)
    return carry, jax.tree.map(lambda x, y: jnp.concatenate([x, y]), outputs, last)
