"""The fields of a run's configuration: one table of defaults, types and limits, from which all else follows."""

import ast
import difflib
import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from absl import flags
from ml_collections import ConfigDict, config_dict

from contrastive_jax import spmd
from contrastive_jax.data import batches, views
from contrastive_jax.errors import UsageError
from contrastive_jax.models import resnet
from contrastive_jax.training import objective, optimizer


class Field(NamedTuple):
    """One field of the configuration."""

    default: Any
    kind: type
    wanted: str
    holds: Callable[[Any], bool] = lambda _: True
    optional: bool = False


def _one_of(default: str, names: Any) -> Field:
    return Field(default, str, "one of " + ", ".join(map(repr, names)), lambda x: x in names)


def _at_least(default: Any, least: float, kind: type = int, optional: bool = False) -> Field:
    noun = "a whole number" if kind is int else "a number"
    return Field(default, kind, f"{noun} >= {least}", lambda x: x >= least, optional)


def _momentum(default: float | None, optional: bool = False) -> Field:
    return Field(default, float, "a number in [0, 1)", lambda x: 0 <= x < 1, optional)


def _above(default: float | None, limit: float, optional: bool = False) -> Field:
    return Field(default, float, f"a number > {limit}", lambda x: x > limit, optional)


FIELDS: dict[str, Field] = {
    "seed": _at_least(0, 0),
    "epochs": _at_least(100, 1),
    "batch_size": _at_least(256, 2),
    "contrast_size": Field(None, int, "a whole number >= 2, or 0 for all", lambda x: x == 0 or x >= 2, optional=True),
    "num_views": _at_least(2, 2),
    "partition": _one_of("reshuffled", batches.PARTITIONS),
    "parallelism": _one_of("shard_map", spmd.PARALLELISMS),
    "on_nonfinite": _one_of("stop", ("stop", "skip")),
    "nonfinite_limit": _at_least(10, 1),
    "data.source": Field("digits", str, "digits, tfds:NAME, folder:PATH or npz:PATH", bool),
    "data.directory": Field(None, str, "the folder of TensorFlow Datasets", bool, optional=True),
    "data.image_size": _at_least(32, 4),
    "data.stored_size": _at_least(None, 4, optional=True),
    "data.mean": Field((0.5,), tuple, "numbers, one or one for each channel", bool),
    "data.std": Field((0.5,), tuple, "positive numbers, one or one for each channel", lambda x: x and min(x) > 0),
    "model.name": _one_of("resnet18", tuple(resnet.VARIANTS)),
    "model.stem": _one_of("small", ("small", "plain")),
    "model.width": _at_least(64, 1),
    "model.head_hidden": _at_least(None, 1, optional=True),
    "model.head_out": _at_least(128, 2),
    "model.dtype": _one_of("float32", ("float32", "bfloat16")),
    "loss.name": _one_of("simclr", tuple(objective.LOSSES)),
    "loss.learnable": Field(False, bool, "true or false"),
    "estimator.queue_size": _at_least(4096, 1),
    "estimator.encoder_momentum": _momentum(None, optional=True),
    "vrns_weight": _at_least(0.0, 0, float),
    "optimizer.name": _one_of("sgd", optimizer.OPTIMIZERS),
    "optimizer.learning_rate": _above(0.3, 0),
    "optimizer.momentum": _momentum(0.9),
    "optimizer.weight_decay": _at_least(1e-4, 0, float),
    "optimizer.warmup_epochs": _at_least(10.0, 0, float),
    "optimizer.decay": _one_of("cosine", ("cosine", "constant")),
    "checkpoint.every": _at_least(1000, 1),
    "checkpoint.keep": _at_least(3, 1),
    "log.distribution": Field(True, bool, "true or false"),
    "log.num_bins": _at_least(100, 2),
    "log.tensorboard_every": _at_least(1, 1),
    "evaluation.raw_pixels": Field(True, bool, "true or false"),
    "evaluation.batch_size": _at_least(256, 1),
    "evaluation.probe_epochs": _at_least(200, 1),
    "evaluation.probe_learning_rate": _above(0.1, 0),
    "evaluation.knn_neighbours": _at_least(200, 1),
    "evaluation.knn_temperature": _above(0.07, 0),
    "evaluation.labels_per_class": _at_least(5, 1),
    "evaluation.draws": _at_least(3, 1),
}


def _loss_fields() -> Iterator[tuple[str, Field]]:
    """A field for every hyperparameter of any loss; unset, it is the loss's own default."""
    for name in objective.LOSSES:
        for argument, default in objective.hyperparameters(name).items():
            kind = float if default is None else type(default)
            limit = _above(None, 0, optional=True) if argument == "temperature" else None
            yield f"loss.kwargs.{argument}", limit or Field(None, kind, "", optional=True)


