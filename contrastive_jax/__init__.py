"""Contrastive learning seen through the similarities of embeddings, in JAX.

`import contrastive_jax` loads nothing else: each part is imported when it is first used.

Example:
  >>> import contrastive_jax
  >>> contrastive_jax.losses.simclr.__name__
  'simclr'
"""

import importlib
import pkgutil
from typing import Any

__version__ = "0.1.0"

_FUNCTIONS = {"load": "contrastive_jax.jobs.loading"}  # and the modules that define them


def __getattr__(name: str) -> Any:
    if name in _FUNCTIONS:
        return getattr(importlib.import_module(_FUNCTIONS[name]), name)
    if name in __dir__():
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    parts = (module.name for module in pkgutil.iter_modules(__path__))
    return sorted({*globals(), *_FUNCTIONS, *(name for name in parts if not name.startswith("_"))})
