"""Which image files lie below a folder, and what lies there besides."""

from __future__ import annotations

import collections
import os
from collections.abc import Callable, Iterator

from contrastive_jax.data import _pixels
from contrastive_jax.errors import SourceError
from contrastive_jax.parts import reason

Passed = collections.Counter[str]
"""How many entries were passed over, by what they are."""

_HIDDEN = "__MACOSX"  # archives made on a Mac carry this folder of metadata beside their own


def images_below(folder: str, passed: Passed, above: tuple[tuple[int, int], ...] = ()) -> Iterator[str]:
    """The image files below `folder` at any depth, by name, those of a folder before those of its subfolders.

    Links are followed, except into a folder that they lie in. What is passed over is counted in `passed`.
    """
    status = os.stat(folder)
    identity = (status.st_dev, status.st_ino)
    if identity in above:
        passed["folder linked into itself"] += 1
        return
    subfolders = []
    for entry in entries(folder):
        if is_hidden(entry.name):
            passed["hidden"] += 1
        elif is_true(entry.is_dir):
            subfolders.append(entry.path)
        elif is_image(entry):
            yield entry.path
        else:
            passed[ending(entry.name) or "without an ending"] += 1
    for subfolder in subfolders:
        yield from images_below(subfolder, passed, (*above, identity))


def subfolders_with_images(folder: str) -> list[str]:
    """The names of the subfolders of `folder` below which there is an image; none where there is no such folder."""
    return [name for name in subfolders(folder) if holds_images(os.path.join(folder, name))]


def holds_images(folder: str) -> bool:
    """Whether there is an image below `folder`; not where there is no such folder."""
    return os.path.isdir(folder) and any(images_below(folder, Passed()))


def subfolders(folder: str) -> list[str]:
    """The names of the subfolders of `folder` that are not hidden, in order; none where there is no such folder."""
    if not os.path.isdir(folder):
        return []
    return [entry.name for entry in entries(folder) if not is_hidden(entry.name) and is_true(entry.is_dir)]


def entries(folder: str) -> list[os.DirEntry[str]]:
    """What lies directly in `folder`, by name."""
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        raise SourceError(f"{folder}: expected a folder that can be read, got {reason(error)}") from error


def is_image(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is an image file by its name; a broken link that should be one counts, so that it is named."""
    return ending(entry.name) in _pixels.endings() and (is_true(entry.is_file) or entry.is_symlink())


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is somebody's metadata."""
    return name.startswith(".") or name == _HIDDEN


def is_true(test: Callable[[], bool]) -> bool:
    """Whether an entry is what `test` asks; a link that leads nowhere is nothing."""
    try:
        return test()
    except OSError:
        return False


def ending(name: str) -> str:
    """The ending of a file's name, in lower case, with its dot."""
    return os.path.splitext(name)[1].lower()
