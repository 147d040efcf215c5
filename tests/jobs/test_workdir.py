"""A workdir keeps its run: its data, evaluated again where only the evaluation differs, whatever its name."""

import json

import jax
import numpy as np
import PIL.Image
import pytest

from contrastive_jax import metrics
from contrastive_jax.errors import UsageError
from contrastive_jax.jobs import passes, run
from contrastive_jax.jobs.logs import pictures, rows
from tests.jobs.support import MLP, drawing, small, train

SMALL = {**MLP, "batch_size": 16, "evaluation.probe_epochs": 2, "evaluation.labels_per_class": 1}


def save_images(path, count, seed=0):
    images = np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 1), np.uint8)
    np.savez(path, image=images, label=np.arange(count) % 4)
    return f"npz:{path}"


def save_folder(root, sizes, split):
    for k, size in enumerate(sizes):
        folder = root / split / "ab"[k % 2]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(k).integers(0, 256, (*size, 3), np.uint8)
        PIL.Image.fromarray(pixels).save(folder / f"{k}.png")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of a few steps: its folder, its configuration and its summary."""
    folder = tmp_path_factory.mktemp("finished")
    given = small(**SMALL, **{"data.source": save_images(folder / "images.npz", 80)})
    with jax.numpy_dtype_promotion("standard"):
        return folder / "run", given, run.run(given, folder / "run", steps=3)


def test_what_only_evaluates_may_change_and_is_evaluated_again(finished):
    workdir, given, before = finished
    assert "raw pixels" in before["evaluation"] and before["steps"] == 3
    log = (workdir / rows.ROWS).read_bytes()
    changed = given.copy_and_resolve_references()
    changed.evaluation.raw_pixels, changed.evaluation.knn_neighbours = False, 3
    after = run.run(changed, workdir, steps=3)
    assert "raw pixels" not in after["evaluation"]
    assert after["geometry"] == before["geometry"] and (workdir / rows.ROWS).read_bytes() == log
    assert json.loads((workdir / "config.json").read_text())["evaluation"]["knn_neighbours"] == 3


@pytest.mark.parametrize(
    ("count", "seed", "message"),
    [
        (100, 0, "expected the 64 images this run began with, got 80"),
        (80, 1, "expected the images this run began with"),
    ],
)
def test_other_images_than_the_run_began_with_are_refused(finished, count, seed, message):
    workdir, given, _ = finished
    before, log = (workdir.parent / "images.npz").read_bytes(), (workdir / rows.ROWS).read_bytes()
    try:
        save_images(workdir.parent / "images.npz", count, seed)
        with pytest.raises(UsageError, match=f"{message}.*Give another workdir"):
            run.run(given, workdir)
    finally:
        (workdir.parent / "images.npz").write_bytes(before)
    assert (workdir / rows.ROWS).read_bytes() == log


def test_a_folder_of_images_of_two_sizes_in_one_split_is_evaluated(tmp_path):
    save_folder(tmp_path, [(16, 16)] * 40, "train")
    save_folder(tmp_path, [(16, 16)] * 11 + [(16, 17)], "test")
    given = small(**SMALL, **{"data.source": f"folder:{tmp_path}", "data.image_size": 16})
    summary = run.run(given, tmp_path / "run", steps=1)
    assert summary["evaluation"]["raw pixels"]["knn"] >= 0


def test_a_name_with_dollars_is_drawn_as_it_is(tmp_path, capsys):
    folder = tmp_path / "$x_$ {a} \\frac"
    folder.mkdir()
    given = small(**SMALL, **{"data.source": save_images(folder / "images.npz", 80)})
    with drawing(True):
        run.run(given, folder / "run", steps=1)
    assert (folder / "run" / "similarity.png").stat().st_size > 10_000
    assert "could not be drawn" not in capsys.readouterr().err


def test_a_picture_that_cannot_be_drawn_costs_the_picture_alone(finished, capsys, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("no such\nfont")

    workdir, given, _ = finished
    (workdir / "summary.json").unlink()
    monkeypatch.setattr(pictures, "save_similarity_picture", fail)
    summary = run.run(given, workdir, steps=3)
    assert summary["steps"] == 3 and (workdir / "summary.json").exists()
    assert f"{workdir}/similarity.png could not be drawn: RuntimeError: no such font" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("module", "function", "message"),
    [
        (metrics, "similarity_distribution", "the first step cannot be traced: ZeroDivisionError"),
        (passes.views, "plain_view", "the encoder cannot be evaluated .*ZeroDivisionError"),
    ],
)
def test_what_fails_when_it_is_traced_leaves_nothing(module, function, message, tmp_path, monkeypatch):
    monkeypatch.setattr(module, function, lambda *_, **__: 1 / 0)
    source = save_images(tmp_path / "images.npz", 80)
    with pytest.raises(UsageError, match=message) as error:
        run.run(small(**{**SMALL, "data.source": source}), tmp_path / "run")
    assert len(str(error.value).splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_a_run_counts_beyond_32_bits(tmp_path, monkeypatch):
    """As one does whose contrast sets are of more than 65,536 images; here the limit is lowered."""
    source = save_images(tmp_path / "images.npz", 80)
    given = small(**{**SMALL, "data.source": source, "contrast_size": 32})
    runs = {}
    for name, limit in (("narrow", 2**32), ("wide", 100)):
        monkeypatch.setattr(metrics._similarity, "MAX_NARROW", limit)
        train(given, tmp_path / name, 2)
        runs[name] = [(tmp_path / name / file).read_bytes() for file in (rows.ROWS, rows.COUNTS)]
    assert runs["narrow"][1] == runs["wide"][1]
    for narrow, wide in zip(*(map(json.loads, x[0].splitlines()) for x in runs.values()), strict=True):
        assert wide == pytest.approx(narrow, rel=1e-5)


@pytest.mark.parametrize("workdir", ["gs://bucket/run", "s3://bucket/run"])
def test_object_stores_are_refused_before_anything_is_made(workdir, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"object stores are not supported yet. Mount the bucket"):
        run.run(small(), workdir)
    assert not list(tmp_path.iterdir())
