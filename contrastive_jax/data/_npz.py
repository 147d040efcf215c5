"""Images and labels in one NumPy .npz file."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path

import numpy as np

from contrastive_jax.data import _check, _split, _stored
from contrastive_jax.errors import SourceError
from contrastive_jax.parts import reason

_EXPECTED = "image (uint8 [n, h, w] or [n, h, w, c], c 1 or 3) and label (int [n])"
_KEYS = ("image", "label", "image_test", "label_test")
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_MAX_EXPANSION = 100  # images shrink by a few times when compressed; beyond this it is a bomb
_ALWAYS_BYTES = 2**30  # no bomb, however small the file


def open_npz(path: str, *, image_size: int | None, stored_size: int | None) -> dict[str, _stored.ArraySource]:
    """The arrays `image`, `label` of the file at `path`; test is `image_test`, `label_test`, else 20% of each class."""
    file, name = Path(path).expanduser(), f"npz:{path}"
    arrays = _read(file)
    pairs = {"train": _checked(file, arrays, "image", "label")}
    if "image_test" in arrays or "label_test" in arrays:
        pairs["test"] = _checked(file, arrays, "image_test", "label_test")
        train_channels, test_channels = (images.shape[-1] for images, _ in pairs.values())
        if train_channels != test_channels:
            raise SourceError(
                f"{file}: expected image_test with {train_channels} channels, as image has, got {test_channels}"
            )
    num_classes = max(int(labels.max()) for _, labels in pairs.values()) + 1
    shapes = [images.shape[1:3] for images, _ in pairs.values()]
    side = _stored.stored_side(shapes, image_size=image_size, stored_size=stored_size, name=str(file))
    if "test" not in pairs:
        images, labels = pairs["train"]
        pairs = {split: (images[kept], labels[kept]) for split, kept in _split.stratified(labels, name=name).items()}
    return {
        split: _stored.ArraySource(
            images if side is None else _stored.resized(images, side), labels, name=name, num_classes=num_classes
        )
        for split, (images, labels) in pairs.items()
    }


def _read(file: Path) -> dict[str, np.ndarray]:
    try:
        with zipfile.ZipFile(file) as archive:
            members = {key: archive.getinfo(f"{key}.npy") for key in _KEYS if f"{key}.npy" in archive.namelist()}
            total = sum(member.file_size for member in members.values())
            if total > max(_ALWAYS_BYTES, _MAX_EXPANSION * file.stat().st_size):
                raise ValueError(f"it would expand to {total} bytes, more than {_MAX_EXPANSION} times its own size")
            return {key: _array(archive, member) for key, member in members.items()}
    except FileNotFoundError as error:
        raise SourceError(f"{file}: expected an .npz with {_EXPECTED}, got no such file") from error
    except Exception as error:  # whatever zipfile, zlib and NumPy raise, this file is why
        raise SourceError(
            f"{file}: expected an .npz with {_EXPECTED}, got one that cannot be read: {reason(error)}"
        ) from error


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    """The array in a member, once its header has said that it holds no objects, and no more bytes than there are."""
    with archive.open(member) as stream:
        read_header = _HEADERS.get(version := np.lib.format.read_magic(stream))
        if read_header is None:
            raise ValueError(f"{member.filename} is of .npy version {version}")
        shape, _, dtype = read_header(stream)
        announced, held = math.prod(shape) * dtype.itemsize, member.file_size - stream.tell()
    if dtype.hasobject:
        raise ValueError(f"{member.filename} holds Python objects, which could run code")
    if announced != held:
        raise ValueError(
            f"{member.filename} announces {dtype} of shape {list(shape)}, {announced} bytes; it holds {held}"
        )
    with archive.open(member) as stream:
        return np.lib.format.read_array(stream, allow_pickle=False)


def _checked(
    file: Path, arrays: dict[str, np.ndarray], image_key: str, label_key: str
) -> tuple[np.ndarray, np.ndarray]:
    for key in (image_key, label_key):
        if key not in arrays:
            raise SourceError(f"{file}: expected an array {key!r}, got {sorted(arrays) or 'none that is known'}")
    images = _check.image_array(f"{file}: {image_key}", arrays[image_key])
    return images, _check.label_array(f"{file}: {label_key}", arrays[label_key], len(images))
