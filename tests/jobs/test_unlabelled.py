"""Runs on images without labels, scored on others that have them."""

import json
import struct

import jax
import numpy as np
import pytest
from PIL import Image

from contrastive_jax import evaluation
from contrastive_jax.data import batches, sources
from contrastive_jax.errors import UsageError
from contrastive_jax.jobs import evaluate, loading, neighbours, passes, run, transfer
from contrastive_jax.jobs import job as job_lib
from tests.jobs.support import QUICK, drawing, small


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """80 images of several sizes directly in a folder."""
    folder = tmp_path_factory.mktemp("of mine, 2023") / "photos"
    folder.mkdir()
    for k in range(80):
        pixels = np.random.default_rng(k).integers(0, 256, (10 + k % 3, 12, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{k:02d}.png")
    return folder


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """60 images of three classes, of another size."""
    path = tmp_path_factory.mktemp("labelled") / "x.npz"
    images = np.random.default_rng(0).integers(0, 256, (60, 9, 9, 3), np.uint8)
    np.savez(path, image=images, label=np.arange(60) % 3)
    return f"npz:{path}"


def of(photos, **overrides):
    return small(**QUICK | {"data.source": f"folder:{photos}", "batch_size": 16} | overrides)


@pytest.fixture(scope="module")
def finished(photos, tmp_path_factory):
    """A run of one epoch on the folder, with its pictures: its workdir and summary."""
    workdir = tmp_path_factory.mktemp("finished") / "run"
    with jax.numpy_dtype_promotion("standard"), drawing(True):
        return workdir, run.run(of(photos, **{"log.pictures": True}), workdir, steps=4)


def test_a_folder_without_labels_is_trained_on_and_measured(finished):
    workdir, summary = finished
    assert summary["num_instances"] == 72 and summary["evaluation"] == {}
    assert summary["geometry"]["trained encoder"]["pairs"] == 8
    assert summary["training_set_similarity"]["pairs"] == 72
    width, height = struct.unpack(">II", (workdir / "neighbours.png").read_bytes()[16:24])
    assert min(width, height) > 400
    data = json.loads((workdir / "data.json").read_text())
    assert data["train"]["labels"] is None and data["train"]["num_classes"] is None
    assert data["train"]["content"].startswith("files ")


def test_a_labelled_set_scores_a_finished_run_without_training(finished, photos, labelled, capsys):
    workdir, summary = finished
    before = (workdir / "metrics.jsonl").read_bytes()
    again = run.run(of(photos, **{"data.evaluation_source": labelled}), workdir, steps=4)
    said = capsys.readouterr()
    assert (workdir / "metrics.jsonl").read_bytes() == before
    assert again["evaluation"].keys() == {"untrained encoder", "trained encoder"}
    assert again["geometry"]["trained encoder"]["pairs"] == 12
    assert again["training_set_similarity"] == summary["training_set_similarity"]
    assert "Skipping the scores" not in said.err and "No scores" not in said.out
    assert json.loads((workdir / "data.json").read_text())["evaluation_train"]["num_classes"] == 3
    encoder = loading.load(workdir)
    expected = transfer.transfer(encoder, labelled)
    assert expected.scores["trained encoder"]._asdict() == again["evaluation"]["trained encoder"]
    without = run.run(of(photos), workdir, steps=4)
    said = capsys.readouterr()
    assert without["evaluation"] == {} and without["geometry"] == summary["geometry"]
    needs = "the images have no labels, which scores need; config.data.evaluation_source names a set that has."
    assert f"No scores: {needs}" in said.out and f"Skipping the scores: {needs}" in said.err


def test_the_labelled_set_is_both_bank_and_test(photos, labelled, tmp_path):
    job = job_lib.prepare(of(photos, **{"data.evaluation_source": labelled}), tmp_path)
    train, test = sources.load_splits(labelled)
    assert len(job.train) == 72 and job.train.labels is None
    np.testing.assert_array_equal(job.bank.images, train.images)
    np.testing.assert_array_equal(job.test.labels, test.labels)
    found = evaluate.evaluate(job, job.initial)
    features = passes.bind(passes.place(job.initial), passes.make(job).features)
    expected = evaluation.score(features, *(batches.sequential(x, 256) for x in (train, test)), evaluate.settings(job))
    assert found.scores["untrained encoder"] == expected


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            {"loss.name": "sup_con"},
            "config.loss.name='sup_con': expected a source with labels, config.data.",
        ),
        (
            {"data.evaluation_source": "digits"},
            "expected images of 3 channels, as the training images, got 1",
        ),
        ({"data.evaluation_source": "none"}, "config.data.evaluation_source='none': expected a data set digits"),
        ({"data.evaluation_source": "{labelled}?labels=none"}, "expected a data set with labels in both splits"),
        (
            {"data.evaluation_source": "{labelled}", "evaluation.labels_per_class": 17},
            "labels_per_class=17: expected at most the 16 training images of class 0 of config.data.evaluation_source",
        ),
    ],
)
def test_what_needs_labels_says_so_and_leaves_nothing(overrides, message, photos, labelled, tmp_path):
    overrides = {name: x.format(labelled=labelled) if isinstance(x, str) else x for name, x in overrides.items()}
    with pytest.raises(UsageError, match=message):
        run.run(of(photos, **overrides), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_encoder_in_hand_is_measured_without_labels(finished, photos, capsys):
    found = transfer.transfer(loading.load(finished[0]), f"folder:{photos}")
    assert found.scores == {} and found.geometry["trained encoder"].pairs == 8
    assert "Skipping the scores" in capsys.readouterr().err
    assert transfer.format_tables(found).startswith("No scores: the images have no labels, which scores need.")


class Ramp:
    """Images that are their index: the nearest are known."""

    image_shape = (1, 1, 1)

    def __init__(self, count, start=0, labels=None):
        self.count, self.start, self.labels = count, start, labels

    def __len__(self):
        return self.count

    def take(self, indices):
        return (np.asarray(indices)[:, None, None, None] + self.start).astype(np.uint8)


def angles(images):
    """Points on a quarter of a circle, in the order of the images."""
    x = np.asarray(images, np.float64).reshape(-1) / 255 * np.pi / 2
    return np.stack([np.cos(x), np.sin(x)], axis=1).astype(np.float32)


def test_neighbours_are_the_nearest_by_angle():
    config = small(**{"evaluation.batch_size": 7})
    bank, queries = Ramp(100, labels=np.arange(100) % 2), Ramp(4, start=50, labels=np.zeros(4, np.int32))
    found = neighbours.find(angles, queries, bank, config=config)
    assert found.queries.reshape(-1).tolist() == [50, 51, 52, 53]
    assert found.nearest.reshape(4, 5)[:, 0].tolist() == [50, 51, 52, 53]
    assert set(found.nearest[0].reshape(-1)) == {48, 49, 50, 51, 52}
    np.testing.assert_allclose(found.similarities[:, 0], 1, atol=1e-6)
    np.testing.assert_array_equal(found.same_class, found.nearest.reshape(4, 5) % 2 == 0)
    assert neighbours.find(angles, queries, Ramp(9), config=config).same_class is None


def test_an_image_is_no_neighbour_of_its_own():
    source = Ramp(4)
    found = neighbours.find(angles, source, source, config=small())
    assert found.nearest.shape == (4, 3, 1, 1, 1)
    assert all(q not in near for q, near in zip(range(4), found.nearest.reshape(4, 3).tolist(), strict=True))
