"""Prepare a run: check its configuration and trace its step, before anything is written."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from flax import nnx
from ml_collections import ConfigDict

from contrastive_jax import models, spmd
from contrastive_jax.data import batches, sources
from contrastive_jax.errors import UsageError
from contrastive_jax.jobs import config as config_lib
from contrastive_jax.jobs import opening, parts, validation, weights
from contrastive_jax.training import measure, optimizer
from contrastive_jax.training import step as step_lib
from contrastive_jax.training.state import Program, TrainState


class Job(NamedTuple):
    """Everything a run needs, checked. Nothing has been written yet."""

    config: ConfigDict
    workdir: Path
    train: sources.Source
    test: sources.Source
    bank: sources.Source  # what probes and nearest neighbours learn from; see `opening.Data`
    order: batches.BatchOrder
    program: Program
    initial: TrainState
    fingerprints: dict[str, Any]  # of the training, the test and other labelled images
    mapped: spmd.Mapped  # the traced step on the devices of this job

    @property
    def num_steps(self) -> int:
        """The number of steps of the whole run."""
        return self.config.epochs * self.order.steps_per_epoch

    @property
    def contrast_size(self) -> int:
        """The number of instances that are compared with each other."""
        return self.program.contrast_size or self.order.update_size


def prepare(config: ConfigDict, workdir: Path, *, steps: int | None = None, own: parts.Own = parts.NONE) -> Job:
    """Check everything that can be checked, open the data, build the model, trace the step; write nothing.

    Args:
      config: the fields of `default_config`.
      workdir: of the run.
      steps: where it stops, if before its end.
      own: parts given from Python.

    Raises:
      UsageError: one line for each fault.
    """
    config, own = parts.record(config, own)
    check_workdir(workdir)
    if steps is not None and steps < 1:
        raise UsageError(f"--steps={steps}: expected at least 1.")
    devices = len(spmd.devices())
    own = parts.resolve(config, own)
    validation.check(config, own, num_devices=devices)
    weights.record(config)
    data = opening.open_data(config, own)
    train = data.train
    validation.check(config, own, num_devices=devices, train=train)
    opening.check_labels(config, own, data)
    update_size = config_lib.update_size(config, num_instances=len(train), num_devices=devices)
    order = batches.BatchOrder(len(train), update_size, config.seed, config.partition)
    program, initial = build(config, own, train, order)
    mapped = _trace(program, initial, train, order, parallelism=config.parallelism)
    return Job(config, workdir, *data, order, program, initial, opening.fingerprint(data), mapped)


def check_workdir(workdir: Path) -> None:
    """Refuse the address of an object store.

    Raises:
      UsageError: it is one.
    """
    scheme, given, _ = str(workdir).partition(":/")
    if given and scheme.isalnum() and len(scheme) > 1:
        raise UsageError(
            f"--workdir={workdir}: expected a folder, got an address; object stores are not supported yet. "
            "Mount the bucket as a folder (gcsfuse, s3fs, ...) and give that folder."
        )


def build(
    config: ConfigDict, own: parts.Own, train: sources.Source, order: batches.BatchOrder
) -> tuple[Program, TrainState]:
    """Build the training program and its initial state.

    Args:
      config: of the run.
      own: its parts, resolved.
      train: the training images.
      order: of its steps.
    """
    shape = (config.data.image_size, config.data.image_size, train.image_shape[-1])
    with _explain(f"config.model.name={config.model.name!r}, config.model.head={config.model.head!r}"):
        model = build_model(config, own, shape)
        graphdef, params, model_state = models.functional(model)
        dimensions = models.num_features(model, shape)
    program = make_program(config, own, order, graphdef, dimensions)
    with _explain(f"config.optimizer.name={config.optimizer.name!r}, config.loss.name={config.loss.name!r}"):
        # In the host's memory: the evaluation needs it at the end, the devices do not.
        return program, jax.tree.map(np.asarray, step_lib.init(program, params, model_state))


def make_program(
    config: ConfigDict, own: parts.Own, order: batches.BatchOrder, graphdef: Any, dimensions: int
) -> Program:
    """What a step computes, without the arrays that it starts from.

    Args:
      config: of the run; `sweeps.stack` puts tracers in place of some of its numbers.
      own: its parts, resolved.
      order: of its steps.
      graphdef: of the model.
      dimensions: d of the embeddings.
    """
    schedule = optimizer.learning_rate_schedule(
        config.optimizer.learning_rate,
        update_size=order.update_size,
        steps_per_epoch=order.steps_per_epoch,
        warmup_epochs=config.optimizer.warmup_epochs,
        epochs=config.epochs,
        decay=config.optimizer.decay,
    )
    contrast_size = config_lib.contrast_size(config, num_instances=order.num_instances, num_devices=len(spmd.devices()))
    num_bins = config.log.num_bins if config.log.distribution else 0
    with _explain(f"config.optimizer.name={config.optimizer.name!r}"):
        transformation = _build_optimizer(config, own, schedule)
    with _explain("config.log.metrics"):
        metrics = measure.name_metrics(own.metrics, contrast_size=contrast_size, num_bins=num_bins)
    return Program(
        graphdef=graphdef,
        optimizer=transformation,
        objective=validation.objective_of(config, own.loss, num_instances=order.num_instances),
        view_config=config_lib.view_config(config),
        batch_size=config.batch_size,
        contrast_size=contrast_size,
        num_views=config.num_views,
        schedule=schedule,
        steps_per_epoch=order.steps_per_epoch,
        seed=config.seed,
        skip_nonfinite=config.on_nonfinite == "skip",
        metrics=metrics,
        dimensions=dimensions,
        queue_size=config.estimator.queue_size,
        encoder_momentum=config.estimator.encoder_momentum,
    )


@contextlib.contextmanager
def _explain(what: str) -> Iterator[None]:
    """Turn what a user's part raises within this context into one line."""
    try:
        yield
    except Exception as error:
        raise UsageError(f"{what}: {parts.describe_error(error)}") from error


