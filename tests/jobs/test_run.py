"""Whole runs on real images: what they leave, resume, repeat, and refuse."""

import functools
import json
import os
import re
import signal
import struct
import subprocess
import sys

import jax
import numpy as np
import pytest

from contrastive_jax import metrics, models, spmd
from contrastive_jax.data import views
from contrastive_jax.errors import Interrupted, NonFiniteError, UsageError
from contrastive_jax.jobs import evaluate, run
from contrastive_jax.jobs import job as job_lib
from contrastive_jax.jobs.logs import rows as logs
from contrastive_jax.jobs.machine.checkpoints import Checkpoints
from tests.jobs.support import MLP, QUICK, as_options, config, drawing, flags, small, train

STEPS_PER_EPOCH = 1437 // 64


def negatives(m):
    return m * (m - 1)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A whole run of the smoke preset, set up once: its workdir and summary."""
    with jax.numpy_dtype_promotion("standard"), drawing(True):
        workdir = tmp_path_factory.mktemp("finished")
        return workdir, run.run(config(), workdir)


def final_state(workdir, job_config):
    job = job_lib.prepare(job_config, workdir)
    with Checkpoints(workdir / "checkpoints", keep=3) as checkpoints:
        return checkpoints.restore(job.initial)


def assert_same_run(first, second):
    jax.tree.map(np.testing.assert_array_equal, final_state(first, config()), final_state(second, config()))
    assert (first / "metrics.jsonl").read_bytes() == (second / "metrics.jsonl").read_bytes()
    ours, theirs = (np.load(workdir / "similarity.npz") for workdir in (first, second))
    assert ours.files == theirs.files
    for name in ours.files:
        np.testing.assert_array_equal(ours[name], theirs[name])


def test_leaves_everything(finished):
    workdir, summary = finished
    steps = 2 * STEPS_PER_EPOCH
    assert json.loads((workdir / "summary.json").read_text()) == summary
    assert summary["environment"].keys() >= {"versions", "device", "flags", "git"}
    assert set(summary["evaluation"]) == {"raw pixels", "untrained encoder", "trained encoder"}
    assert summary["steps"] == summary["steps_of_the_whole_run"] == steps
    for name in ("views.png", "similarity.png"):
        data = (workdir / name).read_bytes()
        assert data.startswith(b"\x89PNG") and min(struct.unpack(">II", data[16:24])) > 400
    rows = logs.read_rows(workdir / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(steps))
    assert {"loss", "simclr", "learning_rate", "theory_variance_greatest"} <= rows[0].keys()
    for row in rows:
        assert row["positive_mean"] <= row["theory_positive_bound"] + 1e-5  # Theorem 5.2 holds for any encoder
        assert row["theory_full_batch_negative"] == -1 / 1436
    with np.load(workdir / "similarity.npz") as similarity:
        assert similarity["edges"].shape == (101,)
        for kind, of in (("positive", lambda m: m), ("cross_view", negatives), ("within_view", negatives)):
            assert similarity[kind].shape == (steps, 100)
            assert (similarity[kind].sum(axis=1) == of(64)).all()
            assert (similarity[f"training_set_{kind}"].sum(axis=1) == [of(1437)] * 2).all()
    assert len([p for p in (workdir / "checkpoints").iterdir() if p.name.isdigit()]) == 3
    assert any(p.name.startswith("events") for p in (workdir / "tensorboard").iterdir())


def test_learns_real_images(finished):
    workdir, summary = finished
    losses = [row["loss"] for row in logs.read_rows(workdir / "metrics.jsonl")]
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.5
    assert summary["evaluation"]["raw pixels"]["knn"] > 0.9


@functools.cache
def embed(workdir, split, trained):
    """Two views [n, d] each of a split, by the definition: one batch, nothing shared with the job's evaluation."""
    job = job_lib.prepare(config(), workdir)
    state = final_state(workdir, config()) if trained else job.initial
    source = getattr(job, split)
    images = source.take(np.arange(len(source)))

    @jax.jit
    def project(state, images, ids):
        drawn = views.random_views(images, ids, seed=0, epoch=2**31, config=job.program.view_config)
        apply = functools.partial(models.apply, job.program.graphdef, state.params.model, state.model_state)
        return [apply(view, train=False)[0] for view in drawn]

    projected = project(state, images, np.arange(len(source), dtype=np.int32))
    return [x / np.linalg.norm(x, axis=1, keepdims=True) for x in map(np.asarray, projected)]


