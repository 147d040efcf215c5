"""A user's own part, named on the command line as `package.module:function`."""

from __future__ import annotations

import functools
import importlib
import os
import sys
import textwrap
from collections.abc import Callable
from types import ModuleType
from typing import Any

from contrastive_jax.errors import UsageError

_EXPECTED = "expected package.module:function"


def is_part(spec: str) -> bool:
    """Whether `spec` has the form `package.module:function`.

    Example:
        >>> is_part("mylab.losses:my_loss"), is_part("simclr"), is_part("folder:/images")
        (True, False, False)
    """
    module, _, attribute = spec.partition(":")
    return all(name.isidentifier() for name in (*module.split("."), *attribute.split(".")))


def load_part(spec: str) -> Callable[..., Any]:
    """Import the function that `spec` names; modules in the working directory can be named too.

    Args:
        spec: `package.module:function`. What follows the colon may be dotted: `package.module:Class.method`.

    Returns:
        The function, or whatever else can be called.

    Raises:
        UsageError: the spec has another form, there is no such module or attribute, the module raises when it is
            imported, or what is named cannot be called.

    Example:
        >>> load_part("math:isqrt")(17)
        4
        >>> load_part("math:cube")
        Traceback (most recent call last):
        ...
        contrastive_jax.errors.UsageError: math:cube: expected a function in module math, got no attribute 'cube'
    """
    module_name, colon, attribute = spec.partition(":")
    if not is_part(spec):
        got = "a name without a colon" if not colon else "names that are not Python's"
        raise UsageError(f"{spec}: {_EXPECTED}, got {got}")
    module = _import(spec, module_name)
    try:
        part = functools.reduce(getattr, attribute.split("."), module)
    except AttributeError:
        raise UsageError(
            f"{spec}: expected a function in module {module_name}, got no attribute {attribute!r}"
        ) from None
    if not callable(part):
        raise UsageError(f"{spec}: expected a function, got {type(part).__name__}; name something that can be called")
    return part


def reason(error: BaseException) -> str:
    """What an exception says is wrong, in part of a line.

    Example:
        >>> reason(ValueError("first\\nsecond")), reason(KeyError())
        ('first second', 'KeyError')
    """
    return textwrap.shorten(str(error) or type(error).__name__, 300)


def _import(spec: str, name: str) -> ModuleType:
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # as `python -m` does; a console script does not
        importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise UsageError(f"{spec}: module {name} could not be imported: {reason(error)}") from error
        raise UsageError(
            f"{spec}: {_EXPECTED}, got no module {error.name!r} in the working directory or among what is installed"
        ) from error
    except (Exception, SystemExit) as error:  # whatever a user's module raises, it is why
        raise UsageError(
            f"{spec}: module {name} raised {type(error).__name__} when it was imported: {reason(error)}"
        ) from error
