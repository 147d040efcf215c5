"""The parts of a run that you can replace: encoder, head, loss, optimiser, data and logged numbers.

The configuration names each part, by a name of this package or as `package.module:function`. A part can also be given
from Python; the configuration then records its name.
"""

import functools
import inspect
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import optax
from flax import nnx
from ml_collections import ConfigDict

from contrastive_jax import models
from contrastive_jax.data.sources import Source
from contrastive_jax.errors import UsageError
from contrastive_jax.losses import contract
from contrastive_jax.parts import is_part, load_part
from contrastive_jax.training import optimizer
from contrastive_jax.training.objective import LOSSES


class Kind(NamedTuple):
    """A kind of part that has its own keyword arguments."""

    what: str
    name: str  # the field that names it
    kwargs: str  # the section of its keyword arguments
    known: Mapping[str, Callable[..., Any]]
    passed: tuple[str, ...] = ()  # the keyword arguments that the job passes itself


ENCODER = Kind("encoder", "model.name", "model.kwargs", models.ENCODERS, ("rngs",))
HEAD = Kind("head", "model.head", "model.head_kwargs", models.HEADS, ("rngs",))
LOSS = Kind("loss", "loss.name", "loss.kwargs", LOSSES, ("ids", "axis_name", "labels", "keys", "precision"))
OPTIMIZER = Kind("optimizer", "optimizer.name", "optimizer.kwargs", optimizer.OPTIMIZERS)
KINDS = (ENCODER, HEAD, LOSS, OPTIMIZER)


class Arguments(NamedTuple):
    """The keyword arguments that a part takes."""

    defaults: dict[str, Any]  # `inspect.Parameter.empty` if required
    annotations: dict[str, Any]  # `inspect.Parameter.empty` if there is none
    any_other: bool  # whether it takes others as well (**kwargs)


class Own(NamedTuple):
    """Parts that are given from Python; None where the configuration names one.

    Attributes:
      encoder: a `flax.nnx.Module` from images [b, h, w, c] to features [b, f], or a function
        `f(image_shape, *, rngs, **kwargs)` that makes one.
      head: a `flax.nnx.Module` from features to embeddings, or a function `f(num_features, *, rngs, **kwargs)`.
      loss: `f(u, v, *, ids, axis_name, ...) -> [m]`.
      optimizer: `f(schedule, **kwargs)` that makes an Optax transformation of the learning rate's schedule.
      train: a source of images, see `data.sources`.
      test: another, for the evaluation.
      metrics: functions of (state, embeddings, batch), see `training.measure`; beside those of the configuration.
    """

    encoder: Any = None
    head: Any = None
    loss: Callable[..., Any] | None = None
    optimizer: Callable[..., Any] | None = None
    train: Source | None = None
    test: Source | None = None
    metrics: Sequence[Callable[..., Any]] = ()


NONE = Own()


def load(kind: Kind, name: str) -> Callable[..., Any]:
    """Load a part by name.

    Raises:
      UsageError: if there is none of that name, or it cannot be imported.
    """
    if name in kind.known:
        return kind.known[name]
    if not is_part(name):
        known = ", ".join(map(repr, kind.known))
        raise UsageError(f"config.{kind.name}={name!r}: expected one of {known} or package.module:function.")
    try:
        part = load_part(name)
    except UsageError as error:
        raise UsageError(f"config.{kind.name}={error}") from None
    try:
        arguments(kind, part)
    except (ValueError, TypeError) as error:  # of `inspect.signature`, for functions that are not Python's
        raise UsageError(f"config.{kind.name}={name}: expected a Python function with a signature: {error}.") from None
    return part


def arguments(kind: Kind, part: Callable[..., Any]) -> Arguments:
    """The keyword arguments of a part that a configuration may set: all but those that the job passes itself."""
    if isinstance(part, nnx.Module | optax.GradientTransformation):
        return Arguments({}, {}, any_other=False)
    parameters = list(_signature(part).parameters.values())
    any_other = any(p.kind is p.VAR_KEYWORD for p in parameters)
    if kind is LOSS:
        taken = contract.hyperparameters(part)
    else:
        named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        taken = {p.name: p.default for p in parameters[1:] if p.kind in named and p.name not in kind.passed}
    return Arguments(taken, {p.name: p.annotation for p in parameters if p.name in taken}, any_other)


def _signature(part: Callable[..., Any]) -> inspect.Signature:
    # The metaclass of nnx.Module hides the signature of its classes.
    own = inspect.getattr_static(part, "__init__") if isinstance(part, type) else None
    return inspect.signature(part) if own is None else inspect.signature(functools.partial(own, None))


def section(config: ConfigDict, kind: Kind) -> ConfigDict:
    """The section of a part's keyword arguments."""
    return functools.reduce(getattr, kind.kwargs.split("."), config)


def named(config: ConfigDict, kind: Kind) -> str:
    """The name of the part that the configuration gives for a kind."""
    return functools.reduce(getattr, kind.name.split("."), config)


