"""Files of weights: safetensors, which hold arrays and nothing that could run."""

import hashlib
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from contrastive_jax import extras, models
from contrastive_jax.errors import UsageError
from contrastive_jax.jobs.machine import files
from contrastive_jax.parts import reason

SUFFIX = ".safetensors"
_CONVERT = (
    "Convert it where you trust it: safetensors.torch.save_file(torch.load(PATH, weights_only=True), 'new.safetensors')"
)
_DTYPES = ("F32", "I64")  # the second of batch counts, which nothing reads
_CHUNK = 2**24


def read(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Read a file of weights.

    Args:
      path: a `.safetensors` file. A format that can run code (`.pth`, `.pt`, `.bin`, a pickle) is never read.

    Returns:
      {name: array}, float32 or int64.

    Raises:
      UsageError: the file has another ending, cannot be read, or holds arrays of another dtype.
      MissingExtraError: safetensors is not installed.

    Example:
      >>> read("resnet18.pth")
      Traceback (most recent call last):
      ...
      contrastive_jax.errors.UsageError: resnet18.pth: expected a .safetensors file, got .pth, and formats that can run
      code are never read. Convert it where you trust it:
      safetensors.torch.save_file(torch.load(PATH, weights_only=True), 'new.safetensors')
    """
    path = _check_suffix(path, f", and formats that can run code are never read. {_CONVERT}")
    safetensors = extras.require("safetensors", extra="train", what=str(path))
    if not path.is_file():
        raise UsageError(f"{path}: expected a {SUFFIX} file, got none at this path.")
    try:
        with safetensors.safe_open(path, framework="np") as file:
            dtypes = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
            wrong = next((name for name, dtype in dtypes.items() if dtype not in _DTYPES), None)
            arrays = {} if wrong else {name: file.get_tensor(name) for name in dtypes}
    except Exception as error:  # damaged files make safetensors raise errors of its own type and others
        raise UsageError(
            f"{path}: expected a whole {SUFFIX} file, got one that cannot be read ({reason(error)}). Fetch it again."
        ) from error
    if wrong:
        raise UsageError(
            f"{path}: {wrong}: expected float32 (F32), got {dtypes[wrong]}. Convert the weights to float32."
        )
    return arrays


def write(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> None:
    """Write a file of weights, which replaces an existing one atomically.

    Args:
      path: a `.safetensors` file.
      arrays: {name: array}.
      about: what the file says about them in its metadata, each value as JSON, beside `format: pt`.

    Raises:
      UsageError: the file has another ending.
      MissingExtraError: safetensors is not installed.
    """
    path = _check_suffix(path, ". Name it so.")
    save = extras.require("safetensors.numpy", extra="train", what=str(path)).save_file
    metadata = {"format": "pt", **{name: x if isinstance(x, str) else json.dumps(x) for name, x in about.items()}}
    with files.replace_atomically(path) as temporary:
        save(dict(arrays), temporary, metadata=metadata)


def make_identity(num_features: int) -> dict[str, np.ndarray]:
    """A classifier of torchvision's name that returns the features, for `resnet18(num_classes=num_features)`.

    Example:
      >>> sorted(make_identity(512))
      ['fc.bias', 'fc.weight']
    """
    return {"fc.weight": np.eye(num_features, dtype=np.float32), "fc.bias": np.zeros(num_features, np.float32)}


def load_into(encoder: nnx.Module, path: str) -> None:
    """Set the weights of a ResNet to those of a file with torchvision's names, and print what was left out of it.

    Args:
      encoder: a `models.ResNet`, changed in place.
      path: the file.

    Raises:
      UsageError: the file cannot be read, or does not fit the encoder.
    """
    try:
        left_out = models.load_torchvision(encoder, read(path))
    except UsageError as error:
        where = "" if str(error).startswith(str(path)) else f"{path}: "
        raise UsageError(f"config.model.weights: {where}{error}") from None
    if left_out:
        print(f"{path}: left out {', '.join(left_out)}; took all other weights.", file=sys.stderr)


def record(config: ConfigDict) -> None:
    """Record the digest of the file of weights in a configuration, or compare it with the one that is recorded.

    Raises:
      UsageError: the file cannot be read, or is another than the recorded one.
      MissingExtraError: safetensors is not installed.
    """
    path, recorded = config.model.weights, config.model.weights_sha256
    if path is None:
        if recorded is not None:
            raise UsageError("config.model.weights_sha256: expected none without config.model.weights, got a digest.")
        return
    path = _check_suffix(path, f", and formats that can run code are never read. {_CONVERT}", "config.model.weights=")
    extras.check("safetensors", extra="train", what="config.model.weights")
    try:
        found = digest(path)
    except OSError as error:
        raise UsageError(
            f"config.model.weights={path}: expected a file that can be read, got {error.strerror!r}."
        ) from None
    if recorded not in (None, found):
        raise UsageError(
            f"config.model.weights={path}: expected the file that the run began with (SHA-256 {recorded}), got another "
            f"({found}). Restore it, or leave config.model.weights_sha256 out and give another workdir."
        )
    config.model.weights_sha256 = found


def digest(path: str | os.PathLike[str]) -> str:
    """The SHA-256 of a file."""
    found = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            found.update(chunk)
    return found.hexdigest()


def _check_suffix(path: str | os.PathLike[str], advice: str, what: str = "") -> Path:
    path = Path(path).expanduser()
    if path.suffix != SUFFIX:
        got = path.suffix or "a name without an ending"
        raise UsageError(f"{what}{path}: expected a {SUFFIX} file, got {got}{advice}")
    return path
