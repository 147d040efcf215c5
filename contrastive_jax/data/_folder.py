"""A folder of images, one subfolder a class."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from contrastive_jax.data import _pixels, _source

_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
_TEST_FOLDERS = ("test", "val", "validation")
_CHANNELS = 3
_WANTED = "PATH/train/CLASS/*.png and PATH/test/CLASS/*.png, or PATH/CLASS/*.png (any common image format)"


def open_folder(path: str, split: str, *, image_size: int | None, stored_size: int | None) -> _source.Source:
    """The images under `path`/train or `path`/test, else 80% or 20% of each class under `path`, as RGB."""
    root = Path(path).expanduser()
    if not root.is_dir():
        raise _source.SourceError(f"{root}: there is no such folder; wanted {_WANTED}")
    files, labels, num_classes = _listed(root, split)
    stored_size, image_shape = _stored_shape(files, image_size=image_size, stored_size=stored_size)

    def read(indices: list[int]) -> Iterator[tuple[np.ndarray, int]]:
        for index in indices:
            try:
                image = _pixels.decode(str(files[index]), shape=image_shape, stored_size=stored_size)
            except Exception as error:  # whatever Pillow raises, this file is why
                raise _broken(files[index], error) from error
            yield image, int(labels[index])

    return _source.ReadSource(
        f"folder:{path}",
        read,
        lambda: labels,
        length=len(files),
        image_shape=image_shape,
        num_classes=num_classes,
    )


def _listed(root: Path, split: str) -> tuple[list[Path], np.ndarray, int]:
    """The files of the split in order, their labels, and the number of classes."""
    if not (root / "train").is_dir():
        classes = _classes(root)
        files, labels = _files(root, classes)
        kept = _source.stratified(labels, split, name=str(root))
        return [files[index] for index in kept], labels[kept], len(classes)
    classes = _classes(root / "train")
    if split == "train":
        return *_files(root / "train", classes), len(classes)
    folder = next((root / name for name in _TEST_FOLDERS if (root / name).is_dir()), None)
    if folder is None:
        raise _source.SourceError(f"{root}: has train/ but none of {', '.join(_TEST_FOLDERS)}/; wanted {_WANTED}")
    if unknown := sorted(set(_classes(folder)) - set(classes)):
        raise _source.SourceError(f"{folder}: classes {unknown} are not among train's; give both the same classes")
    return *_files(folder, classes), len(classes)


def _classes(folder: Path) -> list[str]:
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        raise _source.SourceError(f"{folder}: has no class subfolders; wanted {_WANTED}")
    return names


def _files(folder: Path, classes: list[str]) -> tuple[list[Path], np.ndarray]:
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        if not (folder / name).is_dir():
            continue
        entries = (folder / name).iterdir()
        found = sorted(f for f in entries if f.suffix.lower() in _SUFFIXES and not f.name.startswith("."))
        if not found:
            raise _source.SourceError(f"{folder / name}: holds no image; wanted files ending {sorted(_SUFFIXES)}")
        files += found
        labels += [label] * len(found)
    return files, np.array(labels, np.int32)


def _stored_shape(
    files: list[Path], *, image_size: int | None, stored_size: int | None
) -> tuple[int | None, tuple[int, int, int]]:
    """The size to resize to (None: as they are) and the shape of the images then; reads every file's header."""
    with ThreadPoolExecutor() as pool:
        shapes = set(pool.map(_header, files))
    if stored_size is None and len(shapes) == 1:
        return None, (*shapes.pop(), _CHANNELS)
    stored_size = _source.stored_size_of(image_size, stored_size, name=str(files[0].parents[1]))
    return stored_size, (stored_size, stored_size, _CHANNELS)


def _header(file: Path) -> tuple[int, int]:
    try:
        return _pixels.header(str(file))
    except Exception as error:  # whatever Pillow raises, this file is why
        raise _broken(file, error) from error


def _broken(file: Path, error: Exception) -> _source.SourceError:
    return _source.SourceError(
        f"{file}: not a readable image ({_source.reason(error)}); "
        f"wanted a whole {_pixels.FORMATS}: replace or remove it"
    )
