"""Images without labels: folders of every layout, several folders, .npz, splits of TFDS; and why they have none."""

import io

import numpy as np
import pytest
from PIL import Image

from contrastive_jax.data import _tfds, batches, sources
from tests.data.test_layouts import fill, load, said_of
from tests.data.test_sources import all_images, refused


@pytest.mark.parametrize(
    ("patterns", "why"),
    [
        (["{}.png"], "there are no class folders"),
        (["{}.png", "a/{}.png"], "a/ is the only folder of images"),
        (["a/{}.png"], "a/ is the only folder of images"),
        (["a/b/c/{}.png", "a/d/{}.png"], "a/ is the only folder of images"),
        (
            ["{}.png", "1{}.png", "2{}.png", "a/{}.png", "b/{}.png"],
            "15 images lie beside the folders a/, b/, 10 in them",
        ),
    ],
)
def test_a_folder_without_classes(patterns, why, tmp_path, capsys):
    fill(tmp_path, *patterns)
    count = 5 * len(patterns)
    assert said_of(tmp_path, capsys).startswith(f"{count} images without labels: {why}")
    train, test = load(tmp_path)
    assert len(train) + len(test) == count and len(test) == max(1, round(count / 10))
    for source in (train, test):
        assert sources.labels_of(source) is None and sources.num_classes_of(source) is None
        assert "label" not in next(batches.sequential(source, 2))
    assert sources.fingerprint(train)["labels"] is None


def test_what_is_held_out_is_always_the_same_and_at_most_ten_thousand(tmp_path):
    spec = save_npz(tmp_path, image=np.arange(200_000).astype("<u4").view(np.uint8).reshape(200_000, 2, 2))
    train, test = sources.load_splits(spec)
    assert (len(train), len(test)) == (190_000, 10_000)
    ids = [source.images[..., 0].reshape(-1, 4).copy().view("<u4")[:, 0] for source in (train, test)]
    assert (np.sort(np.concatenate(ids)) == np.arange(200_000)).all() and all((np.diff(x) > 0).all() for x in ids)
    assert (sources.load(spec, split="test").images == test.images).all()


@pytest.mark.parametrize("test", ["test", "val", "valid", "validation"])
@pytest.mark.parametrize("pattern", ["{}.png", "images/{}.png", "images/deeper/{}.png"])
def test_splits_without_classes(pattern, test, tmp_path, capsys):
    fill(tmp_path, f"train/{pattern}")
    fill(tmp_path, f"{test}/{pattern}", count=3)
    train, held = load(tmp_path)
    assert (len(train), len(held)) == (5, 3) and train.labels is None and held.labels is None
    why = "images/ is the only folder of images" if "images" in pattern else "there are no class folders in train/"
    assert capsys.readouterr().err == f"folder:{tmp_path}: read 8 images without labels: {why}\n"


def test_a_training_split_alone_has_no_test_split(tmp_path):
    fill(tmp_path, "train/{}.png")
    assert len(sources.load(f"folder:{tmp_path}", split="train")) == 5
    refused(f"folder:{tmp_path}", "expected a test split", f"folder:{tmp_path}/train holds some", split="test")
    assert [len(split) for split in load(tmp_path / "train")] == [4, 1]


def test_classes_with_images_beside_them_keep_their_labels(tmp_path, capsys):
    fill(tmp_path, "a/{}.png", "b/{}.png", "{}.png")
    assert said_of(tmp_path, capsys) == (
        "10 images; passed over 5 files: 5 .png beside the class subfolders; "
        "?labels=none after the path reads all images, without labels"
    )
    train, test = load(f"{tmp_path}?labels=none")
    assert len(train) + len(test) == 15 and train.labels is None


def test_classes_that_hold_folders_are_named(tmp_path, capsys):
    """Years of photographs are no classes, but look like them."""
    fill(tmp_path, "2023/05/{}.png", "2024/01/{}.png")
    assert said_of(tmp_path, capsys) == (
        "10 images; the classes are the folders 2023/, 2024/, though images lie deeper; "
        "?labels=none after the path reads all images, without labels"
    )


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["a/{}.png", "b/{}.png"], (9, 1)),
        (["train/a/{}.png", "train/b/{}.png", "test/a/{}.png"], (10, 5)),
        (["train/{}.png", "test/{}.png", "more/{}.png"], (5, 5)),
        (["train/{}.png", "bus/{}.png"], (9, 1)),
    ],
)
def test_labels_may_be_left_out(patterns, expected, tmp_path, capsys):
    fill(tmp_path, *patterns)
    train, test = load(f"{tmp_path}?labels=none")
    assert (len(train), len(test)) == expected and train.labels is None and test.labels is None
    assert "without labels: as asked" in capsys.readouterr().err
    assert sources.load_whole(f"folder:{tmp_path}?labels=none").labels is None


