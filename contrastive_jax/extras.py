"""Packages that only an extra installs, imported where they are needed; the line for a missing one names its extra."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from contrastive_jax.errors import MissingExtraError

# A module is named as it is imported; pip needs the name of its distribution, where that is another.
_DISTRIBUTIONS = {"PIL": "pillow", "sklearn": "scikit-learn", "orbax": "orbax-checkpoint", "absl": "absl-py"}
_KEEP_UNDERSCORE = ("array_record",)


def require(module: str, *, extra: str, what: str | None = None) -> Any:
    """Import a module that an extra installs.

    Args:
        module: the module, as it is imported: "tensorflow_datasets", "PIL.Image".
        extra: the extra of this package that installs it.
        what: what needs it, for the message; by default the module.

    Returns:
        The module.

    Raises:
        MissingExtraError: the module, or one that it imports, is not installed; the message says how to install it.

    Example:
        >>> require("json", extra="train").loads("[1, 2]")
        [1, 2]
        >>> require("no_such_package", extra="tfds", what="tfds:mnist")
        Traceback (most recent call last):
        ...
        contrastive_jax.errors.MissingExtraError: tfds:mnist needs no-such-package: pip install "contrastive_jax[tfds]"
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        # A module that is there may import one that is not: pip needs that one's name.
        missing = _distribution_of(error.name or module)
        raise MissingExtraError(f'{what or module} needs {missing}: pip install "contrastive_jax[{extra}]"') from error


def check(*modules: str, extra: str, what: str) -> None:
    """Refuse to go on unless all of these modules can be imported, without importing them.

    Args:
        modules: top-level modules, as they are imported: "flax", "PIL".
        extra: the extra of this package that installs them.
        what: what needs them, for the message.

    Raises:
        MissingExtraError: one or more are not installed; the message names them all and says how to install them.

    Example:
        >>> check("json", "no_such_one", "nor_this", extra="train", what="x")
        Traceback (most recent call last):
        ...
        contrastive_jax.errors.MissingExtraError: x needs no-such-one, nor-this: pip install "contrastive_jax[train]"
    """
    missing = ", ".join(_distribution_of(module) for module in modules if not _is_installed(module))
    if missing:
        raise MissingExtraError(f'{what} needs {missing}: pip install "contrastive_jax[{extra}]"')


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ModuleNotFoundError, ValueError):  # a finder that refuses it, or None in sys.modules
        return False


def _distribution_of(module: str) -> str:
    root = module.partition(".")[0]
    return root if root in _KEEP_UNDERSCORE else _DISTRIBUTIONS.get(root, root.replace("_", "-"))
