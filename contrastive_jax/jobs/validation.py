"""Checks of a configuration. They report all faults at once, before anything is written."""

import inspect
import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from contrastive_jax import pairwise
from contrastive_jax.data import views
from contrastive_jax.data.sources import Source
from contrastive_jax.errors import UsageError
from contrastive_jax.jobs import config as config_lib
from contrastive_jax.jobs import parts
from contrastive_jax.jobs.fields import FIELDS
from contrastive_jax.losses import contract
from contrastive_jax.training.objective import LOSSES, MAX_SCALE, Instances, Objective

_WIDTH = 2  # of the embeddings in the trial call of a loss


def check(config: ConfigDict, own: parts.Own, *, num_devices: int, train: Source | None = None) -> None:
    """Refuse a configuration that cannot run, naming every field at fault.

    Args:
      config: of the fields of `default_config`.
      own: its parts, resolved.
      num_devices: devices of all processes.
      train: the training images, once they are open.

    Raises:
      UsageError: one line a fault: the field, what was given, what was expected.
    """
    faults = dict(field_faults(config, own))
    sound = config.copy_and_resolve_references()
    sound.update_from_flattened_dict({path: FIELDS[path].default for path in faults if path in FIELDS})
    together = [] if any("kwargs" in path for path in faults) else list(_loss_faults(sound, own))
    together += [*_size_faults(sound, num_devices), *_view_faults(sound), *_missing_faults(sound, own)]
    if train is not None:
        together += _data_faults(sound, own, num_devices, train)
    # Drop faults about a field whose wrong value was replaced by its default.
    together = [fault for fault in together if not any(f"config.{path}" in fault for path in faults)]
    if lines := [*faults.values(), *together]:
        raise UsageError("\n".join(lines))


def field_faults(config: ConfigDict, own: parts.Own = parts.NONE) -> Iterator[tuple[str, str]]:
    """Yield (path, message) for every field whose value has the wrong type or is out of range."""
    for path, value in config_lib.flatten(config).items():
        try:
            field = config_lib.find_field(path, config, own)
            config_lib.check_type(path, value, field)
        except UsageError as error:
            yield path, str(error)
            continue
        if value is None and field.optional:
            continue
        if value is None or not _is_finite(value) or not field.holds(value):
            expected = field.expected or f"a value of type {field.kind.__name__}"
            yield path, f"config.{path}={value!r}: expected {expected}."


def _is_finite(value: object) -> bool:
    numbers = value if isinstance(value, tuple) else (value,)
    return all(math.isfinite(x) for x in numbers if isinstance(x, float))


def _missing_faults(config: ConfigDict, own: parts.Own) -> Iterator[str]:
    """Yield a message for every required keyword argument that is missing."""
    for kind in parts.KINDS:
        given = parts.section(config, kind)
        for name, default in parts.arguments(kind, getattr(own, kind.what)).defaults.items():
            if default is inspect.Parameter.empty and name not in given:
                what = f"{kind.what} {parts.named(config, kind)!r}"
                yield f"config.{kind.kwargs}.{name}: expected a value, which {what} needs, got none."


def _loss_faults(config: ConfigDict, own: parts.Own) -> Iterator[str]:
    assert own.loss is not None
    needs, name = contract.needs_of(own.loss), parts.named(config, parts.LOSS)
    faults = [fault for fault in (_learnable_fault(config, own.loss), _precision_fault(config, own.loss)) if fault]
    if config.num_views != 2 and not needs.many_views:
        many = ", ".join(repr(name) for name, loss in LOSSES.items() if contract.needs_of(loss).many_views)
        faults.append(
            f"config.num_views={config.num_views}: expected 2 for loss {name!r}; the losses of more views are {many}."
        )
    if config.estimator.encoder_momentum is not None and not needs.keys:
        of_keys = ", ".join(repr(name) for name, loss in LOSSES.items() if contract.needs_of(loss).keys)
        momentum = config.estimator.encoder_momentum
        faults.append(
            f"config.estimator.encoder_momentum={momentum}: expected none for loss {name!r}; "
            f"the losses that compare with a momentum encoder are {of_keys}."
        )
    yield from faults or _trial_faults(config, own.loss)


def _learnable_fault(config: ConfigDict, loss: Any) -> str | None:
    name, learnable = config.loss.name, contract.needs_of(loss).learnable
    if not config.loss.learnable:
        return None
    if not learnable:
        known = ", ".join(repr(name) for name, loss in LOSSES.items() if contract.needs_of(loss).learnable)
        return f"config.loss.learnable=True: expected false for loss {name!r}; the losses that learn are {known}."
    start = {**contract.hyperparameters(loss), **config.loss.kwargs}
    if "scale" in learnable and not 0 < start["scale"] <= MAX_SCALE:
        return f"config.loss.kwargs.scale={start['scale']}: expected a start in (0, {MAX_SCALE:g}] where it is learnt."
    if "temperature" in learnable and start["temperature"] < 1 / MAX_SCALE:
        least = 1 / MAX_SCALE
        return f"config.loss.kwargs.temperature={start['temperature']}: expected at least {least:g} where it is learnt."
    return None


