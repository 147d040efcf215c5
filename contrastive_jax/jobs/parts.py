"""The parts of a run that you can replace: encoder, head, loss, optimiser, data and logged numbers.

The configuration names each part, by a name of this package or as `package.module:function`. A part can also be given
from Python; the configuration then records its name.
"""

import functools
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

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


ENCODER = Kind("encoder", "model.name", "model.kwargs", models.ENCODERS)
HEAD = Kind("head", "model.head", "model.head_kwargs", models.HEADS)
LOSS = Kind("loss", "loss.name", "loss.kwargs", LOSSES)
OPTIMIZER = Kind("optimizer", "optimizer.name", "optimizer.kwargs", optimizer.OPTIMIZERS)
KINDS = (ENCODER, HEAD, LOSS, OPTIMIZER)


class Arguments(NamedTuple):
    """The keyword arguments that a part takes."""

    defaults: dict[str, Any]  # `inspect.Parameter.empty` if required
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
      metrics: functions of (state, embeddings, batch), see `training.measure`.
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
        return load_part(name)
    except UsageError as error:
        raise UsageError(f"config.{kind.name}={error}") from None


def arguments(kind: Kind, part: Callable[..., Any]) -> Arguments:
    """The keyword arguments of a part that a configuration may set: all but those that the job passes itself."""
    if isinstance(part, nnx.Module):
        return Arguments({}, any_other=False)
    parameters = list(_signature(part).parameters.values())
    any_other = any(p.kind is p.VAR_KEYWORD for p in parameters)
    if kind is LOSS:
        return Arguments(contract.hyperparameters(part), any_other)
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return Arguments({p.name: p.default for p in parameters[1:] if p.kind in named and p.name != "rngs"}, any_other)


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
    metrics = list(own.metrics)
    for spec in config.log.metrics if not metrics else ():
        try:
            metrics.append(load_part(spec))
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


def record(config: ConfigDict, own: Own) -> ConfigDict:
    """Copy the configuration and record in it the names and bound arguments of the parts given from Python."""
    config = config.copy_and_resolve_references()
    for kind in KINDS:
        if (given := getattr(own, kind.what)) is not None:
            part, bound = _unbind(given)
            above, _, leaf = kind.name.partition(".")
            if (name := name_of(kind, part)) != config[above][leaf]:
                config[above][leaf] = name
                drop_arguments(config, kind, part)
            section(config, kind).update(bound)
    if own.train is not None:
        config.data.source = _qualified(type(own.train))
    if own.metrics:
        config.log.metrics = tuple(_qualified(f) for f in own.metrics)
    return config


def _unbind(part: Any) -> tuple[Any, dict[str, Any]]:
    """Split nested `functools.partial` into the function and its keyword arguments."""
    if not isinstance(part, functools.partial) or part.args:
        return part, {}
    inner, bound = _unbind(part.func)
    return inner, {**bound, **part.keywords}


def name_of(kind: Kind, part: Any) -> str:
    """The name of a part of this package, or `module:name` of any other."""
    for name, known in kind.known.items():
        if part is known:
            return name
    return _qualified(type(part) if isinstance(part, nnx.Module) else part)


def _qualified(x: Any) -> str:
    return f"{getattr(x, '__module__', '?')}:{getattr(x, '__qualname__', type(x).__name__)}"
