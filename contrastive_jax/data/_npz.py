"""Images and labels in one NumPy .npz file."""

from __future__ import annotations

import math
import sys
import zipfile
from pathlib import Path

import numpy as np

from contrastive_jax.data import _check, _split, _stored
from contrastive_jax.errors import SourceError
from contrastive_jax.parts import reason

_EXPECTED = "image (uint8 [n, h, w] or [n, h, w, c], c 1 or 3) and perhaps label (int [n])"
_KEYS = ("image", "label", "image_test", "label_test")
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_MAX_EXPANSION = 100  # images shrink by a few times when compressed; beyond this it is a bomb
_ALWAYS_BYTES = 2**30  # no bomb, however small the file


def open_npz(
    path: str, *, image_size: int | None, stored_size: int | None, labels: bool = True
) -> dict[str, _stored.ArraySource]:
    """The arrays `image`, `label` of the file at `path`; test is `image_test`, `label_test`, else held out.

    Without `label` the images have no labels, which is said in a line on standard error.
    """
    file, name = Path(path).expanduser(), f"npz:{path}"
    arrays = _read(file)
    pairs = {"train": _checked(file, arrays, "image", "label")}
    if "image_test" in arrays or "label_test" in arrays:
        pairs["test"] = _checked(file, arrays, "image_test", "label_test")
        _check_alike(file, pairs)
    shapes = [images.shape[1:3] for images, _ in pairs.values()]
    side = _stored.stored_side(shapes, image_size=image_size, stored_size=stored_size, name=str(file))
    if "test" not in pairs:
        images, found = pairs["train"]
        kept = _split.hold_out(len(images), name=name) if found is None else _split.stratified(found, name=name)
        pairs = {split: (images[k], None if found is None else found[k]) for split, k in kept.items()}
    known = [found for _, found in pairs.values() if found is not None]
    if not labels or not known:
        _say_unlabelled(name, pairs, "there is no array 'label'" if not known else "as asked")
    num_classes = max(int(found.max()) for found in known) + 1 if labels and known else None
    return {
        split: _stored.ArraySource(
            images if side is None else _stored.resized(images, side),
            found if labels else None,
            name=name,
            num_classes=num_classes,
        )
        for split, (images, found) in pairs.items()
    }


_Pairs = dict[str, tuple[np.ndarray, np.ndarray | None]]


def _say_unlabelled(name: str, pairs: _Pairs, why: str) -> None:
    count = sum(len(images) for images, _ in pairs.values())
    print(f"{name}: read {count} images without labels: {why}", file=sys.stderr)


def _check_alike(file: Path, pairs: _Pairs) -> None:
    (train, train_labels), (test, test_labels) = pairs["train"], pairs["test"]
    if train.shape[-1] != test.shape[-1]:
        raise SourceError(
            f"{file}: expected image_test with {train.shape[-1]} channels, as image has, got {test.shape[-1]}"
        )
    if (train_labels is None) != (test_labels is None):
        there, missing = ("label_test", "label") if train_labels is None else ("label", "label_test")
        raise SourceError(f"{file}: expected an array {missing!r} beside {there!r}, got none; give both or neither")


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
) -> tuple[np.ndarray, np.ndarray | None]:
    if image_key not in arrays:
        raise SourceError(f"{file}: expected an array {image_key!r}, got {sorted(arrays) or 'none that is known'}")
    images, labels = _check.image_array(f"{file}: {image_key}", arrays[image_key]), arrays.get(label_key)
    return images, None if labels is None else _check.label_array(f"{file}: {label_key}", labels, len(images))
