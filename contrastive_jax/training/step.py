"""The training step: one pure function of (state, batch), written for one device."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from contrastive_jax import models, spmd
from contrastive_jax.data import views
from contrastive_jax.training import regime
from contrastive_jax.training.objective import Objective


class TrainState(NamedTuple):
    """All that a run carries from step to step; a checkpoint holds it whole."""

    step: Any  # [] int32, steps taken
    params: Any
    batch_stats: Any
    opt_state: Any


class Program(NamedTuple):
    """All that a step needs and that never changes during a run."""

    graphdef: Any
    optimizer: optax.GradientTransformation
    schedule: Callable[[jax.Array], jax.Array]
    objective: Objective
    view_config: views.ViewConfig
    contrast_size: int
    steps_per_epoch: int
    seed: int
    num_bins: int  # 0: the distribution of similarities is not computed


def init(program: Program, params: Any, batch_stats: Any) -> TrainState:
    """The state before the first step."""
    return TrainState(jnp.zeros([], jnp.int32), params, batch_stats, program.optimizer.init(params))


def train_step(
    program: Program, state: TrainState, batch: Mapping[str, jax.Array], *, axis_name: spmd.AxisName = spmd.AXIS
) -> tuple[TrainState, dict[str, Any]]:
    """Take one step of gradient descent on this device's share of a batch.

    Runs unchanged under `shard_map` and `pmap`. Views depend on (seed, epoch, instance id, view) alone, statistics are
    those of the whole batch, and the gradient is that of the mean loss of all devices, so the new state is the same on
    any number of devices, to rounding.

    Args:
      program: what never changes.
      state: the same on every device.
      batch: `image` uint8 [b, H, W, C] and `id` int32 [b], this device's share.
      axis_name: the mapped axis; None outside one.

    Returns:
      (new state, metrics), both the same on every device. Metrics: scalars `loss`, its parts by name, `learning_rate`,
      `gradient_norm`, and the `SimilarityDistribution` of the whole batch under `distribution`.
    """
    pair = views.random_views(
        batch["image"],
        batch["id"],
        seed=program.seed,
        epoch=state.step // program.steps_per_epoch,
        config=program.view_config,
    )

    def loss_fn(params):
        images = pair.reshape(-1, *pair.shape[2:])
        projections, batch_stats = models.apply(program.graphdef, params, state.batch_stats, images, train=True)
        u, v = jnp.split(projections, 2)
        parts = regime.values(
            program.objective, u, v, batch["id"], contrast_size=program.contrast_size, axis_name=axis_name
        )
        means = spmd.pmean(jax.tree.map(jnp.mean, parts), axis_name)
        return means["loss"], (means, batch_stats, u, v)

    grads, (metrics, batch_stats, u, v) = jax.grad(loss_fn, has_aux=True)(state.params)
    grads = spmd.pmean(grads, axis_name)
    updates, opt_state = program.optimizer.update(grads, state.opt_state, state.params)
    metrics |= {"learning_rate": program.schedule(state.step), "gradient_norm": optax.tree.norm(grads)}
    if program.num_bins:
        metrics["distribution"] = regime.distribution(
            u, v, batch["id"], contrast_size=program.contrast_size, num_bins=program.num_bins, axis_name=axis_name
        )
    params = optax.apply_updates(state.params, updates)
    return TrainState(state.step + 1, params, batch_stats, opt_state), metrics