def test_what_is_passed_over_beside_splits_without_classes(tmp_path, capsys):
    fill(tmp_path, "train/{}.png", "test/{}.png", "val/{}.png", "0{}.png")
    assert said_of(tmp_path, capsys) == (
        "10 images without labels: there are no class folders in train/; passed over 5 files: "
        "5 .png beside the class subfolders; passed over the folders val/ beside train/"
    )


def listed(*paths):
    return "[" + ", ".join(f'"{path}"' for path in paths) + "]"


def test_several_folders_whose_paths_have_commas_and_spaces(tmp_path, capsys):
    roots = [tmp_path / name for name in ("more, photos", "and 2023", "what?")]
    for root in roots:
        fill(root, "{}.png", "a/{}.png")
    train, test = load(listed(*roots))
    assert len(train) + len(test) == 30 and len(test) == 3 and train.labels is None
    assert capsys.readouterr().err.count("\n") == 1
    whole = sources.load_whole(f"folder:{listed(*roots)}")
    assert len(whole) == 30 and sources.names_of(whole)[-1] == f"{roots[-1]}/a/4.png"
    assert len(set(sources.names_of(whole))) == 30
    assert sum(len(split) for split in load(roots[2])) == 10


def test_classes_of_several_folders_are_joined_by_name(tmp_path):
    fill(tmp_path, "1/a/{}.png", "1/c/{}.png", "2/b/{}.png", "2/a/{}.png")
    both = listed(tmp_path / "1", tmp_path / "2")
    train, test = load(both)
    assert np.bincount(train.labels).tolist() == [8, 4, 4] and np.bincount(test.labels).tolist() == [2, 1, 1]
    assert train.num_classes == 3 and sources.load_whole(f"folder:{both}").labels.max() == 2


def test_folders_with_and_without_classes_have_none(tmp_path, capsys):
    fill(tmp_path, "1/a/{}.png", "1/b/{}.png", "2/{}.png")
    train, _ = load(listed(tmp_path / "1", tmp_path / "2"))
    assert train.labels is None
    assert f"without labels: {tmp_path}/2 has no classes, other folders have" in capsys.readouterr().err


def test_the_fingerprint_of_several_folders_is_of_their_files(tmp_path):
    fill(tmp_path, "1/{}.png", "2/{}.png")
    both = [f"folder:{listed(tmp_path / a, tmp_path / b)}" for a, b in ("12", "21")]
    found = [sources.fingerprint(sources.load(spec, split="train")) for spec in (*both, f"folder:{tmp_path}/1")]
    assert found[0] == sources.fingerprint(sources.load(both[0], split="train"))
    (tmp_path / "1").rename(tmp_path / "3")  # moved as a whole: the same images
    moved = f"folder:{listed(tmp_path / '3', tmp_path / '2')}"
    assert sources.fingerprint(sources.load(moved, split="train")) == found[0] != found[2]


@pytest.mark.parametrize("inner", ["", "/", "/a", "/../1"])
def test_folders_within_each_other_are_refused(inner, tmp_path):
    fill(tmp_path, "1/a/{}.png")
    refused(f"folder:{listed(tmp_path / '1', f'{tmp_path}/1{inner}')}", "expected folders apart from each other")


@pytest.mark.parametrize("text", ["[", '["a"', "[1]", "[]", '[""]', '{"a": 1}[', "[[]]"])
def test_lists_of_another_form(text):
    refused(f"folder:{text}", "expected")


@pytest.mark.parametrize(
    "spec",
    [
        "digits?labels=no",
        "npz:x.npz?labels=",
        "folder:x?label=none",
        "folder:x?split=a",
        "tfds:stl10?split=",
        "digits?a=1",
    ],
)
def test_unknown_options(spec):
    refused(spec, "expected labels=none or, of tfds:NAME, split=NAME after the question mark")


def test_a_path_with_a_question_mark_is_a_path(tmp_path):
    fill(tmp_path, "a?labels=none/a/{}.png", "a?labels=none/b/{}.png")
    assert load(tmp_path / "a?labels=none").train.num_classes == 2


def save_npz(folder, **arrays):
    np.savez(folder / "x.npz", **arrays)
    return f"npz:{folder / 'x.npz'}"


def test_an_npz_without_labels(tmp_path, capsys):
    images = np.arange(20, dtype=np.uint8)[:, None, None] * np.ones((1, 4, 4), np.uint8)
    spec = save_npz(tmp_path, image=images)
    train, test = sources.load_splits(spec)
    assert (len(train), len(test)) == (18, 2) and train.labels is None and train.num_classes is None
    assert capsys.readouterr().err == f"{spec}: read 20 images without labels: there is no array 'label'\n"
    train, test = sources.load_splits(save_npz(tmp_path, image=images, image_test=images[:3]))
    assert (len(train), len(test)) == (20, 3) and test.labels is None


