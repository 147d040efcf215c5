"""A training step made of your own parts, for a notebook or your own loop."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from contrastive_jax import losses, models, pairwise, spmd
from contrastive_jax.data.views import ViewConfig
from contrastive_jax.training import gradient, measure
from contrastive_jax.training import step as step_lib
from contrastive_jax.training.objective import Objective
from contrastive_jax.training.state import Program, TrainState

Batch = Mapping[str, Any]
_FIELDS = ("image", "id", "label")


class Step:
    """A compiled step, `step(state, batch) -> (state, metrics)`. Make one with `create`.

    A batch is a dict of `image` uint8 [B, h, w, c]; optionally `id` int [B], the indices of the images in the training
    set (default: their positions in the batch); and `label` int [B], if the loss needs labels.

    Args:
      program: what the step computes.
      devices: the devices to map the step over; None compiles it for one, without a mapped axis.
      parallelism: `"shard_map"` or `"pmap"`; ignored if devices is None.

    Attributes:
      program: what the step computes. `training.train_step(program, state, batch, axis_name=...)` is the same step
        inside your own mapping.
    """

    def __init__(self, program: Program, devices: Sequence[Any] | None, parallelism: str) -> None:
        self.program = program
        self._mapped, self._num_devices = None, 1 if devices is None else len(devices)
        if devices is None:
            self._step = jax.jit(functools.partial(step_lib.train_step, program, axis_name=None))
        else:
            step = functools.partial(step_lib.train_step, program)
            self._mapped = spmd.map_step(step, parallelism=parallelism, devices=devices)

    def __call__(self, state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Any]]:
        """Take a step; return the new state and the metrics. On several devices the old state is donated."""
        batch = self._prepare(batch)
        if self._mapped is None:
            return self._step(state, batch)
        state, metrics = self._mapped.step(state, self._mapped.place_batch(batch))
        return state, self._mapped.read(metrics)

    def place(self, state: TrainState) -> TrainState:
        """Copy a state, for example one from a checkpoint, to the devices of this step."""
        return jax.tree.map(jnp.array, state) if self._mapped is None else self._mapped.place_state(state)

    def model(self, state: TrainState) -> nnx.Module:
        """The model with the parameters of a state, for evaluation or for saving."""
        one = state if self._mapped is None else jax.tree.map(jnp.asarray, self._mapped.read(state))
        return nnx.merge(self.program.graphdef, one.params.model, one.model_state, copy=True)

    def _prepare(self, batch: Batch) -> dict[str, Any]:
        if "image" not in batch:
            raise ValueError(f"batch: expected a dict with 'image' uint8 [B, h, w, c], got the fields {sorted(batch)}.")
        size = len(batch["image"])
        known = {"id": np.arange(size, dtype=np.int32), **batch}
        if missing := [name for name in self.program.inputs if name not in known]:
            raise ValueError(
                f"batch: expected {missing[0]!r} [{size}], which loss {self.program.objective.name!r} needs, "
                f"got the fields {sorted(batch)}."
            )
        given = {name: known[name] for name in self.program.inputs}
        given = {name: x if name == "image" else np.asarray(x, np.int32) for name, x in given.items()}
        if self._num_devices == 1:
            return given
        # Each device gets its share of every piece.
        positions = gradient.layout(size, self.program.batch_size or size, self._num_devices)
        return {name: x[positions] for name, x in given.items()}


def create(
    model: nnx.Module,
    loss: Callable[..., Any] = losses.simclr,
    optimizer: optax.GradientTransformation | None = None,
    views: ViewConfig | int = 32,
    *,
    loss_kwargs: Mapping[str, Any] | None = None,
    vrns_weight: float = 0.0,
    learnable: bool = False,
    precision: pairwise.Precision = "highest",
    num_instances: int | None = None,
    num_views: int = 2,
    batch_size: int | None = None,
    contrast_size: int | None = None,
    steps_per_epoch: int = 1,
    schedule: Callable[[jax.Array], jax.Array] | None = None,
    metrics: Sequence[Callable[..., Any]] = (),
    num_bins: int = 100,
    dimensions: int | None = None,
    queue_size: int = 4096,
    encoder_momentum: float | None = None,
    skip_nonfinite: bool = False,
    seed: int = 0,
    devices: Sequence[Any] | None = None,
    parallelism: str = "shard_map",
) -> tuple[TrainState, Step]:
    """Make a state and a step that train your own model. Everything but the model has a default.

    Args:
      model: any `flax.nnx.Module` from images [b, h, w, c] to embeddings [b, d]; an encoder alone, or
        `models.ContrastiveModel(encoder, head)`. Linen: `nnx.bridge.ToNNX(module, rngs=...)`, initialised.
      loss: any `f(u, v, *, ids, axis_name, ...) -> [m]`; see `losses`.
      optimizer: any Optax transformation; by default AdamW with learning rate 1e-3.
      views: how views are made; or their size in pixels, with the other settings of Lee 2025.
      loss_kwargs: the loss's hyperparameters.
      vrns_weight: the weight of the variance reduction for negative similarities, `losses.vrns`; needs num_instances.
      learnable: whether to learn the scale or temperature of the loss with the model.
      precision: of the products of the loss, see `pairwise.similarities`.
      num_instances: n, the size of the training set; required if VRNS or the loss depends on it.
      num_views: views of each image.
      batch_size: images encoded at once; larger steps are encoded in pieces (gradient caching). Default: all of them.
      contrast_size: images compared with each other. Default: the whole step.
      steps_per_epoch: steps in an epoch; views depend on (seed, epoch, id, view). By default every step is an epoch.
      schedule: step -> learning rate; it is only logged.
      metrics: functions of (state, embeddings, batch), logged under their names; see `measure.measure`.
      num_bins: bins of the logged similarity distribution; 0 logs the mean and variance of the negatives alone.
      dimensions: d of the embeddings; required for a loss with a queue.
      queue_size: how many past embeddings a loss with a queue keeps.
      encoder_momentum: the momentum of a momentum encoder, for a loss that takes its keys; None for no such encoder.
      skip_nonfinite: drop the update of a step if its loss, gradient or new parameters are not finite.
      seed: the seed of the views and of the random numbers inside the model.
      devices: the devices to map the step over, see `spmd.map_step`; None compiles it for one, without a mapped axis.
      parallelism: `"shard_map"` or `"pmap"`; ignored if devices is None.

    Returns:
      (state, step): see `TrainState` and `Step`.

    Raises:
      ValueError: if the model is not an NNX module, num_instances or dimensions is missing, or the loss does not take
        the precision.

    Example:
      >>> model = models.create("resnet10", image_shape=(8, 8, 1), encoder_kwargs={"width": 4})
      >>> state, step = create(model, losses.dhel, views=8)
      >>> images = np.random.default_rng(0).integers(0, 256, (16, 8, 8, 1), np.uint8)
      >>> state, metrics = step(state, {"image": images})
      >>> int(state.step), float(metrics["loss"]) > 0
      (1, True)
    """
    objective = Objective(loss, loss_kwargs or {}, vrns_weight, num_instances, learnable, precision)
    views = ViewConfig(size=views) if isinstance(views, int) else views
    graphdef, params, model_state = models.functional(model)
    if dimensions is None and objective.needs.memory and "queue" in objective.needs.memory.arguments:
        raise ValueError(f"dimensions: expected d of the embeddings [b, d], which {objective.name} needs, got None.")
    program = Program(
        graphdef=graphdef,
        optimizer=optax.adamw(1e-3) if optimizer is None else optimizer,
        objective=objective,
        view_config=views,
        batch_size=batch_size,
        contrast_size=contrast_size,
        num_views=num_views,
        schedule=schedule,
        steps_per_epoch=steps_per_epoch,
        seed=seed,
        skip_nonfinite=skip_nonfinite,
        metrics=measure.name_metrics(metrics, contrast_size=contrast_size, num_bins=num_bins),
        dimensions=dimensions or 0,
        queue_size=queue_size,
        encoder_momentum=encoder_momentum,
    )
    step = Step(program, devices, parallelism)
    return step.place(step_lib.init(program, params, model_state)), step
