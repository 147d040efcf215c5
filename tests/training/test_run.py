"""Whole runs on real images: what they leave, resume, repeat, and refuse."""

import json
import os
import struct

import jax
import numpy as np
import pytest

from contrastive_jax import metrics
from contrastive_jax.training import job as job_lib
from contrastive_jax.training import logs, run
from contrastive_jax.training.checkpoints import Checkpoints
from contrastive_jax.training.run import NonFiniteError, UsageError
from tests.training.jobs import config

STEPS_PER_EPOCH = 1437 // 64
pytestmark = pytest.mark.xdist_group("run")  # they share a finished run


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A whole run of the smoke preset: its workdir and summary."""
    with jax.numpy_dtype_promotion("standard"):
        workdir = tmp_path_factory.mktemp("finished")
        return workdir, run.run(config(), workdir)


def final_state(workdir, job_config):
    job = job_lib.prepare(job_config, workdir)
    with Checkpoints(workdir / "checkpoints", keep=3) as checkpoints:
        return checkpoints.restore(job.initial)


def without_speed(workdir):
    return [
        {k: v for k, v in row.items() if k != "images_per_second"} for row in logs.read_rows(workdir / "metrics.jsonl")
    ]


def assert_same_run(first, second):
    jax.tree.map(np.testing.assert_array_equal, final_state(first, config()), final_state(second, config()))
    assert without_speed(first) == without_speed(second)
    ours, theirs = (np.load(workdir / "similarity.npz") for workdir in (first, second))
    assert ours.files == theirs.files
    for name in ours.files:
        np.testing.assert_array_equal(ours[name], theirs[name])


def test_leaves_everything(finished):
    workdir, summary = finished
    steps = 2 * STEPS_PER_EPOCH
    assert json.loads((workdir / "summary.json").read_text()) == summary
    assert set(summary["evaluation"]) == {"raw pixels", "untrained encoder", "trained encoder"}
    assert summary["steps"] == summary["steps_of_the_whole_run"] == steps
    for name in ("views.png", "similarity.png"):
        data = (workdir / name).read_bytes()
        assert data.startswith(b"\x89PNG") and min(struct.unpack(">II", data[16:24])) > 400
    rows = logs.read_rows(workdir / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(steps))
    assert {"loss", "simclr", "learning_rate", "images_per_second", "theory_variance_greatest"} <= rows[0].keys()
    for row in rows:
        assert row["positive_mean"] <= row["theory_positive_bound"] + 1e-5  # Theorem 5.2 holds for any encoder
        assert row["theory_full_batch_negative"] == -1 / 1436
    with np.load(workdir / "similarity.npz") as similarity:
        assert similarity["edges"].shape == (101,)
        for kind, pairs in (("positive", 64), ("cross_view", 64 * 63), ("within_view", 64 * 63)):
            assert similarity[kind].shape == (steps, 100)
            assert (similarity[kind].sum(axis=1) == pairs).all()
    assert len([p for p in (workdir / "checkpoints").iterdir() if p.name.isdigit()]) == 3
    assert any(p.name.startswith("events") for p in (workdir / "tensorboard").iterdir())


def test_learns_real_images(finished):
    workdir, summary = finished
    losses = [row["loss"] for row in logs.read_rows(workdir / "metrics.jsonl")]
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.5
    assert summary["evaluation"]["raw pixels"]["knn"] > 0.9


def test_tensorboard_holds_the_histograms(finished):
    workdir, _ = finished
    data = b"".join(p.read_bytes() for p in (workdir / "tensorboard").iterdir())
    for tag in (b"similarity/positive", b"similarity/cross_view", b"similarity/within_view", b"loss"):
        assert data.count(tag) >= 2 * STEPS_PER_EPOCH


def test_two_runs_with_one_seed_are_equal(finished, tmp_path):
    run.run(config(), tmp_path)
    assert_same_run(finished[0], tmp_path)


def test_resumed_equals_uninterrupted(finished, tmp_path):
    run.run(config(), tmp_path, steps=13)  # not a multiple of checkpoint.every
    with open(tmp_path / "metrics.jsonl", "a") as file:  # a step that was logged but not yet in a checkpoint
        file.write('{"step": 13, "loss": 0.0}\n{"step": 14, "lo')
    with open(tmp_path / "similarity.counts", "ab") as file:
        file.write(b"\1" * 700)
    assert json.loads((tmp_path / "summary.json").read_text())["steps"] == 13
    run.run(config(), tmp_path)
    assert_same_run(finished[0], tmp_path)


def test_pmap_is_the_same_run_to_rounding(finished, tmp_path):
    overrides = {"parallelism": "pmap"}
    run.run(config(**overrides), tmp_path, steps=3)
    ours, theirs = (logs.read_rows(w / "metrics.jsonl")[:3] for w in (tmp_path, finished[0]))
    np.testing.assert_allclose([row["loss"] for row in ours], [row["loss"] for row in theirs], rtol=1e-4)


def test_a_finished_run_is_not_trained_again(finished, capsys):
    workdir, summary = finished
    before = (workdir / "metrics.jsonl").read_bytes()
    again = run.run(config(), workdir)
    assert again["evaluation"] == summary["evaluation"]
    assert (workdir / "metrics.jsonl").read_bytes() == before


def test_another_configuration_is_refused_and_nothing_overwritten(finished):
    workdir, _ = finished
    before = {p: p.stat().st_mtime_ns for p in workdir.rglob("*") if p.is_file()}
    with pytest.raises(UsageError, match=r"vrns_weight \(there 0.0, here 3.0\)"):
        run.run(config(vrns_weight=3.0), workdir)
    assert {p: p.stat().st_mtime_ns for p in workdir.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("every", [1, 1000])
def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_good_checkpoint(tmp_path, every):
    overrides = {"optimizer.learning_rate": 1e30, "optimizer.warmup_epochs": 0.0, "checkpoint.every": every}
    job_config = config(**overrides)
    with pytest.raises(NonFiniteError, match=r"step \d+: the loss is") as error:
        run.run(job_config, tmp_path)
    job = job_lib.prepare(job_config, tmp_path)
    with Checkpoints(tmp_path / "checkpoints", keep=3) as checkpoints:
        if every == 1000:
            assert checkpoints.latest_step is None
            assert "no checkpoint before it" in str(error.value)
            return
        assert f"checkpoint of step {checkpoints.latest_step} is kept" in str(error.value)
        checkpoints.restore(job.initial)
    assert "NaN" not in (tmp_path / "metrics.jsonl").read_text().split("\n")[0]


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_workdir_that_cannot_be_written(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UsageError, match="cannot be written"):
        run.run(config(), tmp_path / "run")


def test_a_workdir_below_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        run.run(config(), tmp_path / "file" / "run")


def test_histogram_kinds_are_those_of_the_distribution():
    assert metrics.SimilarityDistribution._fields == logs.KINDS
