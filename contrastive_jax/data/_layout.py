"""How a folder of images is laid out: its splits, its classes, and what is neither."""

from __future__ import annotations

import os
from typing import NamedTuple

import numpy as np

from contrastive_jax.data import _split, _walk
from contrastive_jax.errors import SourceError

TEST_FOLDERS = ("test", "val", "valid", "validation")
EXPECTED = (
    "PATH/train/CLASS/*.png and PATH/test/CLASS/*.png, or PATH/CLASS/*.png, or images without classes (any common "
    "image format)"
)
_FEWEST_CLASSES = 2
_ALL = "?labels=none after the path reads all images, without labels"


class Files(NamedTuple):
    """The files of one split, in order, and their labels, int32 [n]; None where there are none."""

    paths: list[str]
    labels: np.ndarray | None


class Layout(NamedTuple):
    """What was found in a folder.

    Attributes:
        train: the files of the training split.
        test: those of the test split, or why there is none.
        classes: their names, in the order of the labels; None where the images have no labels.
        why: why they have none, in part of a line.
        notes: what was passed over or could be meant otherwise, in parts of a line.
    """

    train: Files
    test: Files | SourceError
    classes: list[str] | None
    why: str
    notes: list[str]


def read_layout(root: str, *, labels: bool = True) -> Layout:
    """Find the splits and classes of `root`.

    PATH/train/ is the training split if it holds images, unless there are other folders of images beside it and no
    test split: then it is a class. The test split is the first of test/, val/, valid/ and validation/ that holds
    classes or, of images without classes, that holds images. Folders are classes if there are two or more, and no
    more images beside them than in them.

    Args:
        root: the folder.
        labels: False reads every image without labels, whatever the folders are.
    """
    if not os.path.isdir(root):
        raise SourceError(f"{root}: expected a folder, {EXPECTED}, got no such folder")
    train = os.path.join(root, "train")
    others = [name for name in _walk.subfolders(root) if name not in ("train", *TEST_FOLDERS)]
    classes = _walk.subfolders_with_images(train) if labels else []
    if not _walk.holds_images(train):
        return _without_splits(root, others) if labels else _unlabelled(root, "as asked")
    holding = [name for name in others if _walk.holds_images(os.path.join(root, name))]
    if classes:
        tests = _test_folders(root, classes)
        if holding and not tests:
            return _without_splits(root, holding)
        why = _why_no_classes(train, classes)
        return _unlabelled_splits(root, others, why) if why else _with_splits(root, classes, tests, holding)
    if not others or (_some_test_folder(root) and not (labels and holding)):
        return _unlabelled_splits(root, others, "there are no class folders in train/" if labels else "as asked")
    return _without_splits(root, others) if labels else _unlabelled(root, "as asked")


def _why_no_classes(folder: str, classes: list[str]) -> str:
    """Why the subfolders of a folder are no classes, in part of a line; nothing if they are."""
    if len(classes) < _FEWEST_CLASSES:
        return f"{_some(classes)} is the only folder of images" if classes else "there are no class folders"
    loose = sum(_walk.is_image(entry) for entry in _walk.entries(folder) if not _walk.is_hidden(entry.name))
    if not loose:
        return ""
    inside = sum(1 for name in classes for _ in _walk.images_below(os.path.join(folder, name), _walk.Passed()))
    return f"{loose} images lie beside the folders {_some(classes)}, {inside} in them" if loose > inside else ""


def _test_folders(root: str, classes: list[str]) -> list[str]:
    """The folders that may be the test split: those that hold classes of train's first."""
    held = {name: _walk.subfolders_with_images(os.path.join(root, name)) for name in TEST_FOLDERS}
    found = [name for name in TEST_FOLDERS if held[name]]
    return sorted(found, key=lambda name: not set(held[name]) & set(classes))


