"""Images and labels in one NumPy .npz file."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from contrastive_jax.data import _source

_WANTED = "image (uint8 [n, H, W] or [n, H, W, C], C 1 or 3) and label (int [n])"


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
        with np.load(file, allow_pickle=False) as arrays:
            return {key: arrays[key] for key in arrays.files if key in ("image", "label", "image_test", "label_test")}
    except FileNotFoundError as error:
        raise _source.SourceError(f"{file}: there is no such file; wanted an .npz with {_WANTED}") from error
    except (OSError, EOFError, ValueError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise _source.SourceError(f"{file}: not a readable .npz ({error}); wanted one with {_WANTED}") from error


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
    return images, labels