@pytest.mark.parametrize("trained", [False, True])
def test_the_geometry_is_that_of_the_test_set(finished, trained):
    workdir, summary = finished
    u, v = embed(workdir, "test", trained)
    got = summary["geometry"]["trained encoder" if trained else "untrained encoder"]
    want = {
        "pairs": 360,
        "alignment": metrics.alignment(u, v),
        "uniformity": metrics.uniformity(u),
        "wasserstein_uniformity": metrics.wasserstein_uniformity(u),
        "effective_rank": metrics.effective_rank(u),
        "rank": metrics.rank(u),
    }
    assert got == pytest.approx(want, rel=1e-3)


def test_the_similarities_are_those_of_all_pairs_of_training_images(finished):
    workdir, summary = finished
    u, v = (x.astype(np.float64) for x in embed(workdir, "train", True))
    found = summary["training_set_similarity"]
    different, before = ~np.eye(len(u), dtype=bool), np.triu_indices(len(u), 1)
    values = {
        "positive": np.sum(u * v, axis=1),
        "cross_view": (u @ v.T)[different],
        "within_view": np.concatenate([(u @ u.T)[before], (v @ v.T)[before]]),
    }
    assert found["pairs"] == len(u) == 1437
    for kind, x in values.items():
        want = {"count": x.size, "mean": x.mean(), "variance": x.var(), "least": x.min(), "greatest": x.max()}
        assert found["trained encoder"][kind] == pytest.approx(want, rel=1e-3)
        assert found["untrained encoder"][kind]["mean"] != pytest.approx(x.mean(), rel=1e-2)
    assert found["theory_full_batch_negative"] == -1 / 1436
    whole = {"pairs": 1437, "positive_mean": values["positive"].mean()}
    whole |= {"negative_mean": values["cross_view"].mean(), "negative_variance": values["cross_view"].var()}
    assert summary["whole_training_set_similarity"]["trained encoder"] == pytest.approx(whole, rel=1e-3)


