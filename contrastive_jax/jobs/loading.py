"""Load the encoder of a run from its workdir, without its data, its loss, its optimiser and its devices."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from contrastive_jax import models
from contrastive_jax.errors import UsageError
from contrastive_jax.jobs import config as config_lib
from contrastive_jax.jobs import parts, weights
from contrastive_jax.jobs.encoder import Encoder
from contrastive_jax.jobs.job import build_model
from contrastive_jax.jobs.machine import saved_encoders
from contrastive_jax.jobs.workdir import CONFIG, DATA
from contrastive_jax.parts import reason


def load(
    workdir: str | os.PathLike[str],
    *,
    step: int | None = None,
    momentum: bool = False,
    encoder: Any = None,
    head: Any = None,
    batch_size: int | None = None,
) -> Encoder:
    """Load the encoder of a run from its workdir, which may be going on.

    It reads the run's record (`config.json`, `data.json`) and a checkpoint, whose digest it checks; it needs neither
    the data, the loss and the optimiser of the run, nor as many devices. It writes nothing.

    Args:
      workdir: the folder of the run.
      step: of the checkpoint; by default the last.
      momentum: load the momentum encoder that the run keeps for the loss, rather than the encoder that it trains.
      encoder: the encoder that the run was given from Python (`parts.Own`), if its name cannot be imported: a module or
        the function that makes it.
      head: the same of the head.
      batch_size: images to encode at once; by default the run's `evaluation.batch_size`. Fewer images cost as much.

    Returns:
      The encoder.

    Raises:
      UsageError: there is no run or no checkpoint, or its module cannot be made again; the message says what to give.
      DamagedError: the checkpoint does not hold what was saved.
      StorageError: the machine refuses to read it.

    Example:
      >>> load("runs/none")
      Traceback (most recent call last):
      ...
      contrastive_jax.errors.UsageError: runs/none: expected the workdir of a run, got no such folder.
    """
    workdir = Path(workdir)
    config = read_config(workdir)
    if batch_size is not None and batch_size < 1:
        raise UsageError(f"batch_size={batch_size}: expected at least 1.")
    saved = saved_encoders.read(workdir, step, momentum=momentum)
    graphdef, params, state = models.functional(rebuild(workdir, config, encoder=encoder, head=head))
    return Encoder(
        (graphdef, _fill(params, saved.params, workdir), _fill(state, saved.state, workdir)),
        saved,
        config,
        workdir,
        image_shape=read_image_shape(workdir, config),
        batch_size=batch_size or config.evaluation.batch_size,
        given=parts.Own(encoder=encoder, head=head),
    )


def read_config(workdir: Path) -> ConfigDict:
    """The configuration of a run, without importing what it names.

    Raises:
      UsageError: there is none, or it cannot be read.
    """
    text = read_record(workdir, CONFIG)
    try:
        return config_lib.from_json(text, check_arguments=False)
    except UsageError as error:
        first, *others = str(error).splitlines()
        also = f" {len(others)} more of its fields are at fault." if others else ""
        raise UsageError(f"{workdir / CONFIG}: {first}{also} {saved_encoders.OTHER_VERSION}") from None


def read_image_shape(workdir: Path, config: ConfigDict) -> tuple[int, int, int]:
    """(height, width, channels) of the images that the encoder of a run takes.

    Raises:
      UsageError: the record of the run's data cannot be read.
    """
    try:
        channels = json.loads(read_record(workdir, DATA))["train"]["image_shape"][-1]
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise UsageError(f"{workdir / DATA}: expected the JSON that a run wrote, got other text ({error!r}).") from None
    return config.data.image_size, config.data.image_size, channels


def read_record(workdir: Path, name: str) -> str:
    """The text of a file of a run's record.

    Raises:
      UsageError: there is no run, or the file cannot be read.
    """
    if not workdir.is_dir():
        raise UsageError(f"{workdir}: expected the workdir of a run, got no such folder.")
    try:
        return (workdir / name).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UsageError(f"{workdir}: expected the workdir of a run, got a folder without {name}.") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"{workdir / name}: expected a file that can be read, got {reason(error)}.") from None


def load_untrained(trained: Encoder) -> Encoder:
    """The encoder that a run began with, for comparison: drawn by its seed, or with the weights of its file.

    Args:
      trained: the encoder of the run.

    Raises:
      UsageError: its module cannot be made again, or the file of its weights is gone or another.
    """
    if trained.config.model.weights is not None:
        weights.record(trained.config)
    own = trained.given
    rebuilt = rebuild(trained.workdir, trained.config, encoder=own.encoder, head=own.head, start=True)
    model = models.functional(rebuilt)
    digest = saved_encoders.digest(*map(saved_encoders.name_leaves, model[1:]))
    saved = saved_encoders.Saved(0, "untrained encoder", {}, {}, digest, has_momentum=False)
    return Encoder(
        model,
        saved,
        trained.config,
        trained.workdir,
        image_shape=trained.image_shape,
        batch_size=trained.batch_size,
        given=own,
    )


def rebuild(
    workdir: Path, config: ConfigDict, *, encoder: Any = None, head: Any = None, start: bool = False
) -> nnx.Module:
    """The model of a run before its first step; without the weights that it started from, unless `start`.

    Raises:
      UsageError: a part cannot be imported or makes no module; the message says what to give.
    """
    config = config.copy_and_resolve_references()
    if not start:
        config.model.weights = None
    own = parts.Own()
    for kind, given in ((parts.ENCODER, encoder), (parts.HEAD, head)):
        try:
            part = parts.load(kind, parts.named(config, kind)) if given is None else given
            part = parts.load(kind, part) if isinstance(part, str) else part
        except UsageError as error:
            advice = f"Give the {kind.what} itself: load(..., {kind.what}=...)."
            raise UsageError(f"{workdir}: {str(error).rstrip('.')}. {advice}") from None
        if isinstance(part, nnx.Module):
            for name in list(parts.section(config, kind)):
                del parts.section(config, kind)[name]
        own = own._replace(**{kind.what: part})  # type: ignore[arg-type]
    try:
        return build_model(config, own, read_image_shape(workdir, config))
    except Exception as error:  # a user's part may raise anything
        raise UsageError(
            f"{workdir}: the model {config.model.name!r} with head {config.model.head!r} cannot be made again: "
            f"{parts.describe_error(error)} Give what the run was given: load(..., encoder=..., head=...)."
        ) from error


def _fill(like: nnx.State, arrays: Mapping[str, np.ndarray], workdir: Path) -> nnx.State:
    """A state of the structure of `like`, with other arrays by their names."""
    ours = saved_encoders.name_leaves(like)
    described = [{name: f"{x.dtype}{list(x.shape)}" for name, x in tree.items()} for tree in (ours, arrays)]
    differ = sorted(n for n in ours.keys() | arrays.keys() if described[0].get(n) != described[1].get(n))
    if differ:
        name = differ[0]
        raise UsageError(
            f"{workdir}: expected the model that the run trained, whose {name} is {described[1].get(name, 'not there')}"
            f", got one where it is {described[0].get(name, 'not there')} (and {len(differ) - 1} more differ). Restore "
            "its code, or give what the run was given: load(..., encoder=..., head=...)."
        )
    return jax.tree.unflatten(jax.tree.structure(like), [arrays[name] for name in ours])
