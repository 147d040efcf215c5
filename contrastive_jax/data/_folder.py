"""A folder of images, with a subfolder for each class or without classes; or several of them as one."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator

import numpy as np

from contrastive_jax.data import _layout, _pixels, _spec, _stored
from contrastive_jax.errors import MissingExtraError, SourceError
from contrastive_jax.parts import reason

_CHANNELS = 3


def open_folder(
    spec: _spec.Spec, splits: tuple[str, ...], *, image_size: int | None, stored_size: int | None, cache_bytes: float
) -> dict[str, _stored.ReadSource]:
    """The splits of the images below the folders of `spec`, as RGB; what has no test split is split.

    That the images have no labels, and what was passed over, is said in one line on standard error. Reads the header of
    every file of both splits, and whether its end is there.
    """
    name, roots = f"folder:{spec.rest}", _spec.parse_folders(spec.rest)
    layout = read_layouts(roots, labels=spec.labels)
    files = {"train": layout.train}
    if isinstance(layout.test, _layout.Files):
        files["test"] = layout.test
    elif "test" in splits:
        raise layout.test
    shapes = _shapes([path for split in files.values() for path in split.paths])
    where = roots[0] if len(roots) == 1 else name
    side = _stored.stored_side(shapes, image_size=image_size, stored_size=stored_size, name=where)
    image_shape = (*(next(iter(shapes)) if side is None else (side, side)), _CHANNELS)
    if layout.notes or layout.classes is None:
        count = sum(len(split.paths) for split in files.values())
        without = "" if layout.classes is not None else f" without labels: {layout.why}"
        print("; ".join([f"{name}: read {count} images{without}", *layout.notes]), file=sys.stderr)
    keep = _stored.fits(sum(len(files[split].paths) for split in splits), image_shape, cache_bytes)
    num_classes = None if layout.classes is None else len(layout.classes)
    return {
        split: _source(name, roots, files[split], image_shape, stored_size=side, num_classes=num_classes, keep=keep)
        for split in splits
    }


def read_layouts(roots: list[str], *, labels: bool) -> _layout.Layout:
    """The layout of one folder, or of several as one: their splits together, their classes by name.

    Where some of the folders have classes and others have none, no image has a label.
    """
    found = [_layout.read_layout(root, labels=labels) for root in roots]
    if len(found) == 1:
        return found[0]
    bare = [root for root, layout in zip(roots, found, strict=True) if layout.classes is None]
    why, notes = next((each.why for each in found if each.why), ""), [note for each in found for note in each.notes]
    if bare and len(bare) < len(roots):
        found = [_layout.read_layout(root, labels=False) for root in roots]
        why, notes = f"{bare[0]} has no classes, other folders have", [note for each in found for note in each.notes]
    names = None if bare else sorted({name for each in found for name in each.classes or ()})
    missing = next((each.test for each in found if isinstance(each.test, SourceError)), None)
    train = _join([(each.train, each.classes) for each in found], names)
    tests = [(each.test, each.classes) for each in found if isinstance(each.test, _layout.Files)]
    return _layout.Layout(train, _join(tests, names) if missing is None else missing, names, why, notes)


def _join(parts: list[tuple[_layout.Files, list[str] | None]], names: list[str] | None) -> _layout.Files:
    paths = [path for files, _ in parts for path in files.paths]
    if names is None:
        return _layout.Files(paths, None)
    places = {name: place for place, name in enumerate(names)}
    labels = [
        np.array([places[name] for name in classes], np.int32)[files.labels]
        for files, classes in parts
        if classes is not None and files.labels is not None
    ]
    return _layout.Files(paths, np.concatenate(labels))


def _source(
    name: str,
    roots: list[str],
    files: _layout.Files,
    image_shape: tuple[int, int, int],
    *,
    stored_size: int | None,
    num_classes: int | None,
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
        return f"files {_digest_of_files(files.paths, roots)}"

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


def _digest_of_files(paths: list[str], roots: list[str]) -> str:
    """A digest of the files' names below their folder and sizes; of several folders, with the folder's number."""
    digest = hashlib.blake2b(digest_size=16)
    for path in paths:
        k, relative = relative_to(path, roots)
        inside = relative if len(roots) == 1 else f"{k}/{relative}"
        digest.update(f"{inside}\0{os.stat(path).st_size}\0".encode(errors="surrogateescape"))
    return digest.hexdigest()


def relative_to(path: str, roots: list[str]) -> tuple[int, str]:
    """The number of the folder that a file was found in, and its path below it."""
    k = next(k for k, root in enumerate(roots) if path.startswith(os.path.join(root, "")))
    return k, os.path.relpath(path, roots[k])


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
