"""What a training step has to know of a loss beyond `f(u, v, *, ids, axis_name, ...) -> [m]`, said beside the loss.

A loss that is decorated with `declare` can be trained by its name. A function that is not decorated, such as one of
your own, is called as `f(u, v, ids=..., axis_name=..., **hyperparameters)`.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import jax

State = dict[str, Any]
_Loss = TypeVar("_Loss", bound=Callable[..., Any])
_EVERY_LOSS = ("ids", "axis_name", "implementation", "precision")


class Setting(NamedTuple):
    """What the first state of a memory depends on."""

    num_instances: int  # in the training set
    dimensions: int  # of an embedding
    queue_size: int
    seed: int


class Kept(NamedTuple):
    """What a step leaves for a memory: of the whole batch, in its order, the same on every device."""

    ids: jax.Array  # [B] int32
    keys: jax.Array  # [B, d] embeddings of the second view; those of the momentum encoder where there is one
    returned: Mapping[str, jax.Array]  # what the loss returned beside its values, [B] each, by `Memory.returns`


class Memory(NamedTuple):
    """What a loss carries from one step to the next: a dict of arrays, the same on every device.

    It is part of the training state, so a run that is resumed goes on with it. None of it carries a gradient.
    """

    init: Callable[[Setting], State]  # before the first step, from the seed alone
    update: Callable[[State, Kept], State]  # after a step
    shared: Callable[[State], State] = lambda state: {}  # arguments of the loss that all instances share
    of_instances: Callable[[State, jax.Array], State] = lambda state, ids: {}  # arguments [b], one for each of ids [b]
    arguments: tuple[str, ...] = ()  # the names of both kinds: no hyperparameters
    returns: tuple[str, ...] = ()  # names of the arrays [m] that the loss returns beside its values


class Needs(NamedTuple):
    """What a loss needs of a training step."""

    labels: bool = False  # called with `labels=`, [m] int
    many_views: bool = False  # called as f(views, ...) with views [V, m, d], V >= 2, in place of u and v
    keys: bool = False  # takes `keys=`, the embeddings that a momentum encoder gives of both views
    memory: Memory | None = None
    learnable: tuple[str, ...] = ()  # hyperparameters that may be learnt; the loss must be bounded below in them


def declare(**needs: Any) -> Callable[[_Loss], _Loss]:
    """Declare what a loss needs. The function itself stays as it is.

    Args:
      **needs: the fields of `Needs` that differ from their defaults.

    Raises:
      ValueError: what is learnable includes neither a scale nor a temperature, or both.

    Example:
      >>> @contract.declare(labels=True)
      ... def between_classes(u, v, *, labels, ids=None, axis_name=None):
      ...     return losses.info_nce(u, v, ids=labels, axis_name=axis_name)
      >>> contract.needs_of(between_classes).labels
      True
    """

    needed = Needs(**needs)
    if needed.learnable and len({"scale", "temperature"} & set(needed.learnable)) != 1:
        raise ValueError(
            f"contract.declare: expected either 'scale' or 'temperature' in learnable, got {needed.learnable}: "
            "what is learnt is the logarithm of the scale of the similarities, perhaps with others beside it."
        )

    def mark(loss: _Loss) -> _Loss:
        loss.needs = needed  # type: ignore[attr-defined]
        return loss

    return mark


def needs_of(loss: Callable[..., Any]) -> Needs:
    """What a loss has declared; the defaults of `Needs` for a function that has declared nothing."""
    return getattr(_unwrap(loss), "needs", Needs())


def is_declared(loss: object) -> bool:
    """Whether a function is a loss that can be trained by its name."""
    return isinstance(getattr(loss, "needs", None), Needs)


def name_of(loss: Callable[..., Any]) -> str:
    """The name that a loss is logged under.

    Example:
      >>> contract.name_of(functools.partial(losses.simclr, temperature=0.5))
      'simclr'
    """
    return getattr(_unwrap(loss), "__name__", type(loss).__name__)


def hyperparameters(loss: Callable[..., Any]) -> dict[str, Any]:
    """A loss's own keyword arguments with their defaults; `inspect.Parameter.empty` for one that has none.

    Example:
      >>> contract.hyperparameters(losses.dhel)
      {'temperature': 0.2, 'form': 'mean'}
    """
    needs = needs_of(loss)
    given = {*_EVERY_LOSS, *(needs.memory.arguments if needs.memory else ())}
    given |= {name for name in ("labels", "keys") if getattr(needs, name)}
    parameters = list(inspect.signature(loss).parameters.values())[1 if needs.many_views else 2 :]
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {p.name: p.default for p in parameters if p.kind in named and p.name not in given}


def takes_precision(loss: Callable[..., Any]) -> bool:
    """Whether a loss has the parameter `precision`, as all of this package do.

    Example:
      >>> contract.takes_precision(losses.dhel), contract.takes_precision(lambda u, v, *, ids, axis_name: u)
      (True, False)
    """
    return "precision" in inspect.signature(loss).parameters


def _unwrap(loss: Callable[..., Any]) -> Callable[..., Any]:
    return _unwrap(loss.func) if isinstance(loss, functools.partial) else loss
