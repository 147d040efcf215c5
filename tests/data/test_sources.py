"""Sources: what is loaded, that it is always the same, and what a wrong input is told."""

import io
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from contrastive_jax.data import _stored, sources
from contrastive_jax.errors import SourceError

PREPARED = pathlib.Path(__file__).parents[3] / "shared" / "data" / "tensorflow_datasets"
needs_prepared = pytest.mark.skipif(not (PREPARED / "fashion_mnist").is_dir(), reason="no prepared TFDS data set here")


def refused(spec, *words, split="train", **kwargs):
    """Loading `spec` is refused with one line that has all `words`."""
    with pytest.raises(SourceError) as caught:
        sources.load(spec, split=split, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert str(word) in message, f"{word!r} is not in {message!r}"


def all_images(source):
    return source.take(np.arange(len(source)))


def write_image(path, size=(6, 5), mode="RGB", value=100):
    path.parent.mkdir(parents=True, exist_ok=True)
    colour = tuple(value + 10 * channel for channel in range(len(mode))) if mode in ("RGB", "RGBA") else value
    Image.new(mode, size, colour).save(path)


@pytest.fixture
def folder(tmp_path):
    """Two classes, three images each in train and one in test, all 6 wide and 5 high."""
    for split, count in (("train", 3), ("test", 1)):
        for name in ("cat", "dog"):
            for number in range(count):
                write_image(tmp_path / split / name / f"{number}.png", value=100 + number)
    return tmp_path


def test_digits_sizes_and_stratification():
    train, test = sources.load("digits", split="train"), sources.load("digits", split="test")
    assert (len(train), len(test)) == (1437, 360)
    for source in (train, test):
        assert source.image_shape == (8, 8, 1)
        assert source.num_classes == 10
        assert source.labels.dtype == np.int32
        fractions = np.bincount(source.labels, minlength=10) / len(source)
        np.testing.assert_allclose(fractions, np.bincount(np.r_[train.labels, test.labels]) / 1797, atol=2e-3)


def test_digits_are_scikit_learns_and_in_one_split_only():
    from sklearn.datasets import load_digits

    splits = [sources.load("digits", split=split) for split in ("train", "test")]
    stacked = np.concatenate([all_images(source) for source in splits])
    assert stacked.dtype == np.uint8
    originals = load_digits().images
    assert sorted(image.tobytes() for image in stacked) == sorted(
        np.round(image * 255 / 16).astype(np.uint8).tobytes() for image in originals
    )
    assert stacked.max() == 255


def test_a_source_is_always_the_same_and_indices_are_positions():
    first, second = (sources.load("digits", split="train") for _ in range(2))
    indices = np.array([5, 0, 1436])
    np.testing.assert_array_equal(first.take(indices), second.take(indices))
    np.testing.assert_array_equal(first.take(indices), all_images(first)[indices])
    with pytest.raises(IndexError, match="1437"):
        first.take(np.array([1437]))


def test_stored_size_resizes_every_image():
    source = sources.load("digits", split="test", stored_size=16)
    assert source.image_shape == (16, 16, 1) == all_images(source).shape[1:]


@pytest.mark.parametrize("spec", ["foo", "", "tfds:", "folder", "npz:", "digits:8"])
def test_unknown_spec_lists_the_forms(spec):
    refused(spec, repr(spec), "digits", "tfds:NAME", "folder:PATH", "npz:PATH")


def test_unknown_split():
    refused("digits", "split: expected one of train, test, got 'validation'", split="validation")


def test_folder_classes_labels_and_native_shape(folder):
    train, test = (sources.load(f"folder:{folder}", split=split) for split in ("train", "test"))
    assert (len(train), len(test)) == (6, 2)
    assert train.image_shape == (5, 6, 3)
    assert train.num_classes == test.num_classes == 2
    np.testing.assert_array_equal(train.labels, [0, 0, 0, 1, 1, 1])
    np.testing.assert_array_equal(all_images(train)[2], np.broadcast_to(np.uint8([102, 112, 122]), (5, 6, 3)))
    assert train.take(np.array([3, 0, 3]))[:, 0, 0, 0].tolist() == [100, 100, 100]


def test_folder_of_mixed_modes_and_sizes(tmp_path):
    for number, (mode, size) in enumerate(
        [("RGB", (40, 20)), ("L", (20, 40)), ("RGBA", (30, 30)), ("P", (33, 21)), ("1", (25, 25)), ("CMYK", (30, 50))]
    ):
        write_image(tmp_path / "train" / "a" / f"{number}.{'jpg' if mode == 'CMYK' else 'png'}", size, mode, value=1)
    Image.fromarray(np.full((25, 30), 0x8000, np.uint16)).save(tmp_path / "train" / "a" / "9.png")
    source = sources.load(f"folder:{tmp_path}", split="train", image_size=14)
    assert source.image_shape == (16, 16, 3)
    images = all_images(source)
    assert images.shape == (7, 16, 16, 3)
    assert (images[6] == 0x80).all()  # sixteen bits become the higher eight
    assert sources.load(f"folder:{tmp_path}", split="train", stored_size=24).take(np.arange(1)).shape == (1, 24, 24, 3)
    refused(f"folder:{tmp_path}", "expected images of one shape", "got 7 shapes", "image_size", "stored_size")


def test_stored_image_is_the_centre(tmp_path):
    pixels = np.zeros((10, 30, 3), np.uint8)
    pixels[:, 10:20] = 200
    (tmp_path / "train" / "a").mkdir(parents=True)
    Image.fromarray(pixels).save(tmp_path / "train" / "a" / "0.png")
    source = sources.load(f"folder:{tmp_path}", split="train", stored_size=10)
    assert (all_images(source) == 200).all()


def test_folder_without_train_is_split_in_each_class(tmp_path):
    for name in ("a", "b"):
        for number in range(10):
            write_image(tmp_path / name / f"{number}.png", value=100 + number)
    train, test = (sources.load(f"folder:{tmp_path}", split=split) for split in ("train", "test"))
    assert np.bincount(train.labels).tolist() == [8, 8]
    assert np.bincount(test.labels).tolist() == [2, 2]
    keys = [
        (label, value)
        for source in (train, test)
        for label, value in zip(source.labels, all_images(source)[:, 0, 0, 0], strict=True)
    ]
    assert len(set(keys)) == 20


def test_folder_refusals(tmp_path, folder):
    refused(f"folder:{tmp_path / 'none'}", tmp_path / "none", "PATH/train/CLASS")
    (tmp_path / "empty").mkdir()
    refused(f"folder:{tmp_path / 'empty'}", "empty", "expected a folder of images", "got no image")
    (folder / "train" / "eel").mkdir()
    refused(f"folder:{folder}", folder / "train" / "eel", "no image")
    write_image(folder / "test" / "fox" / "0.png")
    (folder / "train" / "eel").rmdir()
    refused(f"folder:{folder}", "expected the classes of train/, got others too: fox/", split="test")
    write_image(tmp_path / "lone" / "train" / "a" / "0.png")
    refused(f"folder:{tmp_path / 'lone'}", "test", split="test")
    write_image(tmp_path / "few" / "a" / "0.png")
    refused(f"folder:{tmp_path / 'few'}", "expected at least 2 images, of which one is held out, got 1")
    write_image(tmp_path / "few" / "b" / "0.png")
    refused(f"folder:{tmp_path / 'few'}", "80/20", "Give it a test split")


def test_a_truncated_image_is_named_when_read(folder):
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (5, 6, 3), np.uint8)).save(stream, "PNG")
    source = sources.load(f"folder:{folder}", split="train")
    (folder / "train" / "cat" / "1.png").write_bytes(stream.getvalue()[:-60])
    with pytest.raises(SourceError, match=r"cat.1\.png: expected a whole .*, got an image that cannot be read"):
        source.take(np.arange(6))
    assert (source.take(np.arange(1)) == 100).any()  # the others can still be read


