"""What is wrong with a configuration, found before anything is written, all of it at once."""

import math
from collections.abc import Iterator

import jax
from ml_collections import ConfigDict

from contrastive_jax.errors import UsageError
from contrastive_jax.jobs import config as config_lib
from contrastive_jax.jobs.config import FIELDS
from contrastive_jax.training import objective


def check(config: ConfigDict, *, num_devices: int, num_instances: int | None = None) -> None:
    """Refuse a configuration that cannot run, naming every field at fault.

    Args:
      config: of the fields of `default_config`.
      num_devices: devices of all processes.
      num_instances: size of the training set, once known.

    Raises:
      UsageError: one line a fault: the field, what was given, what is wanted.
    """
    faults = dict(field_faults(config))
    sound = config.copy_and_resolve_references()
    sound.update_from_flattened_dict({path: FIELDS[path].default for path in faults})
    together = [*_loss_faults(sound), *_joint_faults(sound, num_devices, num_instances)]
    # What is said of a field's default, in place of a value that is at fault, is no news.
    together = [fault for fault in together if not any(f"config.{path}" in fault for path in faults)]
    if lines := [*faults.values(), *together]:
        raise UsageError("\n".join(lines))


def field_faults(config: ConfigDict) -> Iterator[tuple[str, str]]:
    """Every field whose value, by itself, is out of its range, and a line that says so."""
    for path, value in config_lib.flatten(config).items():
        field = FIELDS[path]
        if value is None and field.optional:
            continue
        if value is None or not _is_finite(value) or not field.holds(value):
            yield path, f"config.{path}={value!r}: {field.wanted} is wanted."


def _is_finite(value: object) -> bool:
    numbers = value if isinstance(value, tuple) else (value,)
    return all(math.isfinite(x) for x in numbers if isinstance(x, float))


def _loss_faults(config: ConfigDict) -> list[str]:
    faults = [_kwargs_fault(config), _views_fault(config), _learnable_fault(config), _encoder_fault(config)]
    return [fault for fault in faults if fault] or _trace_faults(config)


def _kwargs_fault(config: ConfigDict) -> str | None:
    known = objective.hyperparameters(config.loss.name)
    for name, value in config_lib.loss_kwargs(config).items():
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
    start = {**objective.hyperparameters(name), **config_lib.loss_kwargs(config)}
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
        jax.eval_shape(lambda x, y: config_lib.objective_of(config, num_instances=2)(x, queue=y), instances, queue)
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
        faults += _queue_faults(
            config, config_lib.update_size(config, num_instances=num_instances, num_devices=num_devices)
        )
    try:
        config_lib.view_config(config)
    except ValueError as error:
        faults.append(f"config.views: {error}.")
    return faults


def _queue_faults(config: ConfigDict, update: int) -> list[str]:
    size = config.estimator.queue_size
    if size >= update:
        return []
    return [f"config.estimator.queue_size={size}: at least the {update} images of a step, which enter it, are wanted."]
