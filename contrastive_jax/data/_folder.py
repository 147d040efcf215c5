"""A folder of images, one subfolder a class."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from contrastive_jax.data import _layout, _pixels, _stored
from contrastive_jax.errors import MissingExtraError, SourceError
from contrastive_jax.parts import reason

_CHANNELS = 3


def open_folder(
    path: str, splits: tuple[str, ...], *, image_size: int | None, stored_size: int | None, cache_bytes: float
) -> dict[str, _stored.ReadSource]:
    """The splits of the images under `path`, as RGB; those without a test split are split 80/20 in each class.

    What was passed over is said in one line on standard error. Reads the header of every file of both splits, and
    whether its end is there.
    """
    name, root = f"folder:{path}", str(Path(path).expanduser())
    layout = _layout.read_layout(root)
    files = {"train": layout.train}
    if isinstance(layout.test, _layout.Files):
        files["test"] = layout.test
    elif "test" in splits:
        raise layout.test
    shapes = _shapes([path for split in files.values() for path in split.paths])
    side = _stored.stored_side(shapes, image_size=image_size, stored_size=stored_size, name=root)
    image_shape = (*(next(iter(shapes)) if side is None else (side, side)), _CHANNELS)
    if layout.notes:
        count = sum(len(split.paths) for split in files.values())
        print("; ".join([f"{name}: read {count} images", *layout.notes]), file=sys.stderr)
    keep = _stored.fits(sum(len(files[split].paths) for split in splits), image_shape, cache_bytes)
    return {
        split: _source(
            name, root, files[split], image_shape, stored_size=side, num_classes=layout.num_classes, keep=keep
        )
        for split in splits
    }


def _source(
    name: str,
    root: str,
    files: _layout.Files,
    image_shape: tuple[int, int, int],
    *,
    stored_size: int | None,
    num_classes: int,
    keep: bool,
) -> _stored.ReadSource:
    def read(indices: list[int]) -> Iterator[np.ndarray]:
        for index in indices:
            try:
                yield _pixels.decode(files.paths[index], shape=image_shape, stored_size=stored_size)
            except MissingExtraError:
                raise
            except Exception as error:  # whatever Pillow raises, this file is why
                raise _broken(files.paths[index], error) from error

    def identity() -> str:
        return f"files {_digest_of_files(files.paths, root)}"

    return _stored.ReadSource(
        name,
        read,
        files.labels,
        length=len(files.paths),
        image_shape=image_shape,
        num_classes=num_classes,
        identity=identity,
        keep=keep,
    )


def _digest_of_files(paths: list[str], root: str) -> str:
    """A digest of the files' names below `root` and sizes."""
    digest = hashlib.blake2b(digest_size=16)
    for path in paths:
        digest.update(f"{os.path.relpath(path, root)}\0{os.stat(path).st_size}\0".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _shapes(paths: list[str]) -> set[tuple[int, int]]:
    found = _stored.map_parts(lambda part: {_header(paths[index]) for index in part}, np.arange(len(paths)))
    return set().union(*found)


def _header(path: str) -> tuple[int, int]:
    try:
        return _pixels.header(path)
    except MissingExtraError:
        raise
    except Exception as error:  # whatever Pillow raises, this file is why
        raise _broken(path, error) from error


def _broken(path: str, error: Exception) -> SourceError:
    return SourceError(
        f"{path}: expected a whole {_pixels.FORMATS}, got an image that cannot be read ({reason(error)}); "
        "restore, replace or remove it"
    )
