"""Without the packages of an extra, sources and batches are imported, and what needs one is a line that names it."""

import sys

import numpy as np
import pytest

from contrastive_jax.data import batches, sources
from contrastive_jax.errors import MissingExtraError

TRAIN, TFDS = 'pip install "contrastive_jax[train]"', 'pip install "contrastive_jax[tfds]"'


def load_large_npz(tmp_path):
    np.savez(tmp_path / "a.npz", image=np.zeros((10, 9, 9), np.uint8), label=np.arange(10) % 2)
    sources.load(f"npz:{tmp_path / 'a.npz'}", split="train", image_size=4)


def load_folder(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "0.png").write_bytes(b"")
    sources.load(f"folder:{tmp_path}", split="train")


def read_batches(tmp_path):
    next(batches.sequential(sources.ArraySource(np.zeros((3, 4, 4), np.uint8)), 2))


@pytest.mark.parametrize(
    ("package", "use", "message"),
    [
        ("sklearn", lambda _: sources.load("digits", split="train"), f"digits needs scikit-learn: {TRAIN}"),
        ("PIL", load_folder, f"reading images needs pillow: {TRAIN}"),
        ("PIL", load_large_npz, f"reading images needs pillow: {TRAIN}"),
        ("grain", read_batches, f"reading batches needs grain: {TRAIN}"),
        (
            "tensorflow_datasets",
            lambda _: sources.load("tfds:mnist", split="train"),
            f"tfds:mnist needs tensorflow-datasets: {TFDS}",
        ),
        (
            "array_record",
            lambda _: sources.load("tfds:mnist", split="train"),
            f"tfds:mnist needs array_record: {TFDS}",
        ),
    ],
)
def test_a_missing_package_is_one_line(package, use, message, tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.startswith(f"{package}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    if package == "PIL":
        from contrastive_jax.data import _pixels

        _pixels.endings.cache_clear()
    with pytest.raises(MissingExtraError) as caught:
        use(tmp_path)
    assert str(caught.value) == message