def _precision_fault(config: ConfigDict, loss: Any) -> str | None:
    precision, name = config.loss.precision, config.loss.name
    if precision == "highest":
        return None
    if not contract.takes_precision(loss):
        return (
            f"config.loss.precision={precision!r}: expected 'highest' for loss {name!r}, which has no parameter "
            "`precision`; give the function that parameter, and pass it on to its products."
        )
    rows = jax.ShapeDtypeStruct((2, _WIDTH), jnp.float32)
    try:  # only the compiler knows what a device can do
        jax.jit(partial(pairwise.similarities, precision=precision)).lower(rows, rows).compile()
    except Exception as error:
        backend = jax.default_backend()
        return f"config.loss.precision={precision!r}: expected a precision that this {backend} has: {_one_line(error)}"
    return None


def _trial_faults(config: ConfigDict, loss: Any) -> list[str]:
    """The errors that the loss raises for its hyperparameters, on two instances."""
    needs = contract.needs_of(loss)

    def call(view: jax.Array, ids: jax.Array) -> Any:
        memory, shared, remembered = needs.memory, {}, {}
        if memory is not None:
            state = memory.init(contract.Setting(2, _WIDTH, 2, 0))
            shared, remembered = memory.shared(state), memory.of_instances(state, ids)
        objective = objective_of(config, loss, num_instances=2)
        instances = Instances((view,) * config.num_views, ids, ids, None, remembered)
        return objective(instances, objective.parameters(), shared)

    shapes = jax.ShapeDtypeStruct((2, _WIDTH), jnp.float32), jax.ShapeDtypeStruct((2,), jnp.int32)
    try:
        jax.eval_shape(call, *shapes)
    except Exception as error:  # a user's part may raise anything
        return [f"config.loss.name={config.loss.name!r}, config.loss.kwargs: {parts.describe_error(error)}"]
    return []


def objective_of(config: ConfigDict, loss: Any, *, num_instances: int) -> Objective:
    """The objective of a run on a training set of this size."""
    of_loss = config.loss
    return Objective(
        loss, dict(of_loss.kwargs), config.vrns_weight, num_instances, of_loss.learnable, of_loss.precision
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _size_faults(config: ConfigDict, num_devices: int) -> list[str]:
    faults = []
    if config.batch_size % num_devices:
        faults.append(f"config.batch_size={config.batch_size}: expected a multiple of the {num_devices} devices.")
    contrast = config.contrast_size or config.batch_size
    if contrast < config.batch_size and config.batch_size % contrast:
        faults.append(f"config.contrast_size={contrast}: expected a divisor of config.batch_size={config.batch_size}.")
    if contrast > config.batch_size and contrast % num_devices:
        faults.append(f"config.contrast_size={contrast}: expected a multiple of the {num_devices} devices.")
    return faults


def _view_faults(config: ConfigDict) -> Iterator[str]:
    """Try each field of the views alone, to report all faults at once."""
    given = {"mean": config.data.mean, "std": config.data.std, **config.views}
    for name, value in given.items():
        try:
            views.ViewConfig(size=config.data.image_size, **{name: value})
        except (ValueError, TypeError) as error:
            section = "data" if name in ("mean", "std") else "views"
            yield f"config.{section}.{name}={value!r}: {_one_line(error)}"


def _data_faults(config: ConfigDict, own: parts.Own, num_devices: int, train: Source) -> Iterator[str]:
    """Yield a message for every field that does not fit the images."""
    count, channels, source = len(train), train.image_shape[-1], f"config.data.source={config.data.source!r}"
    contrast = config.contrast_size or config.batch_size
    if contrast > max(count, config.batch_size):
        yield f"config.contrast_size={contrast}: expected at most the {count} images of {source}; full is all of them."
    if config.batch_size > count:
        yield f"config.batch_size={config.batch_size}: expected at most the {count} images of {source}."
    for name in ("mean", "std"):
        value = config.data[name]
        if len(value) not in (1, channels):
            channel = "1 number" if channels == 1 else f"1 or {channels} numbers"
            yield f"config.data.{name}={value!r}: expected {channel} for images of {channels} channels."
    assert own.loss is not None
    memory = contract.needs_of(own.loss).memory
    if memory is not None and "queue" in memory.arguments:
        update = config_lib.update_size(config, num_instances=count, num_devices=num_devices)
        if (size := config.estimator.queue_size) < update:
            yield (f"config.estimator.queue_size={size}: expected at least {update}: all images of a step enter it.")