@pytest.mark.parametrize("keep", [False, True])
def test_read_source_with_and_without_its_cache(keep):
    reads = []

    def read(indices):
        for index in indices:
            reads.append(index)
            yield np.full((2, 2, 1), index, np.uint8)

    source = _stored.ReadSource(
        "squares",
        read,
        lambda: np.arange(50) % 3,
        length=50,
        image_shape=(2, 2, 1),
        num_classes=3,
        identity=lambda: "squares",
        keep=keep,
    )
    indices = np.array([7, 49, 7, 0])
    for _ in range(2):
        np.testing.assert_array_equal(source.take(indices)[:, 0, 0, 0], indices)
        np.testing.assert_array_equal(source.labels[indices], indices % 3)
    assert len(reads) == (3 if keep else 8)


def save_npz(path, **arrays):
    np.savez(path, **arrays)
    return f"npz:{path}"


def test_npz_with_and_without_a_test_split(tmp_path):
    images = np.arange(20 * 3 * 4, dtype=np.uint8).reshape(20, 3, 4)
    labels = np.arange(20) % 2
    spec = save_npz(tmp_path / "a.npz", image=images, label=labels)
    train, test = (sources.load(spec, split=split) for split in ("train", "test"))
    assert (len(train), len(test), train.image_shape, train.num_classes) == (16, 4, (3, 4, 1), 2)
    both = np.concatenate([all_images(source)[..., 0] for source in (train, test)])
    np.testing.assert_array_equal(np.sort(both, axis=0), images)
    spec = save_npz(
        tmp_path / "b.npz", image=images, label=labels, image_test=images[:3], label_test=np.array([0, 1, 2])
    )
    train, test = (sources.load(spec, split=split) for split in ("train", "test"))
    assert (len(train), len(test), train.num_classes, test.num_classes) == (20, 3, 3, 3)
    np.testing.assert_array_equal(all_images(test)[..., 0], images[:3])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image": None}, ["expected an array 'image', got ['label']"]),
        ({"image": None}, ["expected an array 'image', got ['label']"]),
        (
            {"image": np.zeros((4, 2, 2), np.float32)},
            [
                "expected uint8",
                "got float32 [4, 2, 2] in [0, 1]; convert them: np.round(255 * images).astype(np.uint8)",
            ],
        ),
        ({"image": np.zeros((4, 2, 2, 2), np.uint8)}, ["[4, 2, 2, 2]"]),
        ({"image": np.zeros((4, 2), np.uint8)}, ["[4, 2]"]),
        ({"image": np.zeros((0, 2, 2), np.uint8)}, ["[0, 2, 2]"]),
        ({"label": np.zeros(3, np.int64)}, ["label: expected one for each of the 4 images, got 3"]),
        ({"label": np.zeros(4, np.float32)}, ["label: expected whole numbers, int [n], got float32 [4]"]),
        ({"label": np.zeros((4, 1), np.int64)}, ["[4, 1]"]),
        ({"label": np.array([0, 1, -1, 0])}, ["expected classes counted from 0, got -1"]),
        ({"label": np.array([0, None, 1, 0])}, ["got one that cannot be read"]),
        ({"image_test": np.zeros((2, 2, 2), np.uint8)}, ["expected an array 'label_test'"]),
        (
            {"image_test": np.zeros((2, 3, 3), np.uint8), "label_test": np.zeros(2, int)},
            ["expected images of one shape", "(2, 2), (3, 3)", "image_size"],
        ),
    ],
)
def test_npz_refusals(tmp_path, changes, words):
    arrays = {"image": np.zeros((4, 2, 2), np.uint8), "label": np.array([0, 1, 0, 1])} | changes
    spec = save_npz(tmp_path / "a.npz", **{key: value for key, value in arrays.items() if value is not None})
    refused(spec, tmp_path / "a.npz", *words)


