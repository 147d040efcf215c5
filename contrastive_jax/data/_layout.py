"""How a folder of images is laid out: its splits, its classes, and what is neither."""

from __future__ import annotations

import os
from typing import NamedTuple

import numpy as np

from contrastive_jax.data import _split, _walk
from contrastive_jax.errors import SourceError

TEST_FOLDERS = ("test", "val", "valid", "validation")
EXPECTED = "PATH/train/CLASS/*.png and PATH/test/CLASS/*.png, or PATH/CLASS/*.png (any common image format)"


class Files(NamedTuple):
    """The files of one split, in order, and their labels, int32 [n]."""

    paths: list[str]
    labels: np.ndarray


class Layout(NamedTuple):
    """What was found in a folder.

    Attributes:
        train: the files of the training split.
        test: those of the test split, or why there is none.
        num_classes: how many classes there are.
        notes: what was passed over or could be meant otherwise, in parts of a line.
    """

    train: Files
    test: Files | SourceError
    num_classes: int
    notes: list[str]


def read_layout(root: str) -> Layout:
    """Find the splits and classes of `root`.

    PATH/train/ is the training split if it holds class subfolders with images, unless there are other folders of images
    beside it and no test split: then it is a class. The test split is the first of test/, val/, valid/ and
    validation/ that holds classes.
    """
    if not os.path.isdir(root):
        raise SourceError(f"{root}: expected a folder, {EXPECTED}, got no such folder")
    classes = _walk.subfolders_with_images(os.path.join(root, "train"))
    tests = _test_folders(root, classes)
    others = [name for name in _walk.subfolders(root) if name not in ("train", *TEST_FOLDERS)]
    if not classes:
        return _without_splits(root, others, note=None)
    others = [name for name in others if any(_walk.images_below(os.path.join(root, name), _walk.Passed()))]
    if others and not tests:
        note = f"train/ is read as a class: other folders hold images ({_some(others)}) and there is no test split"
        return _without_splits(root, others, note=note)
    return _with_splits(root, classes, tests, others)


def _test_folders(root: str, classes: list[str]) -> list[str]:
    """The folders that may be the test split: those that hold classes of train's first."""
    held = {name: _walk.subfolders_with_images(os.path.join(root, name)) for name in TEST_FOLDERS}
    found = [name for name in TEST_FOLDERS if held[name]]
    return sorted(found, key=lambda name: not set(held[name]) & set(classes))


def _with_splits(root: str, classes: list[str], tests: list[str], others: list[str]) -> Layout:
    passed = _stray(root) + _stray(os.path.join(root, "train"))
    train = _files(os.path.join(root, "train"), _walk.subfolders(os.path.join(root, "train")), passed)
    notes = []
    test: Files | SourceError = SourceError(
        f"{root}: expected a test split, one of {', '.join(f'{name}/' for name in TEST_FOLDERS)} with the class "
        f"subfolders of train/, got none of them"
    )
    if tests:
        folder = os.path.join(root, tests[0])
        names = _walk.subfolders(folder)
        if unknown := sorted(set(names) - set(classes)):
            test = SourceError(f"{folder}: expected the classes of train/, got others too: {_some(unknown)}")
        else:
            passed += _stray(folder)
            # Labels count train's classes, of which a test split may lack some.
            test = _files(folder, [name for name in classes if name in names], passed, order=classes)
        if unused := [*tests[1:], *others]:
            notes.append(f"passed over the folders {_some(unused)} beside train/ and {tests[0]}/")
    return Layout(train, test, len(classes), _counted(passed) + notes)


def _without_splits(root: str, others: list[str], *, note: str | None) -> Layout:
    classes = _walk.subfolders(root)
    if not others and classes:
        raise SourceError(
            f"{root}: expected class subfolders, got {_some(classes)} alone, without class subfolders in them; "
            f"lay it out as {EXPECTED}"
        )
    if not classes:
        raise SourceError(f"{root}: expected class subfolders, {EXPECTED}, got no subfolder")
    passed = _stray(root)
    files = _files(root, classes, passed)
    notes = _counted(passed) + ([note] if note else [])
    kept = {
        split: Files([files.paths[index] for index in positions], files.labels[positions])
        for split, positions in _split.stratified(files.labels, name=root).items()
    }
    return Layout(kept["train"], kept["test"], len(classes), notes)


def _files(folder: str, names: list[str], passed: _walk.Passed, order: list[str] | None = None) -> Files:
    """The files of the classes `names`, labelled by their places in `order`, by default in `names`."""
    paths: list[str] = []
    labels: list[int] = []
    for name in names:
        path = os.path.join(folder, name)
        found = list(_walk.images_below(path, passed))
        if not found:
            raise SourceError(f"{path}: expected images of a class, got a folder with no image; fill or remove it")
        paths += found
        labels += [(order or names).index(name)] * len(found)
    return Files(paths, np.array(labels, np.int32))


def _stray(folder: str) -> _walk.Passed:
    """The files that lie directly in a folder of class subfolders."""
    passed = _walk.Passed()
    for entry in _walk.entries(folder):
        if _walk.is_hidden(entry.name):
            passed["hidden"] += 1
        elif not _walk.is_true(entry.is_dir):
            beside = " beside the class subfolders" if _walk.is_image(entry) else ""
            passed[(_walk.ending(entry.name) or "without an ending") + beside] += 1
    return passed


def _counted(passed: _walk.Passed) -> list[str]:
    if not passed:
        return []
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(passed.items(), key=lambda item: (-item[1], item[0])))
    return [f"passed over {passed.total()} file{'s' if passed.total() > 1 else ''}: {kinds}"]


def _some(names: list[str]) -> str:
    shown = ", ".join(f"{name}/" for name in names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