def _build_optimizer(config: ConfigDict, own: parts.Own, schedule: optax.Schedule) -> optax.GradientTransformation:
    given: Any = own.optimizer
    if not isinstance(given, optax.GradientTransformation):
        given = given(schedule, **config.optimizer.kwargs)
    if not isinstance(given, optax.GradientTransformation):
        raise UsageError(f"expected an Optax gradient transformation, got {type(given).__name__}.")
    return given


def build_model(config: ConfigDict, own: parts.Own, image_shape: tuple[int, int, int]) -> models.ContrastiveModel:
    """The model before the first step: drawn by the run's seed, or with the weights of a file.

    Args:
      config: of the run.
      own: its parts; the encoder and the head are resolved.
      image_shape: (height, width, channels) of the views.

    Raises:
      UsageError: a part makes no module, or the file of the weights does not fit it.
    """
    model = models.create(
        _builder_of(own.encoder),
        image_shape=image_shape,
        head=_builder_of(own.head),
        encoder_kwargs=dict(config.model.kwargs),
        head_kwargs=dict(config.model.head_kwargs),
        seed=config.seed,
    )
    if config.model.weights is not None:
        weights.load_into(model.encoder, config.model.weights)
    return model


def _builder_of(part: Any) -> Any:
    """Wrap a module that is already built in a function; return any other function unchanged."""
    return (lambda _, *, rngs: part) if isinstance(part, nnx.Module) else part


def _trace(
    program: Program, initial: TrainState, train: sources.Source, order: batches.BatchOrder, *, parallelism: str
) -> spmd.Mapped:
    """Trace the step on all devices, so that its errors appear now."""
    devices = spmd.devices()
    mapped = spmd.map_step(
        lambda state, batch: step_lib.train_step(program, state, batch), parallelism=parallelism, devices=devices
    )
    size = order.update_size
    known = {
        "image": jax.ShapeDtypeStruct((size, *train.image_shape), np.uint8),
        "id": jax.ShapeDtypeStruct((size,), np.int32),
        "label": jax.ShapeDtypeStruct((size,), np.int32),
    }
    try:
        mapped.trace(initial, {name: known[name] for name in program.inputs})
    except Exception as error:  # a user's part may raise anything
        raise UsageError(f"the first step cannot be traced: {parts.describe_error(error)}") from error
    return mapped
