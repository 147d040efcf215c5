"""The training step: one pure function of (state, batch), written for one device."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from contrastive_jax import spmd
from contrastive_jax.training import estimator, gradient
from contrastive_jax.training import measure as measure_lib
from contrastive_jax.training import objective as objective_lib
from contrastive_jax.training.state import Params, Program, TrainState

MUST_BE_FINITE = ("loss", "gradient_norm", "parameter_norm")


def init(program: Program, model_params: Any, model_state: Any) -> TrainState:
    """The state before the first step."""
    params = Params(model_params, program.objective.parameters())
    opt_state, estimated = program.optimizer.init(params), estimator.init(program, model_params, model_state)
    zero = jnp.zeros([], jnp.int32)
    return TrainState(zero, params, model_state, opt_state, estimated, skipped=zero, skipped_in_a_row=zero)


def train_step(
    program: Program, state: TrainState, batch: Mapping[str, jax.Array], *, axis_name: spmd.AxisName = spmd.AXIS
) -> tuple[TrainState, dict[str, Any]]:
    """Take one step of gradient descent on this device's share of a batch.

    The function runs unchanged under `shard_map` and `pmap`, and outside a mapped axis. Views depend only on (seed,
    epoch, instance id, view), statistics are taken over the whole batch, and the gradient is that of the loss averaged
    over all devices. So the new state is the same on any number of devices, up to rounding.

    Args:
      program: what never changes.
      state: the same on every device.
      batch: this device's share: `image` uint8 [b, H, W, C], `id` int32 [b] and, if the loss needs labels, `label`
        int32 [b].
      axis_name: the mapped axis; None outside one.

    Returns:
      (new state, metrics), both the same on every device. The metrics are scalars: `loss` and its parts by name,
      `gradient_norm`, and `parameter_norm` after the step; `learning_rate` if the program has a schedule; `scale` and
      `bias` if the loss learns them, as the step used them; `skipped` and `skipped_in_a_row` if the program skips
      non-finite steps. The results of the program's own metrics are added under their names (see `measure`).

    Raises:
      ValueError: if one of the program's own metrics has the name of another logged number.
    """
    devices = spmd.axis_size(axis_name)
    update_size = batch["id"].shape[0] * devices
    batch_size = program.batch_size or update_size
    gradient_of = gradient.compute_in_one_pass if update_size <= batch_size else gradient.compute_in_pieces
    positions = gradient.layout(update_size, batch_size, devices)
    grads, (metrics, model_state, embeddings, new_values) = gradient_of(program, state, batch, axis_name)
    grads = spmd.pmean(grads, axis_name)
    with jax.named_scope("update"):
        updates, opt_state = program.optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        params = params._replace(loss=objective_lib.clip_scale(params.loss))
    metrics |= {"gradient_norm": optax.tree.norm(grads), "parameter_norm": optax.tree.norm(params)}
    if program.schedule is not None:
        metrics["learning_rate"] = program.schedule(state.step - state.skipped)
    metrics |= objective_lib.describe_learnt(state.params.loss)
    estimated = estimator.update(
        program,
        state.estimator,
        new_values,
        batch["id"],
        model_params=params.model,
        positions=positions,
        axis_name=axis_name,
    )
    taken = state._replace(params=params, model_state=model_state, opt_state=opt_state, estimator=estimated)
    if program.skip_nonfinite:
        taken, counts = _skip_nonfinite(taken, state, metrics)
        metrics |= counts
    found = measure_lib.measure(program.metrics, state, embeddings, batch, positions=positions, axis_name=axis_name)
    if taken_names := sorted(metrics.keys() & found.keys()):
        raise ValueError(f"logged numbers: expected a name of its own, got {taken_names[0]!r}, which the step logs.")
    return taken._replace(step=state.step + 1), metrics | found


def _skip_nonfinite(
    taken: TrainState, before: TrainState, metrics: Mapping[str, jax.Array]
) -> tuple[TrainState, dict[str, jax.Array]]:
    """The state after a step, or the state before it if the step is not finite; and the counts of skipped steps."""
    finite = jnp.stack([jnp.isfinite(metrics[name]) for name in MUST_BE_FINITE]).all()
    state = jax.tree.map(lambda new, old: jnp.where(finite, new, old), taken, before)
    counts = {
        "skipped": before.skipped + jnp.where(finite, 0, 1),
        "skipped_in_a_row": jnp.where(finite, 0, before.skipped_in_a_row + 1),
    }
    return state._replace(**counts), counts
