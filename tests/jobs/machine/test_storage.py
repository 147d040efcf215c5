"""No space, no permission, no file descriptors: one line says so, nothing is lost, and the same command goes on."""

import contextlib
import gc
import os
import resource
import shutil
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from contrastive_jax.errors import SourceError, StorageError
from contrastive_jax.jobs import evaluate, run
from contrastive_jax.jobs import job as job_lib
from contrastive_jax.jobs.logs import rows as logs
from contrastive_jax.jobs.machine import storage
from contrastive_jax.jobs.machine.checkpoints import Checkpoints, digest
from tests.jobs.support import MLP, as_options, flags, small, train
from tests.jobs.support import QUICK as SHORT

STEPS = 8
QUICK = MLP | SHORT | {"checkpoint.every": 2}
CONFIG = small(**QUICK)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A run of eight steps: its workdir, its digest and its job."""
    workdir = tmp_path_factory.mktemp("undisturbed")
    with jax.numpy_dtype_promotion("standard"):
        job = job_lib.prepare(CONFIG, workdir)
        state = train(CONFIG, workdir, STEPS, job=job)
    return workdir, digest(jax.tree.map(np.asarray, state)), job


@pytest.fixture
def small_disk(tmp_path):
    """A disk of four megabytes, and a function that fills it."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", disk], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("this user may not mount a disk")
    yield disk
    gc.collect()  # files that only the traceback of an error still holds open
    subprocess.run(["umount", disk], check=True)


def fill(disk):
    with open(disk / "filler", "wb", buffering=0) as file:
        for size in (4096, 1):  # to the last byte
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                pass


@pytest.fixture
def at_step(monkeypatch):
    """Have something happen once a step is logged."""
    write = logs.StepLog.write

    def at(step, happens):
        def write_and_happen(log, row, *rest, **options):
            write(log, row, *rest, **options)
            if row["step"] == step:
                happens()

        monkeypatch.setattr(logs.StepLog, "write", write_and_happen)

    return at


def wait_for_checkpoint(workdir, step):
    """Until it is whole: it is written while the next steps are taken."""
    deadline = time.monotonic() + 60
    while step not in storage.list_steps(workdir / "checkpoints"):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def restorable(workdir, undisturbed):
    with Checkpoints(workdir / "checkpoints", keep=3) as checkpoints:
        return int(checkpoints.restore(undisturbed[2].initial).step)


def assert_ends_the_same(workdir, undisturbed):
    original, wanted, job = undisturbed
    assert digest(jax.tree.map(np.asarray, train(CONFIG, workdir, STEPS, job=job))) == wanted
    for name in ("metrics.jsonl", "similarity.counts"):
        assert (workdir / name).read_bytes() == (original / name).read_bytes()


@pytest.mark.parametrize(
    ("step", "kept"),
    [
        (0, None),
        (3, 2),  # which is logged just before the checkpoint of four steps is begun
        (4, 4),
    ],
)
def test_a_disk_that_is_full_while_training(step, kept, small_disk, at_step, undisturbed, monkeypatch):
    workdir = small_disk / "run"

    def fill_once_kept():
        if kept is not None:
            wait_for_checkpoint(workdir, kept)
        fill(small_disk)

    at_step(step, fill_once_kept)
    goes_on = "There is no checkpoint yet" if kept is None else f"The checkpoint of step {kept} is kept"
    with pytest.raises(StorageError, match=f"{workdir}: No space left on device; make room. {goes_on}"):
        run.run(CONFIG, workdir, steps=STEPS)
    monkeypatch.undo()
    (small_disk / "filler").unlink()
    if kept is not None:
        assert restorable(workdir, undisturbed) == kept
    assert_ends_the_same(workdir, undisturbed)


def test_a_disk_that_is_full_while_the_log_is_written(small_disk, at_step, undisturbed, monkeypatch):
    """With no checkpoint near: tensorboardX's own thread would have died of it, and the run waited for it for ever."""
    workdir = small_disk / "run"
    at_step(4, lambda: fill(small_disk))
    rare = small(**QUICK | {"checkpoint.every": 1000})
    with pytest.raises(StorageError, match="No space left on device"):
        run.run(rare, workdir, steps=40)
    monkeypatch.undo()
    (small_disk / "filler").unlink()
    assert_ends_the_same(workdir, undisturbed)


def test_a_disk_that_is_full_at_the_end(small_disk, monkeypatch):
    workdir, found = small_disk / "run", evaluate.evaluate

    def evaluate_and_fill(*arguments):
        result = found(*arguments)
        fill(small_disk)
        return result

    monkeypatch.setattr(evaluate, "evaluate", evaluate_and_fill)
    with pytest.raises(StorageError, match=r"No space left on device; make room\. The checkpoint of step 2 is kept"):
        run.run(CONFIG, workdir, steps=2)
    assert not (workdir / "summary.json").exists() and not list(workdir.glob(".*partial*"))
    monkeypatch.undo()
    (small_disk / "filler").unlink()
    assert run.run(CONFIG, workdir, steps=2)["steps"] == 2