def test_npz_files_that_are_none(tmp_path):
    refused(f"npz:{tmp_path / 'none.npz'}", "none.npz", "no such file")
    (tmp_path / "text.npz").write_text("text")
    refused(f"npz:{tmp_path / 'text.npz'}", "text.npz", "got one that cannot be read")
    np.save(tmp_path / "array.npy", np.zeros(3))
    refused(f"npz:{tmp_path / 'array.npy'}", "array.npy", "got one that cannot be read")


def test_tfds_unknown_and_unprepared(tmp_path):
    refused("tfds:no_such_set", "no_such_set", "expected a data set, config and version", data_dir=tmp_path)
    refused("tfds:mnist:99.0.0", "99.0.0", data_dir=tmp_path)
    refused(
        "tfds:cifar10",
        "not prepared",
        tmp_path,
        'pip install "contrastive_jax[prepare]"',
        'pip install -e ".[prepare]"',
        "tfds.builder('cifar10', file_format='array_record'",
        "download_and_prepare()",
        data_dir=tmp_path,
    )


@needs_prepared
def test_tfds_reads_array_records():
    train, test = (sources.load("tfds:fashion_mnist", split=split, data_dir=PREPARED) for split in ("train", "test"))
    assert (len(train), len(test), train.image_shape, train.num_classes) == (60000, 10000, (28, 28, 1), 10)
    np.testing.assert_array_equal(np.bincount(test.labels), np.full(10, 1000))
    images = test.take(np.array([3, 0, 9999]))
    import tensorflow_datasets as tfds

    theirs = tfds.builder("fashion_mnist", file_format="array_record", data_dir=PREPARED).as_data_source("test")[3]
    np.testing.assert_array_equal(images[0], theirs["image"])
    assert test.labels[3] == theirs["label"]
    smaller = sources.load("tfds:fashion_mnist", split="test", stored_size=14, data_dir=PREPARED)
    assert smaller.take(np.arange(2)).shape == (2, 14, 14, 1)


@needs_prepared
def test_tfds_needs_no_tensorflow():
    program = (
        "import sys; import numpy as np; "
        "from contrastive_jax.data import sources; sources.load('tfds:fashion_mnist', split='test').take(np.arange(1));"
        "sys.exit('tensorflow' in sys.modules)"
    )
    environment = os.environ | {"TFDS_DATA_DIR": str(PREPARED)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
