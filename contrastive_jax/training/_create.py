"""A training step of your own parts, for a notebook or a loop of your own."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from contrastive_jax import losses, models, spmd
from contrastive_jax.data.views import ViewConfig
from contrastive_jax.training import gradient, measure
from contrastive_jax.training import step as step_lib
from contrastive_jax.training.objective import Objective
from contrastive_jax.training.state import Program, TrainState

Batch = Mapping[str, Any]
_FIELDS = ("image", "id", "label")


class Step:
    """A compiled step `step(state, batch) -> (state, metrics)`, as `create` makes it.

    A batch is a dict of `image` uint8 [B, h, w, c], and perhaps `id` int [B], the images' numbers in the training set
    (default: their places in the batch), and `label` int [B], where the loss needs them.

    Attributes:
      program: all that the step does, as data: `training.train_step(program, state, batch, axis_name=...)` is the
        same step inside a mapping of your own.
    """

    def __init__(self, program: Program, devices: Sequence[Any] | None, parallelism: str):
        self.program = program
        self._mapped, self._num_devices = None, 1 if devices is None else len(devices)
        if devices is None:
            self._step = jax.jit(functools.partial(step_lib.train_step, program, axis_name=None))
        else:
            step = functools.partial(step_lib.train_step, program)
            self._mapped = spmd.map_step(step, parallelism=parallelism, devices=devices)

    def __call__(self, state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Any]]:
        """The state after a step, and what it logs; on several devices the state that is passed in is used up."""
        batch = self._prepare(batch)
        if self._mapped is None:
            return self._step(state, batch)
        state, metrics = self._mapped.step(state, self._mapped.place_batch(batch))
        return state, self._mapped.read(metrics)

    def place(self, state: TrainState) -> TrainState:
        """A state, for example one from a checkpoint, on the devices of this step."""
        return jax.tree.map(jnp.array, state) if self._mapped is None else self._mapped.place_state(state)

    def model(self, state: TrainState) -> nnx.Module:
        """The model as a state has it, for evaluation or for saving."""
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
        # Each device gets its share of every piece that is encoded at once.
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
    """A state and a step that trains a model of your own, with defaults for all but the model.

    Args:
      model: any `flax.nnx.Module` from images [b, h, w, c] to embeddings [b, d]; an encoder alone, or
        `models.ContrastiveModel(encoder, head)`. Linen: `nnx.bridge.ToNNX(module, rngs=...)`, initialised.
      loss: any `f(u, v, *, ids, axis_name, ...) -> [m]`; see `losses`.
      optimizer: any Optax transformation; by default AdamW at 1e-3.
      views: how views are made, or their size in pixels alone, with all else as in Lee 2025.
      loss_kwargs: the loss's hyperparameters.
      vrns_weight: of the variance reduction for negative similarities, `losses.vrns`; needs num_instances.
      learnable: learn the loss's scale, or temperature, with the model.
      num_instances: n, the size of the training set, where VRNS or the loss depends on it.
      num_views: views of each image.
      batch_size: images encoded at once; a larger step is encoded in pieces (gradient caching). Default: all of a step.
      contrast_size: images compared with each other. Default: all of a step.
      steps_per_epoch: views are drawn by (seed, epoch, id, view). By default every step is an epoch of its own.
      schedule: step -> learning rate, only to be logged.
      metrics: functions of (state, embeddings, batch), logged by their names; see `measure.measure`.
      num_bins: of the logged distribution of similarities; 0 leaves it out.
      dimensions: d of the embeddings, for a loss with a queue.
      queue_size: past embeddings that such a loss keeps.
      encoder_momentum: of a momentum encoder, for a loss that takes its keys.
      skip_nonfinite: drop the update of a step whose loss or gradient is not finite.
      seed: of the views and of the model's own random numbers.
      devices: map the step over these with `spmd.map_step`; None compiles it for one, without a mapped axis.
      parallelism: `"shard_map"` or `"pmap"`, where devices are given.

    Returns:
      (state, step): see `TrainState` and `Step`.

    Raises:
      ValueError: for a model that is no NNX module, or where num_instances or dimensions are missing.

    Example:
      >>> model = models.create("resnet10", image_shape=(8, 8, 1), encoder_kwargs={"width": 4})
      >>> state, step = create(model, losses.dhel, views=8)
      >>> images = np.random.default_rng(0).integers(0, 256, (16, 8, 8, 1), np.uint8)
      >>> state, metrics = step(state, {"image": images})
      >>> int(state.step), float(metrics["loss"]) > 0
      (1, True)
    """
    objective = Objective(loss, loss_kwargs or {}, vrns_weight, num_instances, learnable)
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
        metrics=measure.by_name(metrics, contrast_size=contrast_size, num_bins=num_bins),
        dimensions=dimensions or 0,
        queue_size=queue_size,
        encoder_momentum=encoder_momentum,
    )
    step = Step(program, devices, parallelism)
    return step.place(step_lib.init(program, params, model_state)), step
