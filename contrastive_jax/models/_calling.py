"""How any module is told whether it trains, and called."""

import inspect
from collections.abc import Callable
from typing import Any

import jax
from flax import linen, nnx
from flax.core.scope import DenyList

# Names by which modules take the mode as an argument of their call, and whether the name means training.
_ARGUMENTS = {
    "train": True,
    "training": True,
    "is_training": True,
    "deterministic": False,
    "use_running_average": False,
}
_ATTRIBUTES = ("deterministic", "use_running_average")
_NOT_STATE = DenyList(("params", "intermediates", "perturbations"))


def set_mode(model: nnx.Module, *, train: bool) -> None:
    """Set `deterministic` and `use_running_average` of all modules, as `nnx.Module.train` and `eval` do."""
    for _, module in nnx.iter_modules(model):
        for name in _ATTRIBUTES:
            if name in vars(module):
                setattr(module, name, not train)


def call(module: nnx.Module, x: jax.Array, *, train: bool) -> Any:
    """`module(x)`, with the mode where its `__call__` takes one, by any name in use."""
    if not isinstance(module, nnx.bridge.ToNNX):
        return module(x, **_mode(type(module).__call__, train))  # type: ignore[operator]
    method = type(module.to_nnx__module).__call__  # type: ignore[operator]
    mode: dict[str, Any] = _mode(method, train)
    return module(x, mutable=_NOT_STATE if train else False, **mode)


def _mode(method: Callable[..., Any], train: bool) -> dict[str, bool]:
    parameters = inspect.signature(method).parameters
    return {name: train == means_train for name, means_train in _ARGUMENTS.items() if name in parameters}


def describe(module: Any) -> str:
    """What a thing is that is not the module it should be, with what to do about it."""
    if isinstance(module, linen.Module):
        return (
            f"the Linen module {type(module).__name__}. Wrap it: "
            "`nnx.bridge.ToNNX(module, rngs=nnx.Rngs(0)).lazy_init(images)`"
        )
    return f"{module!r}" if isinstance(module, type) else f"an instance of {type(module).__name__}"