def test_no_file_descriptors(tmp_path, at_step, undisturbed, monkeypatch):
    workdir, limits = tmp_path / "run", resource.getrlimit(resource.RLIMIT_NOFILE)
    held = []

    def exhaust():
        wait_for_checkpoint(workdir, 4)
        greatest = max(map(int, os.listdir("/proc/self/fd")))
        resource.setrlimit(resource.RLIMIT_NOFILE, (greatest + 1, limits[1]))
        with contextlib.suppress(OSError):
            while True:
                held.append(os.open("/dev/null", os.O_RDONLY))

    at_step(4, exhaust)
    try:
        with pytest.raises(StorageError, match="Too many open files; raise the limit on open files of this process"):
            run.run(CONFIG, workdir, steps=STEPS)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for number in held:
            os.close(number)
    monkeypatch.undo()
    assert restorable(workdir, undisturbed) == 4
    assert_ends_the_same(workdir, undisturbed)


def start(workdir, *before, steps=STEPS, **overrides):
    """The command itself, on one device: its status and what it says of errors."""
    command = [*before, sys.executable, "-m", "experiments.train", "--config=configs/smoke.py", f"--workdir={workdir}"]
    options = [*as_options(QUICK | overrides), f"--steps={steps}"]
    environment = os.environ | {"XLA_FLAGS": flags(devices=1)}
    done = subprocess.run([*command, *options], env=environment, capture_output=True, text=True, check=False)
    told = ("Encoder 'mlp' takes no width", "epoch", "Resuming", "Evaluating", "Measuring")
    return done.returncode, [line for line in done.stderr.splitlines() if not line.startswith(told)]


def test_the_screen_has_one_line_of_it(small_disk):
    subprocess.run(["mount", "-o", "remount,size=500k", small_disk], check=True)
    status, lines = start(small_disk / "run", steps=40)
    assert status == 2
    (line,) = lines
    assert line.startswith("error: ") and "No space left on device; make room." in line


def bound_by_modes():
    """What makes a command respect the mode bits: root does not."""
    if os.geteuid():
        return []
    if not shutil.which("setpriv"):
        pytest.skip("root writes everywhere, and there is no setpriv")
    rights = "-dac_override,-dac_read_search"
    return ["setpriv", f"--bounding-set={rights}", f"--inh-caps={rights}"]


def test_a_workdir_that_cannot_be_made(tmp_path):
    tmp_path.chmod(0o500)
    status, lines = start(tmp_path / "run", *bound_by_modes())
    assert status == 2 and not (tmp_path / "run").exists()
    assert lines == [
        f"error: --workdir={tmp_path / 'run'}: expected a folder that can be written, got 'Permission denied'."
    ]


@pytest.mark.parametrize("name", ["checkpoints", "checkpoints/4", "metrics.jsonl", "tensorboard"])
def test_what_cannot_be_written_or_read_is_named_and_nothing_is_lost(name, tmp_path, undisturbed):
    job = undisturbed[2]
    train(CONFIG, tmp_path, 4, job=job)
    before = digest_of_newest(tmp_path, job)
    (tmp_path / name).chmod(0 if name == "checkpoints/4" else 0o500)
    status, lines = start(tmp_path, *bound_by_modes())
    (tmp_path / name).chmod(0o700)
    assert status == 2
    (line,) = lines
    assert "Permission denied; give this user permission to read and write there." in line
    assert "The checkpoint of step 4 is kept" in line
    assert not (tmp_path / "damaged").exists()
    assert digest_of_newest(tmp_path, job) == before
    assert train(CONFIG, tmp_path, STEPS, job=job).step == STEPS


def digest_of_newest(workdir, job):
    with Checkpoints(workdir / "checkpoints", keep=3) as checkpoints:
        return digest(checkpoints.restore(job.initial, 4))


@pytest.mark.parametrize(
    ("error", "refused"),
    [
        (OSError(28, "No space left on device"), True),
        (OSError(110, "Connection timed out"), True),
        (ValueError("RESOURCE_EXHAUSTED: Error writing d/1: Too many open files [spec={}]"), True),
        (FileNotFoundError(2, "No such file or directory"), False),
        (ValueError("DATA_LOSS: CRC-32C checksum verification failed"), False),
    ],
)
def test_what_the_machine_refuses_is_told_from_damage(error, refused):
    assert (storage.find_refusal(error) is not None) == refused


def test_a_workdir_belongs_to_one_run_at_a_time(tmp_path, at_step):
    said = []

    def start_another():
        before = (tmp_path / "config.json").read_bytes()
        said.append(start(tmp_path, steps=4, on_nonfinite="skip"))
        assert (tmp_path / "config.json").read_bytes() == before

    at_step(1, start_another)
    assert run.run(CONFIG, tmp_path, steps=4)["steps"] == 4
    ((status, (line,)),) = said
    assert status == 2
    assert line.startswith(f"error: --workdir={tmp_path}: expected a path that no other process writes to")
    assert f"got one in use (process {os.getpid()} on " in line
    assert run.run(CONFIG, tmp_path, steps=4)["steps"] == 4


def test_an_image_that_cannot_be_read_is_no_matter_of_the_workdir(tmp_path):
    said = SourceError("images/a.png cannot be read: Permission denied")
    with pytest.raises(SourceError, match=r"images/a\.png"), storage.explain_refusals(tmp_path):
        raise said


def test_another_error_is_left_alone(tmp_path):
    with pytest.raises(KeyError), storage.explain_refusals(tmp_path):
        raise KeyError("x")
    with pytest.raises(FileNotFoundError), storage.explain_refusals(tmp_path):
        (tmp_path / "nowhere").read_text()