def _view_fields() -> Iterator[tuple[str, Field]]:
    """A field for everything about the views but their size and normalisation, which belong to `data`."""
    for name, parameter in inspect.signature(views.ViewConfig).parameters.items():
        if name not in ("size", "mean", "std"):
            yield f"views.{name}", Field(parameter.default, type(parameter.default), "")


FIELDS |= dict(_loss_fields()) | dict(_view_fields())
_PARSERS: dict[type, flags.ArgumentParser] = {
    int: flags.IntegerParser(),
    float: flags.FloatParser(),
    bool: flags.BooleanParser(),
}


def default_config() -> ConfigDict:
    """Every field of a run, at its default: the protocol of Lee 2025 for CIFAR, on the digits.

    A preset changes what differs; a run's overrides (`--config.loss.kwargs.temperature=0.1`) come on top. A field that
    does not exist cannot be set.

    Example:
      >>> config = default_config()
      >>> config.loss.name, config.optimizer.learning_rate
      ('simclr', 0.3)
    """
    config = ConfigDict()
    for path, field in FIELDS.items():
        node = config
        *parents, leaf = path.split(".")
        for parent in parents:
            if parent not in node:
                node[parent] = ConfigDict()
            node = node[parent]
        node[leaf] = config_dict.placeholder(field.kind) if field.default is None else field.default
    return config.lock()


def unknown_field(path: str) -> str | None:
    """A line that says so, if there is no such field or section."""
    if path in FIELDS or any(name.startswith(f"{path}.") for name in FIELDS):
        return None
    near = difflib.get_close_matches(path, FIELDS, n=3)
    return f"config.{path}: there is no such field; {'near it: ' + ', '.join(near) if near else 'see default_config'}."


def override_fault(path: str, text: str) -> str | None:
    """A line that says what is wrong with `--config.{path}={text}`, if there is no such field or it is of another type.

    Example:
      >>> override_fault("epochs", "ten")
      'config.epochs=ten: a whole number >= 1 is wanted.'
    """
    if path not in FIELDS or text.lower() == "none":
        return unknown_field(path)
    field = FIELDS[path]
    try:
        if field.kind in _PARSERS:
            _PARSERS[field.kind].parse(text)
        elif field.kind is tuple:
            ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError):
        return f"config.{path}={text}: {field.wanted or f'a value of type {field.kind.__name__}'} is wanted."
    return None


def from_json(text: str) -> ConfigDict:
    """The configuration that a run's `config.json` holds.

    Raises:
      UsageError: for what is no JSON, a field that does not exist, or a value of another type.
    """
    try:
        given = flatten(json.loads(text))
    except (ValueError, AttributeError) as error:
        raise UsageError(f"no configuration of a run ({error}).") from None
    if problems := [problem for path in given if (problem := unknown_field(path))]:
        raise UsageError("\n".join(problems))
    config = default_config()
    for path, value in given.items():
        try:
            config.update_from_flattened_dict({path: tuple(value) if isinstance(value, list) else value})
        except TypeError:
            kind = FIELDS[path].kind.__name__
            raise UsageError(f"config.{path}={value!r}: a value of type {kind} is wanted.") from None
    return config


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested configuration as {dotted path: value}."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        path = f"{prefix}{name}"
        flat |= flatten(value, f"{path}.") if isinstance(value, Mapping | ConfigDict) else {path: value}
    return flat


def contrast_size(config: ConfigDict, *, num_instances: int, num_devices: int) -> int:
    """Instances compared with each other: by default the batch; for 0 all that divide evenly over the devices."""
    if config.contrast_size is None:
        return config.batch_size
    return config.contrast_size or num_instances - num_instances % num_devices


def update_size(config: ConfigDict, *, num_instances: int, num_devices: int) -> int:
    """Instances of one step: a batch, or a contrast set that takes several."""
    return max(config.batch_size, contrast_size(config, num_instances=num_instances, num_devices=num_devices))


def loss_kwargs(config: ConfigDict) -> dict[str, Any]:
    """The loss's hyperparameters that were set; a preset's temperature is left out for a loss that has none."""
    given = {name: value for name, value in config.loss.kwargs.items() if value is not None}
    if not takes_temperature(config):
        given.pop("temperature", None)
    return given


def takes_temperature(config: ConfigDict) -> bool:
    """Whether the loss has a temperature."""
    return "temperature" in objective.hyperparameters(config.loss.name)


def objective_of(config: ConfigDict, *, num_instances: int) -> objective.Objective:
    """What the run trains, on a training set of so many instances."""
    loss = config.loss
    return objective.Objective(loss.name, loss_kwargs(config), config.vrns_weight, num_instances, loss.learnable)


def view_config(config: ConfigDict) -> views.ViewConfig:
    """How the run's views are made."""
    return views.ViewConfig(size=config.data.image_size, mean=config.data.mean, std=config.data.std, **config.views)
