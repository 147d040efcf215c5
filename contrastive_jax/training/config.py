"""The fields of a run's configuration: one table of defaults, types and limits, from which all else follows."""

import difflib
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict, config_dict

from contrastive_jax import spmd
from contrastive_jax.data import batches, views
from contrastive_jax.models import resnet
from contrastive_jax.training import objective, optimizer


class UsageError(ValueError):
    """What was asked for cannot be done; the message says what was given, what is wanted and what to do."""


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


def check(config: ConfigDict, *, num_devices: int, num_instances: int | None = None) -> None:
    """Refuse a configuration that cannot run, naming every field at fault.

    Args:
      config: of the fields of `default_config`.
      num_devices: devices of all processes.
      num_instances: size of the training set, once known.

    Raises:
      UsageError: one line a fault: the field, what was given, what is wanted.
    """
    faults = [*_field_faults(config)] or _loss_faults(config)
    faults = faults or _joint_faults(config, num_devices, num_instances)
    if faults:
        raise UsageError("\n".join(faults))


def _field_faults(config: ConfigDict) -> Iterator[str]:
    for path, value in flatten(config).items():
        field = FIELDS[path]
        if value is None and field.optional:
            continue
        if value is None or not field.holds(value):
            yield f"config.{path}={value!r}: {field.wanted} is wanted."


def _loss_faults(config: ConfigDict) -> list[str]:
    faults = [_kwargs_fault(config), _views_fault(config), _learnable_fault(config), _encoder_fault(config)]
    return [fault for fault in faults if fault] or _trace_faults(config)


def _kwargs_fault(config: ConfigDict) -> str | None:
    known = objective.hyperparameters(config.loss.name)
    for name, value in loss_kwargs(config).items():
        if name not in known:
            return (
                f"config.loss.kwargs.{name}={value!r}: loss {config.loss.name!r} has no such hyperparameter; "
                f"it takes {', '.join(known) or 'none'}."
            )
    return None


def _views_fault(config: ConfigDict) -> str | None:
    if config.num_views == 2 or objective.takes_many_views(config.loss.name):
        return None
    many = ", ".join(repr(name) for name in objective.LOSSES if objective.takes_many_views(name))
    return (
        f"config.num_views={config.num_views}: 2 are wanted for loss {config.loss.name!r}; "
        f"the losses of more views are {many}."
    )


def _learnable_fault(config: ConfigDict) -> str | None:
    name, most = config.loss.name, objective.MAX_SCALE
    if not config.loss.learnable:
        return None
    if name not in objective.LEARNABLE_LOSSES:
        known = ", ".join(map(repr, objective.LEARNABLE_LOSSES))
        return f"config.loss.learnable=True: false is wanted for loss {name!r}; the losses that learn are {known}."
    start = {**objective.hyperparameters(name), **loss_kwargs(config)}
    if "scale" in start and not 0 < start["scale"] <= most:
        return f"config.loss.kwargs.scale={start['scale']}: a start in (0, {most:g}] is wanted where it is learnt."
    if "temperature" in start and start["temperature"] < 1 / most:
        return (
            f"config.loss.kwargs.temperature={start['temperature']}: "
            f"a start >= {1 / most:g} is wanted where it is learnt."
        )
    return None


def _encoder_fault(config: ConfigDict) -> str | None:
    momentum, name = config.estimator.encoder_momentum, config.loss.name
    if momentum is None or name == "moco":
        return None
    return f"config.estimator.encoder_momentum={momentum}: loss 'moco' is wanted with it; got {name!r}."


def _trace_faults(config: ConfigDict) -> list[str]:
    """What the loss itself says of its hyperparameters."""
    instances, queue = objective.shapes(config.loss.name, config.num_views)
    try:
        jax.eval_shape(lambda x, y: objective_of(config, num_instances=2)(x, queue=y), instances, queue)
    except ValueError as error:
        return [f"config.loss.kwargs: {error}"]
    return []


def _joint_faults(config: ConfigDict, num_devices: int, num_instances: int | None) -> list[str]:
    faults = []
    if config.batch_size % num_devices:
        faults.append(f"config.batch_size={config.batch_size}: a multiple of the {num_devices} devices is wanted.")
    contrast = config.contrast_size or config.batch_size
    if contrast < config.batch_size and config.batch_size % contrast:
        faults.append(f"config.contrast_size={contrast}: a divisor of config.batch_size={config.batch_size} is wanted.")
    if contrast > config.batch_size and contrast % num_devices:
        faults.append(f"config.contrast_size={contrast}: a multiple of the {num_devices} devices is wanted.")
    if num_instances is not None and contrast > max(num_instances, config.batch_size):
        faults.append(
            f"config.contrast_size={contrast}: at most the {num_instances} images of "
            f"config.data.source={config.data.source!r} are wanted; 0 is all of them."
        )
    if num_instances is not None and config.batch_size > num_instances:
        faults.append(
            f"config.batch_size={config.batch_size}: at most the {num_instances} images of "
            f"config.data.source={config.data.source!r} are wanted."
        )
    if num_instances is not None and config.loss.name == "moco":
        faults += _queue_faults(config, update_size(config, num_instances=num_instances, num_devices=num_devices))
    try:
        view_config(config)
    except ValueError as error:
        faults.append(f"config.views: {error}.")
    return faults


def _queue_faults(config: ConfigDict, update: int) -> list[str]:
    size = config.estimator.queue_size
    if size >= update:
        return []
    return [f"config.estimator.queue_size={size}: at least the {update} images of a step, which enter it, are wanted."]
