"""The configuration of a run: made from the table of fields, set from text, read from JSON, checked."""

import ast
import difflib
import json
import numbers
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict, config_dict

from contrastive_jax.data import views
from contrastive_jax.errors import UsageError
from contrastive_jax.jobs import parts
from contrastive_jax.jobs.fields import FIELDS, LIMITED_ARGUMENTS, Field

_BOOLEANS = {"true": True, "false": False, "1": True, "0": False}


def default_config() -> ConfigDict:
    """All fields of a run at their defaults: the protocol of Lee 2025 for CIFAR, applied to the digits.

    A preset sets the fields that differ, and the overrides of a run (`--config.loss.kwargs.temperature=0.1`) apply
    last. Only existing fields can be set. The sections of keyword arguments (`loss.kwargs`, `model.kwargs`, ...) start
    empty; each accepts the arguments of its part, such as the loss or the encoder.

    Example:
      >>> config = default_config()
      >>> config.loss.name, config.optimizer.learning_rate
      ('simclr', 0.3)
      >>> config.loss.kwargs.temperature = 0.1
    """
    config = ConfigDict()
    for path, field in FIELDS.items():
        node = config
        *sections, leaf = path.split(".")
        for section in sections:
            if section not in node:
                node[section] = ConfigDict()
            node = node[section]
        node[leaf] = config_dict.placeholder(field.kind) if field.default is None else field.default
    for kind in parts.KINDS:
        section, _, leaf = kind.kwargs.partition(".")
        config[section][leaf] = ConfigDict()
    config.lock()
    for kind in parts.KINDS:
        parts.section(config, kind).unlock()
    return config


def find_field(path: str, config: ConfigDict, own: parts.Own = parts.NONE) -> Field:
    """Find the field at a dotted path. The keyword arguments of a part are fields, too.

    Args:
      path: the path without "config.", such as "loss.kwargs.temperature".
      config: names the parts.
      own: parts given from Python, which replace those that the configuration names.

    Raises:
      UsageError: if there is no such field. The message names similar fields, or the arguments that the part takes.
    """
    if path in FIELDS:
        return FIELDS[path]
    for kind in parts.KINDS:
        name = path.removeprefix(f"{kind.kwargs}.")
        if name != path:
            return _find_argument(kind, name, config, own)
    near = difflib.get_close_matches(path, FIELDS, n=3)
    advice = f"similar fields are {', '.join(near)}" if near else f"the fields are {', '.join(FIELDS)}"
    raise UsageError(f"config.{path}: expected the name of a field; {advice}.")


def _find_argument(kind: parts.Kind, name: str, config: ConfigDict, own: parts.Own) -> Field:
    part = getattr(own, kind.what) or parts.load(kind, parts.named(config, kind))
    taken = parts.arguments(kind, part)
    path, what = f"config.{kind.kwargs}.{name}", f"{kind.what} {parts.named(config, kind)!r}"
    if name.partition(".")[0] in kind.passed:
        field = f"{kind.kwargs.partition('.')[0]}.{name}"
        advice = f", from config.{field}" if field in FIELDS else ""
        raise UsageError(
            f"{path}: expected an argument that is yours to set; the job passes this one to {what}{advice}."
        )
    if "." in name:
        raise UsageError(
            f"{path}: expected a number, text or a tuple of them, got a dictionary; bind it in a function of your own."
        )
    if name not in taken.defaults and not taken.any_other:
        known = ", ".join(taken.defaults) or "none"
        raise UsageError(f"{path}: expected a keyword argument of {what}, which takes {known}.")
    default = taken.defaults.get(name)
    if name in LIMITED_ARGUMENTS and any(part is known for known in kind.known.values()):
        return LIMITED_ARGUMENTS[name]._replace(optional=default is None)
    return _argument_field(default, taken.annotations.get(name))


_PLAIN: dict[str, type] = {kind.__name__: kind for kind in (bool, int, float, str, tuple)}


def _argument_field(default: Any, annotation: Any) -> Field:
    """The field of an argument, of the type of its annotation (`int`, `float | None`), else of its default."""
    text = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    named = {name.strip().partition("[")[0] for name in text.split("|")} - {"None"}
    kind: Any = _PLAIN.get(named.pop()) if len(named) == 1 else None
    if kind is None:
        kind = next((plain for plain in _PLAIN.values() if isinstance(default, plain)), object)
        kind = numbers.Real if kind is int else kind  # nothing says that 0.5 will not do where the default is 1
    optional = default is None or "None" in text or kind is object
    noun = {object: "a value", numbers.Real: "a number"}.get(kind, f"a value of type {kind.__name__}")
    return Field(None, kind, noun, optional=optional)


