"""Where a run ran: versions, hardware, flags and the state of the source, for its summary."""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import jax

import contrastive_jax
from contrastive_jax import spmd

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
_FLAGS = ("JAX_", "XLA_", "LIBTPU_", "NCCL_", "CUDA_VISIBLE_DEVICES", "TF_CPP_", "OMP_NUM_THREADS")


def describe() -> dict[str, Any]:
    """Versions of what computes, what it computes on, the flags it is given, and the commit of its source."""
    return {
        "python": platform.python_version(),
        "versions": {"contrastive_jax": contrastive_jax.__version__} | {name: find_version(name) for name in _PACKAGES},
        "platform": jax.default_backend(),
        "device": jax.devices()[0].device_kind,
        "devices": len(spmd.devices()),
        "processes": jax.process_count(),
        "cpus": os.cpu_count(),
        "flags": {name: value for name, value in sorted(os.environ.items()) if name.startswith(_FLAGS)},
        "git": source(Path(contrastive_jax.__file__).parents[1]),
    }


def find_version(name: str) -> str | None:
    """The version of a distribution; None where it is not installed, as in a checkout on PYTHONPATH."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def source(folder: Path) -> dict[str, Any] | None:
    """The commit of a checkout, and whether anything in it is changed or new; None where there is no checkout.

    Args:
      folder: its top. A package installed inside the checkout of something else is none.
    """
    if not (folder / ".git").exists():
        return None
    own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}  # of a git around this one

    def ask(*command: str) -> str:
        command = ("git", "--no-optional-locks", "-C", str(folder), *command)
        done = subprocess.run(command, env=own, capture_output=True, check=True, timeout=60)
        return done.stdout.decode(errors="replace").strip()  # git may print names of files as the bytes they are

    try:
        return {"commit": ask("rev-parse", "HEAD"), "dirty": bool(ask("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):  # no git, no commit yet, or not this user's checkout
        return None
