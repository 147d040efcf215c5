"""Runs on a folder of JPEGs: the same bit for bit, kept or decoded again; what is said of waiting for them."""

import contextlib
import json
import os
import signal
import threading

import jax
import numpy as np
import PIL.Image
import pytest

from contrastive_jax.data import _pixels, sources
from contrastive_jax.errors import Interrupted, SourceError
from contrastive_jax.jobs import evaluate, parts, run
from contrastive_jax.jobs import job as job_lib
from contrastive_jax.jobs.logs import progress
from contrastive_jax.jobs.logs import rows as logs
from contrastive_jax.jobs.machine.checkpoints import Checkpoints
from contrastive_jax.jobs.recorder import Recorder
from tests.jobs.support import QUICK, small, train

STEPS = 6


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A folder of 48 JPEGs of two sizes for training and 8 for testing."""
    root = tmp_path_factory.mktemp("images")
    for split, count in (("train", 48), ("test", 8)):
        for k in range(count):
            folder = root / split / "ab"[k % 2]
            folder.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(k).integers(0, 256, (6, 5 + k % 3, 3), np.uint8)
            PIL.Image.fromarray(pixels).resize((60, 40 + k % 2)).save(folder / f"{k:02d}.jpg")
    return root


def of(images, cache_gib, **overrides):
    fields = {"data.source": f"folder:{images}", "data.image_size": 14, "data.cache_gib": cache_gib, "batch_size": 16}
    fields |= {"evaluation.labels_per_class": 1, "checkpoint.every": 2, "epochs": 2}
    return small(**QUICK | fields | overrides)


@pytest.fixture(scope="module")
def kept(images, tmp_path_factory):
    """A run whose images are kept in memory, uninterrupted: its folder and its summary."""
    workdir = tmp_path_factory.mktemp("kept") / "run"
    with jax.numpy_dtype_promotion("standard"):
        return workdir, run.run(of(images, 1.0), workdir)


def final_state(images, workdir):
    job = job_lib.prepare(of(images, 0.0), workdir)
    with Checkpoints(workdir / "checkpoints", keep=3) as checkpoints:
        return checkpoints.restore(job.initial)


def assert_same(images, first, second):
    jax.tree.map(np.testing.assert_array_equal, final_state(images, first), final_state(images, second))
    assert (first / logs.ROWS).read_bytes() == (second / logs.ROWS).read_bytes()
    assert (first / logs.COUNTS).read_bytes() == (second / logs.COUNTS).read_bytes()


def test_a_run_that_decodes_again_is_the_same(images, kept, tmp_path, monkeypatch):
    decoded, decode = [], _pixels.decode
    monkeypatch.setattr(_pixels, "decode", lambda path, **options: decoded.append(path) or decode(path, **options))
    summary = run.run(of(images, 0.0), tmp_path)
    assert_same(images, kept[0], tmp_path)
    for name in ("evaluation", "geometry", "training_set_similarity", "whole_training_set_similarity", "final"):
        assert summary[name] == kept[1][name]
    # Two epochs, the views' picture; features and projections of both encoders.
    assert len(decoded) >= 2 * 48 + 16 + 4 * 48
    assert json.loads((tmp_path / "data.json").read_text()) == json.loads((kept[0] / "data.json").read_text())


def test_a_run_may_be_resumed_with_another_budget(images, kept, tmp_path):
    train(of(images, 0.0), tmp_path, 3)
    train(of(images, 1.0), tmp_path, 5)
    train(of(images, 0.0), tmp_path, STEPS)
    assert_same(images, kept[0], tmp_path)


def prefetching():
    return [thread for thread in threading.enumerate() if thread.name.startswith("grain-prefetch")]


def assert_threads_end(before):
    for thread in set(prefetching()) - before:
        thread.join(timeout=60)
        assert not thread.is_alive()


def test_an_image_that_breaks_while_it_trains_is_named_and_the_run_goes_on_once_it_is_restored(images, kept, tmp_path):
    job = job_lib.prepare(of(images, 0.0), tmp_path)
    file, before = images / "train" / "a" / "10.jpg", set(prefetching())
    whole = file.read_bytes()
    try:
        file.write_bytes(whole[:-40])
        with pytest.raises(SourceError, match=r"a/10\.jpg: expected a whole .*restore, replace or remove it"):
            train(job.config, tmp_path, STEPS, job=job)
        assert_threads_end(before)
    finally:
        file.write_bytes(whole)
    assert logs.count_logged_steps(tmp_path, num_bins=100) < 3  # of the first epoch, which has every image
    train(of(images, 0.0), tmp_path, STEPS)
    assert_same(images, kept[0], tmp_path)


def test_a_signal_ends_the_threads(images, kept, tmp_path, monkeypatch):
    before, write = set(prefetching()), logs.StepLog.write

    def write_and_be_asked(log, row, *rest, **options):
        write(log, row, *rest, **options)
        if row["step"] == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(logs.StepLog, "write", write_and_be_asked)
    with pytest.raises(Interrupted, match="SIGTERM: stopped after step 3"):
        train(of(images, 0.0), tmp_path, STEPS)
    assert_threads_end(before)
    monkeypatch.setattr(logs.StepLog, "write", write)
    train(of(images, 0.0), tmp_path, STEPS)
    assert_same(images, kept[0], tmp_path)


def test_the_time_without_data_is_logged_beside_the_speed(kept):
    workdir, summary = kept
    assert 0 <= summary["waited_for_data"] <= 1 and summary["images_per_second"] > 0
    events = b"".join(path.read_bytes() for path in (workdir / "tensorboard").iterdir())
    assert events.count(b"waited_for_data") == events.count(b"images_per_second") == STEPS
    assert b"waited" not in (workdir / logs.ROWS).read_bytes()  # which is the same for every machine


def test_raw_pixels_that_need_too_much_memory_are_left_out(images, kept, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(evaluate, "MAX_RAW_PIXELS_GIB", 1e-9)
    summary = run.run(of(images, 0.0, **{"evaluation.raw_pixels": True}), tmp_path, steps=1)
    assert set(summary["evaluation"]) == {"untrained encoder", "trained encoder"}
    assert "Skipping the scores of raw pixels: as features they would take 0.0 GiB" in capsys.readouterr().err


def test_advice_says_how_much_memory_would_do(images, tmp_path):
    job = job_lib.prepare(of(images, 0.0), tmp_path)
    assert "16 pixels on their shorter side" in run._advise_on_data(job)
    assert "config.data.cache_gib=0.1" in run._advise_on_data(job)
    train_split, test_split = sources.load_splits(f"folder:{images}", stored_size=16)
    kept = job._replace(train=train_split, test=test_split)
    assert run._advise_on_data(kept).startswith("The images are decoded in the first epoch")
    own = sources.ArraySource(np.zeros((4, 8, 8), np.uint8))
    assert "`take`" in run._advise_on_data(job._replace(train=own, test=own))


class Gated:
    """Gives no batch before the run says that it waits for one."""

    image_shape = (8, 8, 1)

    def __init__(self):
        self.open = threading.Event()

    def __len__(self):
        return 96

    def take(self, indices):
        if len(indices) == 24:
            assert self.open.wait(timeout=60)
        return np.zeros((len(indices), *self.image_shape), np.uint8)


def test_a_run_says_that_it_waits_once_the_step_before_is_done(tmp_path, monkeypatch):
    source, wait, pending = Gated(), Recorder.wait_for_data, []

    def wait_and_open(recorder):
        source.open.set()
        pending.append(recorder.step)
        return wait(recorder)

    monkeypatch.setattr(Recorder, "wait_for_data", wait_and_open)
    given = small(**{"batch_size": 24, "data.source": "given"})
    train(given, tmp_path, 3, own=parts.Own(train=source, test=source))
    assert pending[0] == 0 and logs.count_logged_steps(tmp_path, num_bins=100) == 3


class Clock:
    def __init__(self):
        self.now = 100.0

    def perf_counter(self):
        return self.now


def take_steps(bar, clock, steps, *, seconds, waiting):
    for step in steps:
        with bar.wait_for_data() if waiting else contextlib.nullcontext():
            clock.now += waiting
        clock.now += seconds - waiting
        bar.update({"step": step, "epoch": step // 4, "loss": 1.0})


def test_waiting_is_told_for_each_epoch_with_advice_once(monkeypatch, capsys):
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    with progress.Progress(0, 12, 4, 16, advice="Buy a faster disk.") as bar:
        take_steps(bar, clock, range(1), seconds=50, waiting=40)  # compiles: does not count
        assert bar.waited_for_data == 0
        take_steps(bar, clock, range(1, 4), seconds=2, waiting=0.5)
        assert bar.speed == {"images_per_second": 8.0, "waited_for_data": 0.25}
        take_steps(bar, clock, range(4, 8), seconds=2, waiting=0.5)
        take_steps(bar, clock, range(8, 12), seconds=2, waiting=0)
        assert bar.waited_for_data == pytest.approx(7 * 0.5 / 22)
    said = capsys.readouterr().err.splitlines()
    assert "8 images/s, waited for data 25% of the time, 16 s left" in said[0]
    assert said[1] == "The devices waited for data 25% of this epoch. Buy a faster disk."
    assert "waited for data 25% of the time" in said[2]
    assert len(said) == 4 and "waited" not in said[3]


def test_waiting_that_is_short_or_seldom_is_not_told(monkeypatch, capsys):
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    with progress.Progress(0, 8, 4, 16, advice="Buy a faster disk.") as bar:
        take_steps(bar, clock, range(4), seconds=0.02, waiting=0.01)
        take_steps(bar, clock, range(4, 8), seconds=20, waiting=0.5)
    assert "waited" not in capsys.readouterr().err
