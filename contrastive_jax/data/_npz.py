"""Images and labels in one NumPy .npz file."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path

import numpy as np

from contrastive_jax.data import _source

_WANTED = "image (uint8 [n, H, W] or [n, H, W, C], C 1 or 3) and label (int [n])"
_KEYS = ("image", "label", "image_test", "label_test")
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_MAX_EXPANSION = 100  # images shrink by a few times when compressed; beyond this it is a bomb
_ALWAYS_BYTES = 2**30  # no bomb, however small the file
_MAX_CLASSES = 2**20


def open_npz(path: str, split: str, *, stored_size: int | None) -> _source.Source:
    """The arrays `image`, `label` of the file at `path`; test is `image_test`, `label_test`, else 20% of each class."""
    file = Path(path).expanduser()
    arrays = _read(file)
    images, labels = _checked(file, arrays, "image", "label")
    num_classes = int(labels.max()) + 1
    if "image_test" in arrays or "label_test" in arrays:
        test_images, test_labels = _checked(file, arrays, "image_test", "label_test")
        if test_images.shape[1:] != images.shape[1:]:
            raise _source.SourceError(
                f"{file}: image holds images of shape {images.shape[1:]} and image_test of shape "
                f"{test_images.shape[1:]}; give both one shape"
            )
        num_classes = max(num_classes, int(test_labels.max()) + 1)
        if split == "test":
            images, labels = test_images, test_labels
    else:
        kept = _source.stratified(labels, split, name=str(file))
        images, labels = images[kept], labels[kept]
    return _source.from_arrays(f"npz:{path}", images, labels, num_classes=num_classes, stored_size=stored_size)


def _read(file: Path) -> dict[str, np.ndarray]:
    try:
        with zipfile.ZipFile(file) as archive:
            members = {key: archive.getinfo(f"{key}.npy") for key in _KEYS if f"{key}.npy" in archive.namelist()}
            total = sum(member.file_size for member in members.values())
            if total > max(_ALWAYS_BYTES, _MAX_EXPANSION * file.stat().st_size):
                raise ValueError(f"it would expand to {total} bytes, more than {_MAX_EXPANSION} times its own size")
            return {key: _array(archive, member) for key, member in members.items()}
    except FileNotFoundError as error:
        raise _source.SourceError(f"{file}: there is no such file; wanted an .npz with {_WANTED}") from error
    except Exception as error:  # whatever zipfile, zlib and NumPy raise, this file is why
        raise _source.SourceError(f"{file}: not a readable .npz ({_source.reason(error)}); wanted {_WANTED}") from error


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
    def refuse(found: str) -> _source.SourceError:
        return _source.SourceError(f"{file}: {found}; wanted {_WANTED}, written with numpy.savez")

    for key in (image_key, label_key):
        if key not in arrays:
            raise refuse(f"has no array {key!r} (found {sorted(arrays) or 'no known array'})")
    images, labels = arrays[image_key], arrays[label_key]
    if images.dtype != np.uint8:
        raise refuse(f"{image_key} is {images.dtype}, not uint8")
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[-1] not in (1, 3) or 0 in images.shape:
        raise refuse(f"{image_key} has shape {list(arrays[image_key].shape)}")
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise refuse(f"{label_key} is {labels.dtype} of shape {list(labels.shape)}")
    if len(labels) != len(images):
        raise refuse(f"{image_key} has {len(images)} entries and {label_key} {len(labels)}")
    if labels.min() < 0:
        raise refuse(f"{label_key} holds {labels.min()}, a negative label")
    if labels.max() >= _MAX_CLASSES:
        raise refuse(f"{label_key} holds {labels.max()}: labels count classes from 0, at most {_MAX_CLASSES} of them")
    return images, labels
