"""What a loss's memory and a momentum encoder carry from step to step, in the train state and so in the checkpoint.

- `memory`: of a loss that declares one (`losses.contract.Memory`): a queue, or an average for each instance.
- `encoder_params` and `encoder_state`: of the momentum encoder.

All of it is the same on every device, and on any number of them: keys enter a queue in the order of the batch.
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


class Fresh(NamedTuple):
    """What a step finds for the estimator, of this device's instances."""

    returned: Mapping[str, Any]  # {name: [b]}, what the loss returned beside its values
    keys: Any  # [b, d], of the second view
    encoder_state: Any  # the momentum encoder's, but for its parameters; None where there is no such encoder


def init(program: Program, model_params: Any, model_state: Any) -> State:
    """The state before the first step, from the seed alone; empty for a loss that carries nothing."""
    memory, momentum = program.objective.needs.memory, program.encoder_momentum
    state: State = {}
    if memory is not None:
        instances = program.objective.num_instances or 0
        state["memory"] = memory.init(Setting(instances, program.dimensions, program.queue_size, program.seed))
    return state | ({} if momentum is None else {"encoder_params": model_params, "encoder_state": model_state})


def read_memory(program: Program, state: State, ids: jax.Array) -> tuple[State, State]:
    """Arguments of the loss from its memory: those that all instances share, and those [b, ...] of these instances."""
    memory = program.objective.needs.memory
    if memory is None:
        return {}, {}
    return memory.shared(state["memory"]), memory.of_instances(state["memory"], ids)


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
    memory, moved = program.objective.needs.memory, {}
    if memory is not None:
        found = Kept(ids, fresh.keys, fresh.returned)
        whole = jax.tree.map(lambda x: gather_in_order(x, positions, axis_name), found)
        moved["memory"] = memory.update(state["memory"], whole)
    if program.encoder_momentum is not None:
        params = optax.incremental_update(model_params, state["encoder_params"], 1 - program.encoder_momentum)
        moved |= {"encoder_params": params, "encoder_state": fresh.encoder_state}
    return moved


def gather_in_order(x: jax.Array, positions: np.ndarray, axis_name: spmd.AxisName) -> jax.Array:
    """[b, ...] of each device as [B, ...] in the order of the batch, known to be the same on every device."""
    own = jnp.asarray(positions.reshape(-1, len(x)))[spmd.axis_index(axis_name)]
    return spmd.psum(jnp.zeros((positions.size, *x.shape[1:]), x.dtype).at[own].set(x), axis_name)
