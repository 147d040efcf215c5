"""Folders as people have them: splits, classes, depths, endings, and a line for what is passed over."""

import os

import numpy as np
import pytest
from PIL import Image

from contrastive_jax.data import _walk, sources
from contrastive_jax.errors import SourceError
from tests.data.test_sources import all_images, refused


def fill(root, *patterns, count=5):
    """Write `count` images for each pattern, in which {} is a number."""
    for pattern in patterns:
        for number in range(count):
            file = root / pattern.format(number)
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (6, 5), (number, 0, 0)).save(file, "PNG")


def load(root, **options):
    return sources.load_splits(f"folder:{root}", **options)


def sizes(root):
    train, test = load(root)
    return len(train), len(test), train.num_classes


def said_of(root, capsys, **options):
    """The line that a folder gives, without its beginning."""
    load(root, **options)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"folder:{root}: read ")
    return line.removeprefix(f"folder:{root}: read ")


def test_images_at_any_depth_below_a_class(tmp_path):
    """As in Tiny ImageNet, and beside images in the class itself."""
    fill(tmp_path, "train/a/images/{}.JPEG", "train/b/{}.png", "train/b/more/deeper/{}.png", "test/a/{}.png")
    train, test = load(tmp_path)
    assert np.bincount(train.labels).tolist() == [5, 10] and len(test) == 5
    assert all_images(train)[:, 0, 0, 0].tolist() == [*range(5)] * 3


@pytest.mark.parametrize("ending", ["jfif", "jpe", "jpeg", "pbm", "pnm", "apng", "tif", "webp", "PNG"])
def test_every_ending_of_the_formats_is_read(ending, tmp_path, capsys):
    fill(tmp_path, f"a/{{}}.{ending}", f"b/{{}}.{ending}")
    assert sizes(tmp_path) == (8, 2, 2)
    assert capsys.readouterr().err == ""


def test_what_is_passed_over_is_counted_in_one_line(tmp_path, capsys):
    fill(tmp_path, "train/a/{}.png", "train/b/{}.png", "test/a/{}.png", "val/a/{}.png", "extra/{}.png")
    for name in ("train/a/0.txt", "test/a/1.TXT", "train/notes.json", "train/b/LICENSE", "train/.DS_Store"):
        (tmp_path / name).write_text("text")
    fill(tmp_path, "train/stray{}.png", count=1)
    load(tmp_path)
    assert capsys.readouterr().err == (
        f"folder:{tmp_path}: read 15 images; passed over 6 files: 2 .txt, 1 .json, 1 .png beside the class subfolders, "
        "1 hidden, 1 without an ending; passed over the folders val/, extra/ beside train/ and test/\n"
    )


def test_a_class_called_train(tmp_path):
    fill(tmp_path / "classes", "train/{}.png", "bus/{}.png", "test/{}.png", "val/{}.png")
    assert sizes(tmp_path / "classes") == (16, 4, 4)
    fill(tmp_path / "splits", "train/train/{}.png", "train/bus/{}.png", "test/train/{}.png", "test/bus/{}.png")
    assert sizes(tmp_path / "splits") == (10, 10, 2)


def test_a_class_called_train_whose_images_lie_deeper(tmp_path, capsys):
    fill(tmp_path, "train/images/{}.png", "bus/images/{}.png")
    assert sizes(tmp_path) == (8, 2, 2)
    assert capsys.readouterr().err == (
        f"folder:{tmp_path}: read 10 images; "
        "train/ is read as a class: other folders hold images (bus/) and there is no test split of classes\n"
    )


def test_a_class_called_train_beside_one_that_holds_images_directly(tmp_path, capsys):
    fill(tmp_path, "train/{}.png", "bus/{}.png")
    assert said_of(tmp_path, capsys).endswith("other folders hold images (bus/) and there is no test split of classes")
    assert sizes(tmp_path) == (8, 2, 2)


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_the_test_split_is_the_first_that_holds_classes(name, tmp_path):
    """ImageNet's test/ holds images alone, Tiny ImageNet's a folder of them that is no class."""
    fill(tmp_path, "train/a/{}.png", "train/b/{}.png", f"{name}/b/{{}}.png", count=3)
    for test in (None, "test/{}.png", "test/images/{}.png"):
        fill(tmp_path, *([test] if test else []))
        train, test = load(tmp_path)
        assert (len(train), len(test)) == (6, 3)
        assert test.labels.tolist() == [1, 1, 1]


def test_a_missing_test_split_matters_only_to_whom_asks_for_it(tmp_path):
    fill(tmp_path, "train/a/{}.png")
    assert len(sources.load(f"folder:{tmp_path}", split="train")) == 5
    refused(f"folder:{tmp_path}", "expected a test split, one of test/, val/, valid/, validation/", split="test")


@pytest.mark.parametrize("where", ["a", "b/inside"])
def test_links_into_themselves_are_passed_over(where, tmp_path, capsys):
    fill(tmp_path, "a/{}.png", "b/inside/{}.png")
    os.symlink(tmp_path / "a", tmp_path / where / "loop", target_is_directory=True)
    os.symlink(tmp_path / where, tmp_path / where / "again", target_is_directory=True)
    os.symlink("nowhere", tmp_path / where / "nowhere")
    load(tmp_path)
    said = capsys.readouterr().err
    assert "folder linked into itself" in said and "1 without an ending" in said and said.count("\n") == 1


def test_links_to_images_and_folders_are_followed(tmp_path):
    fill(tmp_path / "elsewhere", "a/{}.png")
    fill(tmp_path / "set", "b/{}.png")
    os.symlink(tmp_path / "elsewhere" / "a", tmp_path / "set" / "a", target_is_directory=True)
    assert sizes(tmp_path / "set") == (8, 2, 2)
    os.symlink(tmp_path / "nowhere.png", tmp_path / "set" / "b" / "9.png")
    refused(f"folder:{tmp_path / 'set'}", tmp_path / "set" / "b" / "9.png", "No such file")


def test_a_pipe_is_not_opened(tmp_path, capsys):
    fill(tmp_path, "a/{}.png")
    os.mkfifo(tmp_path / "a" / "pipe.png")
    assert sizes(tmp_path) == (4, 1, None)
    assert "passed over 1 file: 1 .png" in capsys.readouterr().err


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    fill(tmp_path, "a/{}.png", "b/secret/{}.png")

    def scandir(path, scandir=os.scandir):
        if str(path).endswith("secret"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(_walk.os, "scandir", scandir)
    with pytest.raises(SourceError, match=r"b/secret: expected a folder that can be read, got .*Permission denied"):
        load(tmp_path)


def test_an_empty_class_is_named(tmp_path):
    fill(tmp_path, "a/{}.png")
    (tmp_path / "b" / "deeper").mkdir(parents=True)
    refused(f"folder:{tmp_path}", f"{tmp_path}/b: expected images of a class, got a folder with no image")
