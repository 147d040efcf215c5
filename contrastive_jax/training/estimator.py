"""State of small-batch estimators: the memory of a loss and the momentum encoder.

The train state, and so every checkpoint, holds

- `memory`: a queue, or an average for each instance, for a loss that declares a memory (`losses.contract.Memory`);
- `encoder_params` and `encoder_state`: the momentum encoder.

All of it is the same on every device and for any number of devices: keys enter a queue in the order of the batch.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from contrastive_jax import spmd
from contrastive_jax.losses.contract import Kept, Setting
from contrastive_jax.training.state import Program

State = dict[str, Any]


class NewValues(NamedTuple):
    """The values of one step that update the estimator, for this device's instances."""

    returned: Mapping[str, Any]  # {name: [b]}, what the loss returned besides its values
    keys: Any  # [b, d], the embeddings of the second view
    encoder_state: Any  # of the momentum encoder, without its parameters; None if there is no such encoder


def init(program: Program, model_params: Any, model_state: Any) -> State:
    """The estimator's state before the first step; empty for a loss without memory or momentum encoder.

    Args:
      program: what never changes.
      model_params: the initial parameters of the model, which the momentum encoder starts from.
      model_state: the rest of the initial model.
    """
    memory, momentum = program.objective.needs.memory, program.encoder_momentum
    state: State = {}
    if memory is not None:
        instances = program.objective.num_instances or 0
        state["memory"] = memory.init(Setting(instances, program.dimensions, program.queue_size, program.seed))
    return state | ({} if momentum is None else {"encoder_params": model_params, "encoder_state": model_state})


def read_memory(program: Program, state: State, ids: jax.Array) -> tuple[State, State]:
    """Read the arguments of the loss from its memory.

    Args:
      program: what never changes.
      state: the estimator's state.
      ids: [b] int32, this device's instances.

    Returns:
      (arguments that all instances share, arguments [b, ...] of these instances).
    """
    memory = program.objective.needs.memory
    if memory is None:
        return {}, {}
    return memory.shared(state["memory"]), memory.of_instances(state["memory"], ids)


def update(
    program: Program,
    state: State,
    new_values: NewValues,
    ids: jax.Array,
    *,
    model_params: Any,
    positions: np.ndarray,
    axis_name: spmd.AxisName,
) -> State:
    """The estimator's state after a step.

    Args:
      program: what never changes.
      state: the estimator's state before the step.
      new_values: the values of the step.
      ids: [b] int32, this device's instances.
      model_params: the parameters of the model after the step.
      positions: [B], the position in the batch of every instance of all devices, from `gradient.layout`.
      axis_name: the mapped axis; None outside one.
    """
    memory, moved = program.objective.needs.memory, {}
    if memory is not None:
        found = Kept(ids, new_values.keys, new_values.returned)
        whole = jax.tree.map(lambda x: gather_in_order(x, positions, axis_name), found)
        moved["memory"] = memory.update(state["memory"], whole)
        _check_alike(program.objective.name, state["memory"], moved["memory"])
    if program.encoder_momentum is not None:
        params = optax.incremental_update(model_params, state["encoder_params"], 1 - program.encoder_momentum)
        moved |= {"encoder_params": params, "encoder_state": new_values.encoder_state}
    return moved


def _check_alike(name: str, before: State, after: State) -> None:
    """Refuse a memory that a step changes in structure, shape or dtype: the next step could not take it."""
    described = [jax.tree.map(lambda x: f"{jnp.result_type(x)}{list(jnp.shape(x))}", x) for x in (before, after)]
    if described[0] != described[1]:
        raise ValueError(
            f"loss {name!r}: expected its memory's update to return {described[0]} as init does, got {described[1]}."
        )


def gather_in_order(x: jax.Array, positions: np.ndarray, axis_name: spmd.AxisName) -> jax.Array:
    """Gather [b, ...] of each device to [B, ...] in the order of the batch, the same on every device."""
    own = jnp.asarray(positions.reshape(-1, len(x)))[spmd.axis_index(axis_name)]
    return spmd.psum(jnp.zeros((positions.size, *x.shape[1:]), x.dtype).at[own].set(x), axis_name)