def test_one_step_without_the_logged_distribution_measures_a_sample(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(evaluate, "MAX_TRAINING_PAIRS", 100)
    with drawing(True):
        summary = run.run(small(**QUICK | {"log.distribution": False, "log.pictures": True}), tmp_path, steps=1)
    assert summary["steps"] == 1 and summary["steps_of_the_whole_run"] == 2 * STEPS_PER_EPOCH
    assert summary["training_set_similarity"]["pairs"] == 100
    assert summary["training_set_similarity"]["trained encoder"]["cross_view"]["count"] == 100 * 99
    with np.load(tmp_path / "similarity.npz") as similarity:
        assert set(similarity.files) == {"edges", *(f"training_set_{kind}" for kind in logs.KINDS)}
    assert (tmp_path / "similarity.png").read_bytes().startswith(b"\x89PNG")
    out = capsys.readouterr().out
    assert "| training set, trained, a sample | 100 |" in out and "| training set, trained | 1437 |" in out
    assert "in batch" not in out


def test_pictures_that_are_switched_on_later_are_all_drawn(tmp_path):
    run.run(small(**QUICK), tmp_path, steps=1)
    assert not list(tmp_path.glob("*.png"))
    with drawing(True):
        run.run(small(**QUICK | {"log.pictures": True}), tmp_path, steps=1)
    assert {path.name for path in tmp_path.glob("*.png")} == {"neighbours.png", "similarity.png", "views.png"}


def test_tensorboard_holds_the_histograms(finished):
    workdir, _ = finished
    data = b"".join(p.read_bytes() for p in (workdir / "tensorboard").iterdir())
    for tag in (
        b"similarity/positive",
        b"similarity/cross_view",
        b"similarity/within_view",
        b"loss",
        b"images_per_second",
    ):
        assert data.count(tag) >= 2 * STEPS_PER_EPOCH


def test_resumed_equals_uninterrupted(finished, tmp_path):
    """And so are two runs with one seed."""
    train(config(), tmp_path, 13)  # not a multiple of checkpoint.every
    with open(tmp_path / "metrics.jsonl", "a") as file:  # a step that was logged but not yet in a checkpoint
        file.write('{"step": 13, "loss": 0.0}\n{"step": 14, "lo')
    with open(tmp_path / "similarity.counts", "ab") as file:
        file.write(b"\1" * 700)
    summary = run.run(config(), tmp_path)
    assert_same_run(finished[0], tmp_path)
    for name in ("evaluation", "geometry", "training_set_similarity"):
        assert summary[name] == finished[1][name]


def test_pmap_is_the_same_run_to_rounding(finished, tmp_path):
    train(config(parallelism="pmap"), tmp_path, 3)
    ours, theirs = (logs.read_rows(w / "metrics.jsonl")[:3] for w in (tmp_path, finished[0]))
    np.testing.assert_allclose([row["loss"] for row in ours], [row["loss"] for row in theirs], rtol=1e-4)


def test_a_finished_run_is_not_trained_again(finished, capsys):
    workdir, summary = finished
    before = (workdir / "metrics.jsonl").read_bytes()
    again = run.run(config(), workdir)
    assert again["evaluation"] == summary["evaluation"]
    assert summary["images_per_second"] > 0 and again["images_per_second"] is None
    assert (workdir / "metrics.jsonl").read_bytes() == before


def test_another_configuration_is_refused_and_nothing_overwritten(finished):
    workdir, _ = finished
    before = {p: p.stat().st_mtime_ns for p in workdir.rglob("[!.]*") if p.is_file()}
    with pytest.raises(UsageError, match=r"vrns_weight \(there 0.0, here 3.0\)"):
        run.run(config(vrns_weight=3.0), workdir)
    assert {p: p.stat().st_mtime_ns for p in workdir.rglob("[!.]*") if p.is_file()} == before


def test_a_trace_of_some_steps(tmp_path, capsys):
    """It changes no number, and names the parts of the step."""
    job = job_lib.prepare(small(), tmp_path / "traced")
    shapes = {
        "image": jax.ShapeDtypeStruct((64, 8, 8, 1), np.uint8),
        "id": jax.ShapeDtypeStruct((64,), np.int32),
    }
    names = job.mapped.trace(job.initial, shapes).lower().as_text(debug_info=True)
    scopes = set(re.findall(r"(?<=[\"/(])(views|encoder|loss|distribution|update)(?=[/)])", names))
    assert scopes == {"views", "encoder", "loss", "distribution", "update"}
    for name, profile in (("plain", None), ("traced", range(1, 3))):
        (tmp_path / name).mkdir()
        with Checkpoints(tmp_path / name / "checkpoints", keep=1) as checkpoints, drawing(False):
            run.train(job._replace(workdir=tmp_path / name), checkpoints, 4, profile)
    assert "Wrote a profiler trace of steps 1 to 2 to" in capsys.readouterr().err
    assert list((tmp_path / "traced" / "profile").rglob("perfetto_trace.json.gz"))
    assert list((tmp_path / "traced" / "profile").rglob("*.xplane.pb"))
    assert (tmp_path / "plain" / logs.ROWS).read_bytes() == (tmp_path / "traced" / logs.ROWS).read_bytes()
    with pytest.raises(UsageError, match=r"--profile=3:9: expected steps of this run, which takes 4, counted from 0"):
        run.run(small(), tmp_path / "other", steps=4, profile=range(3, 9))
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(("while_logging", "ends_after"), [(2, 4), (4, 5)])
def test_a_signal_ends_the_run_between_steps(tmp_path, monkeypatch, signum, while_logging, ends_after):
    """Even if it comes with the last step."""
    write, before = logs.StepLog.write, signal.getsignal(signum)

    def write_and_be_asked(log, row, *rest, **options):
        write(log, row, *rest, **options)
        if row["step"] == while_logging:
            os.kill(os.getpid(), signum)
            # A second one, of either kind, would end this process.
            assert signal.getsignal(signal.SIGTERM) == signal.getsignal(signal.SIGINT) == signal.SIG_DFL

    monkeypatch.setattr(logs.StepLog, "write", write_and_be_asked)
    with pytest.raises(
        Interrupted, match=f"stopped after step {ends_after}; run the same command to resume"
    ) as stopped:
        train(small(**{"checkpoint.every": 1000}), tmp_path, 5)
    assert stopped.value.status == 128 + signum
    assert signal.getsignal(signum) == before
    assert len(logs.read_rows(tmp_path / "metrics.jsonl")) == ends_after
    with Checkpoints(tmp_path / "checkpoints", keep=3) as checkpoints:
        assert checkpoints.latest_step == ends_after


def test_a_signal_while_the_last_checkpoint_is_written(tmp_path, monkeypatch):
    wait = Checkpoints.wait

    def be_asked_and_wait(checkpoints):
        os.kill(os.getpid(), signal.SIGTERM)
        wait(checkpoints)

    monkeypatch.setattr(Checkpoints, "wait", be_asked_and_wait)
    with pytest.raises(Interrupted, match="SIGTERM: stopped after step 2"):
        train(small(), tmp_path, 2)
    with Checkpoints(tmp_path / "checkpoints", keep=3) as checkpoints:
        assert checkpoints.latest_step == 2


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_evaluation(tmp_path, signum):
    """By the command itself: a handler's exception may get lost."""
    train(small(), tmp_path, 1)
    command = [sys.executable, "-m", "experiments.train", "--config=configs/smoke.py", f"--workdir={tmp_path}"]
    options = {"env": os.environ | {"XLA_FLAGS": flags(devices=1)}, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([*command, *as_options(MLP), "--steps=1"], **options)
    while "Evaluating untrained encoder" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(signum)
    said = process.communicate()[1].splitlines()
    assert process.returncode == 128 + signum
    assert said[-1] == f"{signal.Signals(signum).name}: stopped after step 1; run the same command to resume from it."
    assert not (tmp_path / "summary.json").exists()


def test_fewer_steps_than_were_taken_are_refused(tmp_path):
    train(small(), tmp_path, 2)
    with pytest.raises(UsageError, match=f"--steps=1: expected at least 2, the steps that {tmp_path} has"):
        run.run(small(), tmp_path, steps=1)


def test_a_run_goes_on_on_another_number_of_devices(tmp_path, monkeypatch):
    """At a learning rate at which a difference of rounding stays one, see test_step."""
    job_config = small(**{"optimizer.learning_rate": 1e-4, "optimizer.warmup_epochs": 0.0})

    def train_on(devices, workdir, steps):
        monkeypatch.setattr(spmd, "devices", lambda: jax.devices()[:devices])
        return train(job_config, tmp_path / workdir, steps)

    whole = train_on(4, "whole", 10)
    train_on(4, "moved", 5)
    moved = train_on(2, "moved", 10)
    assert moved.step == 10
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=2e-6), moved.params, whole.params)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5), moved.opt_state, whole.opt_state)
    rows = [logs.read_rows(tmp_path / name / "metrics.jsonl") for name in ("moved", "whole")]
    assert rows[0][:5] == rows[1][:5] and rows[0] != rows[1]
    for name in ("loss", "gradient_norm", "cross_view_variance"):
        np.testing.assert_allclose(*([row[name] for row in each] for each in rows), rtol=1e-4)


