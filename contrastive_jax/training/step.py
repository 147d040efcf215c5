"""The training step: one pure function of (state, batch), written for one device."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from contrastive_jax import models, spmd
from contrastive_jax.data import views
from contrastive_jax.training import objective as objective_lib
from contrastive_jax.training import regime


class Params(NamedTuple):
    """All that is trained."""

    model: Any
    loss: dict[str, Any]  # scalars, empty where nothing of the loss is learnt


class TrainState(NamedTuple):
    """All that a run carries from step to step; a checkpoint holds it whole."""

    step: Any  # [] int32, steps taken
    params: Params
    batch_stats: Any
    opt_state: Any


class Program(NamedTuple):
    """All that a step needs and that never changes during a run."""

    graphdef: Any
    optimizer: optax.GradientTransformation
    schedule: Callable[[jax.Array], jax.Array]
    objective: objective_lib.Objective
    view_config: views.ViewConfig
    num_views: int
    contrast_size: int
    steps_per_epoch: int
    seed: int
    num_bins: int  # 0: the distribution of similarities is not computed

    @property
    def inputs(self) -> tuple[str, ...]:
        """The fields of a batch that a step reads."""
        return ("image", "id", "label") if objective_lib.needs_labels(self.objective.name) else ("image", "id")


def init(program: Program, model_params: Any, batch_stats: Any) -> TrainState:
    """The state before the first step."""
    params = Params(model_params, program.objective.parameters())
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
      batch: `image` uint8 [b, H, W, C], `id` int32 [b] and, where the loss needs it, `label` int32 [b]: this device's
        share.
      axis_name: the mapped axis; None outside one.

    Returns:
      (new state, metrics), both the same on every device. Metrics: scalars `loss`, its parts by name, `learning_rate`,
      `gradient_norm`, what is learnt of the loss (`scale`, `bias`) as the step used it, and the
      `SimilarityDistribution` of the whole batch under `distribution`: that of the first two views, since all views of
      an instance are drawn alike.
    """
    stacked = views.random_views(
        batch["image"],
        batch["id"],
        seed=program.seed,
        epoch=state.step // program.steps_per_epoch,
        num_views=program.num_views,
        config=program.view_config,
    )

    def loss_fn(params):
        images = stacked.reshape(-1, *stacked.shape[2:])
        projections, batch_stats = models.apply(program.graphdef, params.model, state.batch_stats, images, train=True)
        embeddings = tuple(jnp.split(projections, program.num_views))
        parts = regime.values(
            functools.partial(program.objective, parameters=params.loss),
            objective_lib.Instances(embeddings, batch["id"], batch.get("label")),
            contrast_size=program.contrast_size,
            axis_name=axis_name,
        )
        means = spmd.pmean(jax.tree.map(jnp.mean, parts), axis_name)
        return means["loss"], (means, batch_stats, embeddings)

    grads, (metrics, batch_stats, embeddings) = jax.grad(loss_fn, has_aux=True)(state.params)
    grads = spmd.pmean(grads, axis_name)
    updates, opt_state = program.optimizer.update(grads, state.opt_state, state.params)
    metrics |= {"learning_rate": program.schedule(state.step), "gradient_norm": optax.tree.norm(grads)}
    metrics |= objective_lib.logged(state.params.loss)
    if program.num_bins:
        u, v, *_ = embeddings
        metrics["distribution"] = regime.distribution(
            u, v, batch["id"], contrast_size=program.contrast_size, num_bins=program.num_bins, axis_name=axis_name
        )
    params = optax.apply_updates(state.params, updates)
    params = params._replace(loss=objective_lib.bounded(params.loss))
    return TrainState(state.step + 1, params, batch_stats, opt_state), metrics
