"""What a small-batch estimator carries from step to step, in the train state and so in the checkpoint.

- `sogclr`: `log_average` [n] float32, by instance id, -inf for an instance that was in no batch yet.
- `moco`: `queue` [k, d] float32 of unit vectors, random at first, `queue_ids` [k] int32, -1 for those, and `position`,
  where the next key goes, over the oldest; with a momentum encoder its `encoder_params` and `encoder_batch_stats`.

All of it is the same on every device, and on any number of them: keys enter the queue in the order of the batch.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from contrastive_jax import pairwise, spmd
from contrastive_jax.training.objective import Queue
from contrastive_jax.training.state import Program

State = dict[str, Any]


class Fresh(NamedTuple):
    """What a step finds for the estimator, of this device's instances; None where there is no such thing."""

    log_average: Any  # [b]
    keys: Any  # [b, d], of the second view
    batch_stats: Any  # the momentum encoder's running statistics


def init(program: Program, model_params: Any, batch_stats: Any) -> State:
    """The state before the first step, from the seed alone; empty for a loss that carries nothing."""
    match program.objective.name:
        case "sogclr":
            return {"log_average": jnp.full(program.objective.num_instances, -jnp.inf, jnp.float32)}
        case "moco":
            size, _ = program.queue_shape
            # A stream of its own, beside those of the batches' order.
            vectors = np.random.default_rng((program.seed, 0, 2)).normal(size=program.queue_shape)
            state = {
                "queue": pairwise.normalize(jnp.asarray(vectors, jnp.float32)),
                "queue_ids": jnp.full(size, -1, jnp.int32),
                "position": jnp.zeros([], jnp.int32),
            }
            if program.encoder_momentum is None:
                return state
            return state | {"encoder_params": model_params, "encoder_batch_stats": batch_stats}
    return {}


def queue_of(state: State) -> Queue | None:
    """The queue, if there is one."""
    return Queue(state["queue"], state["queue_ids"]) if "queue" in state else None


def log_average_of(state: State, ids: jax.Array) -> jax.Array | None:
    """The averages of some instances [b], if they are kept."""
    return state["log_average"][ids] if "log_average" in state else None


def update(
    program: Program,
    state: State,
    fresh: Fresh,
    ids: jax.Array,
    *,
    model_params: Any,
    positions: np.ndarray,
    axis_name: spmd.AxisName,
) -> State:
    """The state after a step.

    Args:
      program: what never changes.
      state: before the step.
      fresh: what the step found.
      ids: [b] int32, this device's instances.
      model_params: after the step.
      positions: where in the batch each instance of all devices lies, see `gradient.layout`.
      axis_name: the mapped axis; None outside one.
    """
    if not state:
        return state
    ids = _in_order(ids, positions, axis_name)
    if "log_average" in state:
        return {"log_average": state["log_average"].at[ids].set(_in_order(fresh.log_average, positions, axis_name))}
    size = len(state["queue"])
    slots = (state["position"] + jnp.arange(len(ids))) % size
    moved = {
        "queue": state["queue"].at[slots].set(_in_order(pairwise.normalize(fresh.keys), positions, axis_name)),
        "queue_ids": state["queue_ids"].at[slots].set(ids),
        "position": (state["position"] + len(ids)) % size,
    }
    if program.encoder_momentum is None:
        return moved
    params = optax.incremental_update(model_params, state["encoder_params"], 1 - program.encoder_momentum)
    return moved | {"encoder_params": params, "encoder_batch_stats": fresh.batch_stats}


def _in_order(x, positions, axis_name):
    """[b, ...] of each device as [B, ...] in the order of the batch, known to be the same on every device."""
    own = jnp.asarray(positions.reshape(-1, len(x)))[spmd.axis_index(axis_name)]
    return spmd.psum(jnp.zeros((positions.size, *x.shape[1:]), x.dtype).at[own].set(x), axis_name)