@pytest.mark.parametrize("every", [1, 1000])
def test_what_is_not_finite_is_never_saved(tmp_path, every):
    """At this learning rate a finite gradient makes parameters that are not."""
    overrides = {"optimizer.learning_rate": 1e12, "optimizer.warmup_epochs": 0.0, "checkpoint.every": every}
    job_config = small(**overrides)
    with pytest.raises(NonFiniteError, match=r"step \d+: expected finite numbers, got loss") as error:
        run.run(job_config, tmp_path)
    job = job_lib.prepare(job_config, tmp_path)
    with Checkpoints(tmp_path / "checkpoints", keep=3) as checkpoints:
        if every == 1000 or checkpoints.latest_step is None:
            assert checkpoints.latest_step is None
            assert "no checkpoint before it" in str(error.value)
            return
        assert f"checkpoint of step {checkpoints.latest_step} is kept" in str(error.value)
        state = checkpoints.restore(job.initial)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state.params))
    assert "null" not in (tmp_path / "metrics.jsonl").read_text().split("\n")[0]


def test_a_workdir_below_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="expected a folder that can be written"):
        run.run(config(), tmp_path / "file" / "run")


def test_histogram_kinds_are_those_of_the_distribution():
    assert metrics.SimilarityDistribution._fields == logs.KINDS