def _some_test_folder(root: str) -> str | None:
    """The first folder of images that may be the test split of images without classes."""
    return next((name for name in TEST_FOLDERS if _walk.holds_images(os.path.join(root, name))), None)


def _no_test_split(root: str, expected: str) -> SourceError:
    names = ", ".join(f"{name}/" for name in TEST_FOLDERS)
    return SourceError(f"{root}: expected a test split, one of {names} {expected}, got none of them")


def _with_splits(root: str, classes: list[str], tests: list[str], others: list[str]) -> Layout:
    passed = _stray(root) + _stray(os.path.join(root, "train"))
    train = _files(os.path.join(root, "train"), _walk.subfolders(os.path.join(root, "train")), passed)
    notes = []
    test: Files | SourceError = _no_test_split(root, "with the class subfolders of train/")
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
    return Layout(train, test, classes, "", _count(passed) + notes)


def _unlabelled_splits(root: str, others: list[str], why: str) -> Layout:
    """PATH/train/ and PATH/test/ of images that have no classes."""
    passed, name = _stray(root), _some_test_folder(root)
    train = Files(list(_walk.images_below(os.path.join(root, "train"), passed)), None)
    test: Files | SourceError = _no_test_split(root, f"with images (folder:{root}/train holds some of its own out)")
    if name:
        test = Files(list(_walk.images_below(os.path.join(root, name), passed)), None)
    unused = [other for other in (*TEST_FOLDERS, *others) if other != name]
    unused = [other for other in unused if _walk.holds_images(os.path.join(root, other))]
    notes = [f"passed over the folders {_some(unused)} beside train/"] if unused else []
    return Layout(train, test, None, why, _count(passed) + notes)


def _without_splits(root: str, others: list[str]) -> Layout:
    classes = _walk.subfolders(root)
    if why := _why_no_classes(root, classes):
        return _unlabelled(root, why)
    passed = _stray(root)
    files, notes = _files(root, classes, passed), _count(passed)
    assert files.labels is not None
    if "train" in classes:
        why = f"other folders hold images ({_some(others)}) and there is no test split of classes"
        notes.append(f"train/ is read as a class: {why}")
    elif any(os.path.dirname(os.path.dirname(path)) != root for path in files.paths):
        notes.append(f"the classes are the folders {_some(classes)}, though images lie deeper; {_ALL}")
    elif any(_walk.is_image(entry) for entry in _walk.entries(root)):
        notes.append(_ALL)
    kept = {
        split: Files([files.paths[index] for index in positions], files.labels[positions])
        for split, positions in _split.stratified(files.labels, name=root).items()
    }
    return Layout(kept["train"], kept["test"], classes, "", notes)


def _unlabelled(root: str, why: str) -> Layout:
    """Every image below a folder; some of them are held out."""
    passed = _walk.Passed()
    paths = list(_walk.images_below(root, passed))
    if not paths:
        raise SourceError(f"{root}: expected a folder of images, {EXPECTED}, got no image")
    kept = _split.hold_out(len(paths), name=root)
    train, test = (Files([paths[index] for index in kept[split]], None) for split in ("train", "test"))
    return Layout(train, test, None, why, _count(passed))


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
    """The files that lie directly in a folder of subfolders."""
    passed = _walk.Passed()
    for entry in _walk.entries(folder):
        if _walk.is_hidden(entry.name):
            passed["hidden"] += 1
        elif not _walk.is_true(entry.is_dir):
            beside = " beside the class subfolders" if _walk.is_image(entry) else ""
            passed[(_walk.ending(entry.name) or "without an ending") + beside] += 1
    return passed


def _count(passed: _walk.Passed) -> list[str]:
    if not passed:
        return []
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(passed.items(), key=lambda item: (-item[1], item[0])))
    return [f"passed over {passed.total()} file{'s' if passed.total() > 1 else ''}: {kinds}"]


def _some(names: list[str]) -> str:
    shown = ", ".join(f"{name}/" for name in names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