def resolve(config: ConfigDict, own: Own) -> Own:
    """Resolve every part of a configuration: given from Python, or loaded by name. Undoes `functools.partial`.

    Raises:
      UsageError: a line for each that cannot be loaded.
    """
    found: dict[str, Any] = {}
    faults = []
    for kind in KINDS:
        part = getattr(own, kind.what)
        try:
            found[kind.what] = load(kind, named(config, kind)) if part is None else _unbind(part)[0]
        except UsageError as error:
            faults.append(str(error))
    metrics = []
    given = {_qualified(metric): metric for metric in own.metrics if not isinstance(metric, str)}
    for name in config.log.metrics:
        try:
            metrics.append(given[name] if name in given else load_part(name))
        except UsageError as error:
            faults.append(f"config.log.metrics={error}")
    if faults:
        raise UsageError("\n".join(faults))
    return own._replace(**found, metrics=tuple(metrics))


def drop_arguments(config: ConfigDict, kind: Kind, part: Any) -> None:
    """Drop the preset's keyword arguments that a newly given part does not take, and say so."""
    taken, given = arguments(kind, part), section(config, kind)
    for name in [x for x in given if x not in taken.defaults and not taken.any_other]:
        what = f"{kind.what.capitalize()} {named(config, kind)!r}"
        print(f"{what} takes no {name}: the preset's {given[name]!r} is left out.", file=sys.stderr)
        del given[name]


def record(config: ConfigDict, own: Own) -> tuple[ConfigDict, Own]:
    """Copy the configuration and record in it the names and bound arguments of the parts given from Python.

    A part that is given by its name goes into the configuration alone.

    Raises:
      UsageError: a part is neither a name nor something that can be called.
    """
    config = config.copy_and_resolve_references()
    for kind in KINDS:
        given = getattr(own, kind.what)
        if given is None:
            continue
        name, part = given, None
        bound: dict[str, Any] = {}
        if not isinstance(given, str):
            _check_given(kind, given)
            part, bound = _unbind(given)
            name = name_of(kind, part)
        above, _, leaf = kind.name.partition(".")
        if name != config[above][leaf] or isinstance(part, nnx.Module):
            config[above][leaf] = name
            drop_arguments(config, kind, load(kind, name) if part is None else part)
        section(config, kind).update(bound)
        if part is None:
            own = own._replace(**{kind.what: None})  # type: ignore[arg-type]
    if own.train is not None:
        config.data.source = _qualified(type(own.train))
    metrics = (own.metrics,) if callable(own.metrics) or isinstance(own.metrics, str) else tuple(own.metrics)
    names = [f if isinstance(f, str) else _qualified(f) for f in metrics]
    config.log.metrics = (*config.log.metrics, *(name for name in names if name not in config.log.metrics))
    return config, own._replace(metrics=metrics)


def _check_given(kind: Kind, part: Any) -> None:
    if not callable(part) and not isinstance(part, optax.GradientTransformation):
        raise UsageError(f"own.{kind.what}: expected a function or its name, got {type(part).__name__}.")


_NOT_PLAIN = object()


def _unbind(part: Any) -> tuple[Any, dict[str, Any]]:
    """Split nested `functools.partial` into the function and its keyword arguments.

    Values that `config.json` cannot hold, such as functions, stay bound.
    """
    if not isinstance(part, functools.partial) or part.args:
        return part, {}
    inner, bound = _unbind(part.func)
    plain = {name: _to_plain(value) for name, value in part.keywords.items()}
    stays = {name: part.keywords[name] for name, value in plain.items() if value is _NOT_PLAIN}
    taken = {name: value for name, value in plain.items() if value is not _NOT_PLAIN}
    return (functools.partial(inner, **stays) if stays else inner), {**bound, **taken}


def _to_plain(value: Any) -> Any:
    """A value as `config.json` holds it: a scalar or nested tuples of them; `_NOT_PLAIN` for anything else."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        items = tuple(_to_plain(x) for x in value)
        return _NOT_PLAIN if _NOT_PLAIN in items else items
    if isinstance(value, type | np.dtype):
        try:
            return np.dtype(value).name  # jnp.bfloat16 and the like
        except TypeError:
            return _NOT_PLAIN
    if isinstance(value, np.generic) or (hasattr(value, "dtype") and np.ndim(value) == 0):
        return value.item()
    return _NOT_PLAIN


def describe_error(error: BaseException) -> str:
    """Describe in one line what a part raised, with the user's last line on the way unless it is a ValueError."""
    line = " ".join(str(error).split()) or "no more is known"
    if isinstance(error, ValueError):
        return line
    frames = traceback.extract_tb(error.__traceback__)
    place = next((frame for frame in reversed(frames) if _is_users(frame.filename)), frames[-1])
    return f"{type(error).__name__}: {line} ({place.filename}, line {place.lineno}, in {place.name})"


def _is_users(file: str) -> bool:
    """Whether a file of a traceback is the user's: neither of this package nor installed."""
    package, standard = Path(__file__).parents[1], Path(traceback.__file__).parent
    return (
        Path(file).suffix == ".py"
        and not any(within in Path(file).parents for within in (package, standard))
        and not {"site-packages", "dist-packages"} & set(Path(file).parts)
    )


def name_of(kind: Kind, part: Any) -> str:
    """The name of a part of this package, or `module:name` of any other."""
    for name, known in kind.known.items():
        if part is known:
            return name
    while isinstance(part, functools.partial):
        part = part.func
    return _qualified(type(part) if isinstance(part, nnx.Module | optax.GradientTransformation) else part)


def _qualified(x: Any) -> str:
    return f"{getattr(x, '__module__', '?')}:{getattr(x, '__qualname__', type(x).__name__)}"
