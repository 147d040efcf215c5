"""The environment of a run, for its summary: versions, hardware, flags and the commit."""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import jax

import contrastive_jax
from contrastive_jax import spmd

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "pillow")
_FLAGS = ("JAX_", "XLA_", "LIBTPU_", "NCCL_", "CUDA_VISIBLE_DEVICES", "TF_CPP_", "OMP_NUM_THREADS", "GLIBC_TUNABLES")


def describe() -> dict[str, Any]:
    """The versions of the packages, the hardware, the flags, and the commit of the source."""
    return {
        "python": platform.python_version(),
        "versions": {"contrastive_jax": contrastive_jax.__version__} | {name: find_version(name) for name in _PACKAGES},
        "platform": jax.default_backend(),
        "device": jax.devices()[0].device_kind,
        "devices": len(spmd.devices()),
        "processes": jax.process_count(),
        "cpus": os.cpu_count(),
        "flags": {name: value for name, value in sorted(os.environ.items()) if name.startswith(_FLAGS)},
        "git": describe_checkout(Path(contrastive_jax.__file__).parents[1]),
    }


def find_version(name: str) -> str | None:
    """The version of a distribution; None if it is not installed, as in a checkout on PYTHONPATH."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def describe_checkout(folder: Path) -> dict[str, Any] | None:
    """The commit of a checkout, and whether any file is modified or untracked.

    Args:
      folder: the top folder of the checkout. A folder below it does not count, so that a package that is installed
        inside the checkout of another project reports no commit.

    Returns:
      {"commit": the full hash, "dirty": whether a file is modified or untracked}; None if git reports no commit.
    """
    if not (folder / ".git").exists():
        return None
    own = {
        name: value for name, value in os.environ.items() if not name.startswith("GIT_")
    }  # a git that runs this process sets these

    def ask(*command: str) -> str:
        command = ("git", "--no-optional-locks", "-C", str(folder), *command)
        done = subprocess.run(command, env=own, capture_output=True, check=True, timeout=60)
        return done.stdout.decode(errors="replace").strip()  # file names may be any bytes

    try:
        return {"commit": ask("rev-parse", "HEAD"), "dirty": bool(ask("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):  # no git, no commit yet, or another user's checkout
        return None
