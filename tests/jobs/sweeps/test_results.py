"""What the folders of a sweep hold, without a run."""

import csv
import json
import os

import numpy as np
import pytest

from configs import digits
from contrastive_jax.data import sources
from contrastive_jax.errors import UsageError
from contrastive_jax.jobs.sweeps import results
from contrastive_jax.jobs.sweeps.grid import make_cells
from tests.jobs.support import set_fields

CELLS = make_cells(digits.get_config(), {}, {"seed": ["0", "1"], "views.crop_scale": ["(0.2,1.0)"]})
SUMMARY = {"steps": 5, "steps_of_the_whole_run": 5, "final": {"loss": 1.5, "own": [1, 2]}, "nan": None, "on": True}


def finish(cell, workdir, **summary):
    """The files of a run that is done."""
    folder = workdir / cell.name
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(cell.config.to_json())
    (folder / "summary.json").write_text(json.dumps({**SUMMARY, **summary}))


def done(workdir, **options):
    return [results.is_done(cell, workdir, **options) for cell in CELLS]


def test_a_run_is_done_once_it_has_a_summary_of_all_steps(tmp_path):
    assert done(tmp_path) == [False, False]
    finish(CELLS[0], tmp_path)
    finish(CELLS[1], tmp_path, steps=3)
    assert done(tmp_path) == [True, False]
    assert done(tmp_path, steps=3) == [True, True]


def test_a_run_whose_evaluation_changed_or_that_is_damaged_is_not_done(tmp_path):
    for cell in CELLS:
        finish(cell, tmp_path)
    changed = CELLS[0].config.copy_and_resolve_references()
    changed.evaluation.draws = 7
    assert not results.is_done(CELLS[0]._replace(config=changed), tmp_path)
    results.check_folders([CELLS[0]._replace(config=changed)], tmp_path)  # which may change
    folder = tmp_path / CELLS[1].name
    os.utime(folder / "summary.json", ns=(0, 0))  # older than the configuration: that of another evaluation
    assert done(tmp_path) == [True, False]
    (tmp_path / CELLS[0].name / "summary.json").write_text("{")
    assert done(tmp_path) == [False, False]


def test_damaged_and_foreign_folders_are_named(tmp_path):
    finish(CELLS[0], tmp_path)
    (tmp_path / CELLS[0].name / "summary.json").write_text("half of i")
    (tmp_path / "seed=9").mkdir()
    (tmp_path / "output").mkdir()
    damaged, foreign = results.check_folders(CELLS, tmp_path)
    assert "damaged text" in damaged and damaged.endswith("The run is evaluated again.")
    assert foreign.endswith("results.csv leaves out what is no run of this grid: seed=9 (1 in all).")
    for cell, text in zip(CELLS, ("half", json.dumps({"seed": 5})), strict=True):
        (tmp_path / cell.name).mkdir(exist_ok=True)
        (tmp_path / cell.name / "config.json").write_text(text)
    with pytest.raises(UsageError) as caught:
        results.check_folders(CELLS, tmp_path)
    first, second = str(caught.value).splitlines()
    assert "damaged text" in first and "to run this cell again" in first
    assert f"{CELLS[1].name}: expected the run of this cell, got one that differs in" in second and "seed" in second


def test_a_folder_of_another_version_is_refused_before_anything_runs(tmp_path):
    finish(CELLS[0], tmp_path)
    older = json.loads(CELLS[0].config.to_json())
    del older["log"]["pictures"]
    (tmp_path / CELLS[0].name / "config.json").write_text(json.dumps(older))
    expected = r"expected the run of this cell, got one that differs in log.pictures \(unknown to the version that"
    with pytest.raises(UsageError, match=expected):
        results.check_folders(CELLS, tmp_path)


@pytest.mark.parametrize(
    ("path", "value", "done"),
    [
        ("checkpoint.keep", 7, True),
        ("data.cache_gib", 9.0, True),
        ("log.tensorboard_every", 7, True),
        ("log.pictures", False, True),
        ("evaluation.draws", 7, False),
        ("data.evaluation_source", "digits", False),
        ("epochs", 7, False),
    ],
)
def test_a_run_is_taken_again_only_for_what_changes_its_results(path, value, done, tmp_path):
    finish(CELLS[0], tmp_path)
    config = set_fields(CELLS[0].config.copy_and_resolve_references(), {path: value})
    assert results.is_done(CELLS[0]._replace(config=config), tmp_path) == done


def test_pictures_that_are_asked_for_later_are_drawn(tmp_path):
    without = set_fields(CELLS[0].config.copy_and_resolve_references(), {"log.pictures": False})
    finish(CELLS[0]._replace(config=without), tmp_path)
    assert not results.is_done(CELLS[0], tmp_path)


@pytest.mark.parametrize("split", ["train", "test", "evaluation_train"])
@pytest.mark.parametrize("opened", [True, False])
def test_runs_of_other_images_are_named(opened, split, tmp_path):
    images = np.arange(3 * 64, dtype=np.uint8).reshape(3, 8, 8)
    first, second = (sources.fingerprint(sources.ArraySource(x)) for x in (images, images[:2]))
    for cell, found in zip(CELLS, (first, second), strict=True):
        finish(cell, tmp_path)
        (tmp_path / cell.name / "data.json").write_text(json.dumps({split: found}))
    (name,) = {results.name_data(cell.config) for cell in CELLS}
    done = [cell.name for cell in CELLS]
    with pytest.raises(UsageError) as caught:
        results.check_data(CELLS, tmp_path, {name: {split: second}} if opened else {}, done=done)
    (line,) = str(caught.value).splitlines()
    folders = [tmp_path / cell.name for cell in CELLS]
    if opened:
        expected = f"{folders[0]}: {split} images: expected the 3 images this run began with, got 2. Restore"
    else:  # nothing is left to run: the runs are compared with each other
        expected = f"{folders[1]}: {split} images: expected the 2 images this run began with, got 3 in {folders[0]}. Re"
    assert line.startswith(expected)
    results.check_data(CELLS[:1], tmp_path, {name: {split: first}}, done=done)


def test_a_run_that_is_not_done_may_be_tested_on_others(tmp_path):
    finish(CELLS[0], tmp_path)
    images = np.zeros((3, 8, 8), np.uint8)
    old, new = (sources.fingerprint(sources.ArraySource(x)) for x in (images, images[:2]))
    (tmp_path / CELLS[0].name / "data.json").write_text(json.dumps({"train": old, "test": old}))
    results.check_data(CELLS, tmp_path, {results.name_data(CELLS[0].config): {"train": old, "test": new}}, done=[])


def test_the_table_has_a_row_for_each_run_and_every_number(tmp_path):
    finish(CELLS[0], tmp_path, extra=7)
    with open(results.write_results(CELLS, tmp_path, done={cell.name for cell in CELLS}), newline="") as file:
        (row,) = csv.DictReader(file)
    assert row == {
        "run": CELLS[0].name,
        "seed": "0",
        "views.crop_scale": "(0.2, 1.0)",
        "steps": "5",
        "steps_of_the_whole_run": "5",
        "final.loss": "1.5",
        "final.own.0": "1",
        "final.own.1": "2",
        "nan": "",
        "extra": "7",
    }
    finish(CELLS[1], tmp_path)
    with open(results.write_results(CELLS, tmp_path, done={cell.name for cell in CELLS}), newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["seed"] for row in rows] == ["0", "1"] and rows[1]["extra"] == ""
