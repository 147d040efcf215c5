"""From a configuration to everything a run needs, checked, before anything is written."""

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from contrastive_jax import models, spmd
from contrastive_jax.data import batches, sources
from contrastive_jax.errors import SourceError, UsageError
from contrastive_jax.jobs import config as config_lib
from contrastive_jax.jobs import validation
from contrastive_jax.jobs.machine import files, processes, storage
from contrastive_jax.training import optimizer
from contrastive_jax.training import step as step_lib

# What may change between two starts of a run, because no number that it leaves depends on it but through `skip`.
CHANGEABLE = ("checkpoint.every", "checkpoint.keep", "log.tensorboard_every", "nonfinite_limit", "on_nonfinite")


class Job(NamedTuple):
    """Everything a run needs, checked, with nothing written yet."""

    config: ConfigDict
    workdir: Path
    train: sources.Source
    test: sources.Source
    order: batches.BatchOrder
    program: step_lib.Program
    initial: step_lib.TrainState

    @property
    def num_steps(self) -> int:
        """Steps in the whole run."""
        return self.config.epochs * self.order.steps_per_epoch


def prepare(config: ConfigDict, workdir: Path, *, steps: int | None = None) -> Job:
    """Check everything that can be checked, open the data, build the model; write nothing."""
    devices = len(spmd.devices())
    validation.check(config, num_devices=devices)
    if steps is not None and steps < 1:
        raise UsageError(f"--steps={steps}: at least 1 is wanted.")
    train, test = (_load(config, split) for split in ("train", "test"))
    validation.check(config, num_devices=devices, num_instances=len(train))
    _check_labels(config, train)
    update = config_lib.update_size(config, num_instances=len(train), num_devices=devices)
    order = batches.BatchOrder(len(train), update, config.seed, config.partition)
    program, initial = build(config, train, order)
    temperature = config.loss.kwargs.temperature
    if processes.is_first() and temperature is not None and not config_lib.takes_temperature(config):
        print(f"Loss {config.loss.name!r} has no temperature: the {temperature} given goes unused.", file=sys.stderr)
    return Job(config, workdir, train, test, order, program, initial)


def _load(config: ConfigDict, split: str) -> sources.Source:
    data = config.data
    try:
        return sources.load(
            data.source,
            split=split,
            image_size=data.image_size,
            stored_size=data.stored_size,
            data_dir=data.directory,
        )
    except SourceError as error:
        raise UsageError(f"config.data.source={data.source!r}: {error}") from None


def _check_labels(config: ConfigDict, train: sources.Source) -> None:
    """The probe on a few labels needs them; better said now than after the training."""
    counts = np.bincount(train.labels, minlength=train.num_classes)
    least = int(np.argmin(counts))
    if counts[least] < config.evaluation.labels_per_class:
        raise UsageError(
            f"config.evaluation.labels_per_class={config.evaluation.labels_per_class}: at most the {counts[least]} "
            f"training images of class {least} of config.data.source={config.data.source!r} are wanted."
        )


def build(
    config: ConfigDict, train: sources.Source, order: batches.BatchOrder
) -> tuple[step_lib.Program, step_lib.TrainState]:
    """The training program, and the state it starts from."""
    model = models.create(
        config.model.name,
        channels=train.image_shape[-1],
        stem=config.model.stem,
        width=config.model.width,
        head_hidden=config.model.head_hidden,
        head_out=config.model.head_out,
        dtype=config.model.dtype,
        axis_name=spmd.AXIS,
        seed=config.seed,
    )
    graphdef, params, batch_stats = models.functional(model)
    schedule = optimizer.learning_rate_schedule(
        config.optimizer.learning_rate,
        batch_size=order.batch_size,
        steps_per_epoch=order.steps_per_epoch,
        warmup_epochs=config.optimizer.warmup_epochs,
        epochs=config.epochs,
        decay=config.optimizer.decay,
    )
    program = step_lib.Program(
        graphdef=graphdef,
        optimizer=optimizer.create(
            config.optimizer.name,
            schedule,
            momentum=config.optimizer.momentum,
            weight_decay=config.optimizer.weight_decay,
        ),
        schedule=schedule,
        objective=config_lib.objective_of(config, num_instances=len(train)),
        view_config=config_lib.view_config(config),
        num_views=config.num_views,
        pass_size=config.batch_size,
        contrast_size=config_lib.contrast_size(config, num_instances=len(train), num_devices=len(spmd.devices())),
        steps_per_epoch=order.steps_per_epoch,
        seed=config.seed,
        skip_nonfinite=config.on_nonfinite == "skip",
        num_bins=config.log.num_bins if config.log.distribution else 0,
        queue_shape=(config.estimator.queue_size, config.model.head_out),
        encoder_momentum=config.estimator.encoder_momentum,
    )
    return program, step_lib.init(program, params, batch_stats)


@contextlib.contextmanager
def claim_workdir(job: Job) -> Iterator[None]:
    """Make the workdir this run's own, or find that it already is, and keep every other run out of it.

    Raises:
      UsageError: if it cannot be written, another run is going on there, or it holds a run of another configuration.
    """
    with storage.hold_lock(job.workdir) if processes.is_first() else contextlib.nullcontext():
        if processes.is_first():
            _claim(job.workdir, job.config)
        processes.wait_for_all("claim_workdir")
        if not processes.is_first():
            _find_claimed(job.workdir, job.config)
        yield


def _claim(workdir: Path, config: ConfigDict) -> None:
    path, text = workdir / "config.json", config.to_json(indent=2) + "\n"
    if path.exists():
        _compare(path, config)
        if path.read_text() == text:
            return
    with files.replacing(path) as temporary:
        temporary.write_text(text)


def _find_claimed(workdir: Path, config: ConfigDict) -> None:
    """See the workdir as the first process left it."""
    if not (workdir / "config.json").exists():
        raise UsageError(
            f"--workdir={workdir}: process {jax.process_index()} does not see what process 0 wrote there; "
            "a folder that all processes share is wanted."
        )
    _compare(workdir / "config.json", config)


def _compare(path: Path, config: ConfigDict) -> None:
    ours = config_lib.flatten(json.loads(config.to_json()))
    try:
        theirs = config_lib.flatten(json.loads(path.read_text()))
    except ValueError as error:
        raise UsageError(f"{path} is no configuration of a run ({error}). Give another workdir.") from None
    differ = [
        f"{name} (there {theirs.get(name)!r}, here {ours.get(name)!r})"
        for name in sorted(theirs.keys() | ours.keys())
        if theirs.get(name) != ours.get(name) and not (name in CHANGEABLE and name in theirs)
    ]
    if differ:
        raise UsageError(
            f"--workdir={path.parent} holds a run with another configuration: {', '.join(differ)}. "
            "Give another workdir, or the same configuration to continue that run."
        )