def set_from_text(config: ConfigDict, path: str, text: str) -> None:
    """Set a field from text, as `--config.{path}={text}` does on the command line.

    Args:
      config: the configuration to change.
      path: the path of the field.
      text: its value; "none" stands for None where a field may be None, and "full" for a contrast_size of 0.

    Raises:
      UsageError: if there is no such field, or its type has no such value.

    Example:
      >>> config = default_config()
      >>> set_from_text(config, "loss.kwargs.temperature", "0.1")
      >>> config.loss.kwargs.temperature
      0.1
      >>> set_from_text(config, "epochs", "ten")
      Traceback (most recent call last):
      ...
      contrastive_jax.errors.UsageError: config.epochs=ten: expected a whole number >= 1.
    """
    field = find_field(path, config)
    if text.lower() == "none" and field.optional:
        value = None
    elif path == "contrast_size" and text == "full":
        value = 0
    else:
        value = _parse(path, text, field)
    set_value(config, path, value)


def _parse(path: str, text: str, field: Field) -> Any:
    expected = field.expected or f"a value of type {field.kind.__name__}"
    try:
        if field.kind is bool:
            return _BOOLEANS[text.lower()]
        if field.kind in (int, float, str):
            return field.kind(text)
        if path == "log.metrics":
            return tuple(name.strip() for name in text.split(",") if name.strip() not in ("", "none"))
        value = ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, KeyError):
        if field.kind is object:
            return text
        raise UsageError(f"config.{path}={text}: expected {expected}.") from None
    if field.kind is tuple and not isinstance(value, tuple | list):
        value = (value,)
    return tuple(value) if isinstance(value, list) else value


def set_value(config: ConfigDict, path: str, value: Any) -> None:
    """Set a field at a dotted path, unchecked."""
    *sections, leaf = path.split(".")
    node = config
    for section in sections:
        node = node[section]
    with node.ignore_type():
        node[leaf] = value


def from_json(text: str, *, check_arguments: bool = True) -> ConfigDict:
    """Read a configuration from the text of a run's `config.json`.

    Args:
      text: the JSON.
      check_arguments: whether to check the keyword arguments of the parts, which imports the parts that it names.

    Raises:
      UsageError: if the text is not JSON, names an unknown field, or holds a value of the wrong type. The message has
        one line for each fault.
    """
    try:
        given = flatten(json.loads(text))
    except (ValueError, AttributeError) as error:
        raise UsageError(f"expected the configuration of a run as JSON, got other text ({error}).") from None
    config, faults = default_config(), []
    for path in sorted(given, key=lambda path: path not in FIELDS):  # name the parts before their arguments
        value = _to_tuples(given[path])
        try:
            if check_arguments or not any(path.startswith(f"{kind.kwargs}.") for kind in parts.KINDS):
                check_type(path, value, find_field(path, config))
            set_value(config, path, value)
        except UsageError as error:
            faults.append(str(error))
    if faults:
        raise UsageError("\n".join(faults))
    return config


def _to_tuples(value: Any) -> Any:
    return tuple(map(_to_tuples, value)) if isinstance(value, list) else value


def check_type(path: str, value: Any, field: Field) -> None:
    """Check that the value at a path has the type of its field. An int is valid where a float is expected.

    Raises:
      UsageError: if the type is wrong.
    """
    kinds = (int, float) if field.kind is float else (field.kind,)
    right = isinstance(value, kinds) and not (isinstance(value, bool) and field.kind in (int, float, numbers.Real))
    if not right and not (value is None and field.optional):
        noun = "a number" if field.kind is numbers.Real else f"a value of type {field.kind.__name__}"
        raise UsageError(f"config.{path}={value!r}: expected {noun}, got {type(value).__name__}.")


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested configuration as {dotted path: value}."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        path = f"{prefix}{name}"
        flat |= flatten(value, f"{path}.") if isinstance(value, Mapping | ConfigDict) else {path: value}
    return flat


def contrast_size(config: ConfigDict, *, num_instances: int, num_devices: int) -> int:
    """Instances compared with each other: by default a batch; for 0, all that divide evenly over the devices."""
    if config.contrast_size is None:
        return config.batch_size
    return config.contrast_size or num_instances - num_instances % num_devices


def update_size(config: ConfigDict, *, num_instances: int, num_devices: int) -> int:
    """Instances in a step: those of a batch, or of a contrast set if that is larger."""
    return max(config.batch_size, contrast_size(config, num_instances=num_instances, num_devices=num_devices))


def view_config(config: ConfigDict) -> views.ViewConfig:
    """The `ViewConfig` of a run."""
    return views.ViewConfig(size=config.data.image_size, mean=config.data.mean, std=config.data.std, **config.views)