@pytest.mark.parametrize(("there", "missing"), [("label", "label_test"), ("label_test", "label")])
def test_labels_of_one_split_alone_are_refused(there, missing, tmp_path):
    images = np.zeros((4, 2, 2), np.uint8)
    spec = save_npz(tmp_path, image=images, image_test=images, **{there: np.arange(4)})
    refused(spec, f"expected an array {missing!r} beside {there!r}, got none; give both or neither")


def test_known_splits_stay_when_labels_are_left_out(tmp_path):
    """So that the same set with its labels can be used for the scores."""
    spec = save_npz(
        tmp_path, image=np.random.default_rng(0).integers(0, 256, (40, 4, 4), np.uint8), label=np.arange(40) % 4
    )
    for name in ("digits", spec):
        bare, labelled = sources.load_splits(f"{name}?labels=none"), sources.load_splits(name)
        for split in (0, 1):
            np.testing.assert_array_equal(bare[split].images, labelled[split].images)
            assert bare[split].labels is None and bare[split].num_classes is None


class FakeBuilder:
    """Stands for a prepared data set with splits as in STL-10."""

    def __init__(self, tfds, splits, features):
        self.splits, self.data_dir_root = splits, "."
        info = {"features": tfds.features.FeaturesDict(features), "splits": splits, "full_name": "fake/1.0.0"}
        self.info = type("Info", (), info)

    def as_data_source(self, split, decoders):
        return Records(self.splits[split])


class Records(list):
    def __getitems__(self, indices):
        return [self[index] for index in indices]


def png(value):
    stream = io.BytesIO()
    Image.new("RGB", (6, 6), (value, 0, 0)).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def stl10(monkeypatch):
    tfds = pytest.importorskip("tensorflow_datasets")

    def make(label=None, splits=None):
        given = {"train": (10, lambda k: k % 5), "test": (5, lambda k: k), "unlabelled": (20, lambda k: -1)}
        features = {"image": tfds.features.Image(shape=(6, 6, 3))}
        features |= {"label": tfds.features.ClassLabel(num_classes=5)} if label is None else label(tfds)
        records = {
            name: [{"image": png(k), "label": number(k)} for k in range(count)]
            for name, (count, number) in (given if splits is None else splits).items()
        }
        builder = FakeBuilder(tfds, records, features)
        monkeypatch.setattr(_tfds, "_builder", lambda *_: builder)

    return make


def test_a_named_split_of_tfds(stl10, capsys):
    stl10()
    train, test = sources.load_splits("tfds:stl10?split=unlabelled")
    assert (len(train), len(test)) == (20, 5) and train.labels is None and train.num_classes is None
    assert test.labels.tolist() == [0, 1, 2, 3, 4] and all_images(train)[:, 0, 0, 0].tolist() == list(range(20))
    assert capsys.readouterr().err == "tfds:stl10: read 20 images of unlabelled without labels: its labels are -1\n"
    assert sources.fingerprint(train)["content"] == "tfds fake/1.0.0 unlabelled"
    whole = sources.load_whole("tfds:stl10?split=unlabelled")
    assert len(whole) == 20 and sources.names_of(whole)[0] == "unlabelled/0"
    labelled = sources.load_splits("tfds:stl10")
    assert len(labelled.train) == 10 and labelled.train.num_classes == 5
    assert sources.load("tfds:stl10?labels=none", split="train").labels is None


def test_splits_that_tfds_does_not_have(stl10):
    stl10()
    refused("tfds:stl10?split=unlabeled", "expected the split unlabeled, got only train, test, unlabelled")
    refused("tfds:stl10?split=test", "expected another split than the test split test", split="test")


@pytest.mark.parametrize(
    ("label", "why"),
    [
        (lambda tfds: {}, "there is no feature 'label'"),
        (lambda tfds: {"label": tfds.features.Text()}, "the feature 'label' is no class, but Text"),
    ],
)
def test_tfds_without_classes(label, why, stl10, capsys):
    stl10(label)
    assert sources.load("tfds:faces", split="train").labels is None
    assert capsys.readouterr().err == f"tfds:faces: read 10 images of train without labels: {why}\n"


def test_some_labels_of_minus_one_are_refused(stl10):
    stl10(splits={"train": (10, lambda k: 3 - k)})
    with pytest.raises(sources.SourceError, match="tfds:mixed: train labels: expected classes counted from 0, got -6"):
        _ = sources.load("tfds:mixed", split="train").labels
