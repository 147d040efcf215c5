"""A sweep as jobs of SLURM. Where there is none, submitit starts the same jobs as processes of this machine."""

import logging
import os
import signal
import sys
import threading
import time

import pytest

from contrastive_jax.errors import Interrupted, UsageError
from contrastive_jax.jobs.sweeps import cluster, local

submitit = pytest.importorskip("submitit")

# The first time it waits until it is stopped, as a run is with its checkpoint; the second time it goes on to its end.
RESUMED = """
import os, pathlib, signal, sys, time
saved = pathlib.Path(sys.argv[1])
def save(*_):
    saved.write_text("step 7")
    sys.exit(143)
if saved.exists():
    print("resumed after", saved.read_text())
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
print("ready in job", os.getppid(), flush=True)
time.sleep(300)
"""

WAIT = """
import pathlib, sys, time
print("ready", flush=True)
while not pathlib.Path(sys.argv[1]).exists():
    time.sleep(0.01)
"""


@pytest.fixture
def executor(tmp_path):
    return cluster.make_executor(tmp_path / "slurm", {"timeout_min": 5, "slurm_partition": "gpu"}, where="local")


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """The folder of the commands of a machine with SLURM."""
    (tmp_path / "srun").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    logger = logging.getLogger("submitit")
    level = logger.level
    yield tmp_path
    logger.setLevel(level)


def task(folder, name, code, *arguments):
    return local.Task(name, [sys.executable, "-c", code, *map(str, arguments)], folder / "output" / f"{name}.txt")


def wait_for(text, path, seconds=120):
    deadline = time.monotonic() + seconds
    while not (path.exists() and text in path.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_each_job_ends_with_its_status(executor, tmp_path):
    tasks = [
        task(tmp_path, "a", "print('hello')"),
        task(tmp_path, "b", "import sys; print('error: no'); sys.exit(3)"),
        local.Task("c", ["/no/such/program"], tmp_path / "output" / "c.txt"),
    ]
    found = {}
    cluster.run_all(executor, tasks, lambda one, *outcome: found.update({one.name: outcome}))
    assert found["a"] == (0, "") and found["b"] == (3, "")
    assert found["c"][0] == 1 and found["c"][1].endswith("No such file or directory: '/no/such/program'")
    assert [local.read_error(one.output) for one in tasks] == ["hello", "no", "it printed nothing"]


def test_of_several_tasks_the_first_tells(tmp_path):
    """One that a warning ended in an earlier job of the run may not have written its end yet."""
    executor = cluster.make_executor(tmp_path / "slurm", {"timeout_min": 5, "tasks_per_node": 2}, where="local")
    code = "import os, sys; sys.exit(int(sys.argv[1 + int(os.environ['SUBMITIT_LOCAL_GLOBALID'])]))"
    tasks = [task(tmp_path, "a", code, 0, 3), task(tmp_path, "b", code, 2, 0)]
    found = {}
    cluster.run_all(executor, tasks, lambda one, *outcome: found.update({one.name: outcome}))
    assert found == {"a": (0, ""), "b": (2, "")}


def test_a_job_that_is_warned_saves_and_goes_on_in_a_new_one(executor, tmp_path):
    """So SLURM does before the time limit."""
    one = task(tmp_path, "a", RESUMED, tmp_path / "checkpoint")
    found = []

    def warn():
        wait_for("\n", one.output)
        os.kill(int(one.output.read_text().split()[-1]), signal.SIGUSR2)

    warner = threading.Thread(target=warn)
    warner.start()
    cluster.run_all(executor, [one], lambda _, *outcome: found.append(outcome))
    warner.join()
    assert found == [(0, "")]
    assert one.output.read_text().splitlines()[1:] == ["resumed after step 7"]


def test_the_warning_of_slurm_does_not_end_a_run(tmp_path):
    """SLURM warns every process of a job, not only submitit's."""
    run, output, go_on, statuses = cluster._Run(), tmp_path / "out.txt", tmp_path / "go on", []
    command = [sys.executable, "-c", WAIT, str(go_on)]
    thread = threading.Thread(target=lambda: statuses.append(run(command, output)))
    thread.start()
    wait_for("ready", output)
    for signum in (signal.SIGUSR1, signal.SIGUSR2):
        os.kill(run._process.pid, signum)
    go_on.touch()
    thread.join()
    assert statuses == [0]


@pytest.mark.parametrize(("status", "waits"), [(143, True), (-15, True), (2, False), (0, False)])
def test_a_job_whose_run_was_stopped_waits_for_slurm(status, waits, tmp_path, monkeypatch):
    """If SLURM queues the job again, the sweep must not take the run for failed."""
    waited = []
    monkeypatch.setattr(cluster, "_wait_for_slurm", lambda: waited.append(True))
    code = f"import os, sys; os.kill(os.getpid(), {-status}) if {status} < 0 else sys.exit({status})"
    assert cluster._Run()([sys.executable, "-c", code], tmp_path / "out.txt") == status
    assert bool(waited) == waits


class Job:
    """A job that is never done, and knows whether it was cancelled, and with Ctrl-C ignored."""

    cancelled = None

    def done(self):
        return False

    def cancel(self, *, check):
        self.cancelled = not check and signal.getsignal(signal.SIGINT) == signal.SIG_IGN


class Executor:
    """Jobs that never end, or what sbatch says."""

    def __init__(self, says=None):
        self.jobs, self.says = [Job(), Job()], says

    def map_array(self, *_):
        if self.says is not None:
            raise submitit.core.utils.FailedJobError(self.says)
        return self.jobs


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_cancels_the_jobs(signum, status, tmp_path):
    never = Executor()
    for job in never.jobs:
        job.done = lambda: os.kill(os.getpid(), signum)
    before = signal.getsignal(signum)
    with pytest.raises(Interrupted, match=": the jobs are being cancelled") as stopped:
        cluster.run_all(never, [task(tmp_path, name, "") for name in "ab"], lambda *_: None)
    assert stopped.value.status == status and signal.getsignal(signum) == before
    assert [job.cancelled for job in never.jobs] == [True, True]


def test_an_error_cancels_the_jobs(tmp_path, monkeypatch):
    never = Executor()
    never.jobs[0].done = lambda: True
    monkeypatch.setattr(cluster, "_read_outcome", lambda *_: (0, ""))

    def fail(*_):
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        cluster.run_all(never, [task(tmp_path, name, "") for name in "ab"], fail)
    assert [job.cancelled for job in never.jobs] == [None, True]


@pytest.mark.parametrize("status", [0, 1])
def test_a_slurm_without_accounting_is_named_once(status, machine, capsys):
    (machine / "sacct").write_text(f"#!/bin/sh\nexit {status}\n")
    (machine / "sacct").chmod(0o755)
    cluster.make_executor(machine / "x", {"timeout_min": 3})
    assert capsys.readouterr().err.startswith("Job accounting is off here (sacct fails)") == (status == 1)
    assert logging.getLogger("submitit").isEnabledFor(logging.WARNING) == (status == 0)


@pytest.mark.parametrize("says", ["sbatch: error: no such partition\nsbatch: error: failed", "no; failed"])
def test_what_slurm_refuses_is_one_line(says, tmp_path):
    with pytest.raises(UsageError, match=r"^--slurm: SLURM refused the jobs: no.*; failed$"):
        cluster.run_all(Executor(says), [task(tmp_path, "a", "")], lambda *_: None)


def test_a_ctrl_c_that_ends_sbatch_is_no_refusal(tmp_path, monkeypatch):
    interrupted = Executor()
    monkeypatch.setattr(
        interrupted, "map_array", lambda *_: os.kill(os.getpid(), signal.SIGINT) or Executor("").map_array()
    )
    with pytest.raises(Interrupted, match="SIGINT: some jobs may have been submitted") as stopped:
        cluster.run_all(interrupted, [task(tmp_path, "a", "")], lambda *_: None)
    assert stopped.value.status == 130


def test_a_sweep_in_a_job_does_not_hand_its_settings_on(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    monkeypatch.setenv("SLURM_MEM_PER_CPU", "1")
    seen = []
    outer = Executor()
    monkeypatch.setattr(outer, "map_array", lambda *_: seen.append(dict(os.environ)) or [])
    cluster.run_all(outer, [], lambda *_: None)
    assert "SLURM_MEM_PER_CPU" not in seen[0] and os.environ["SLURM_MEM_PER_CPU"] == "1"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected timeout_min, the most minutes of a job"),
        ("partition=gpu", "expected timeout_min"),
        ("timeout_min=3 gpu", "--slurm: expected NAME=VALUE, got 'gpu'"),
        ("timeout_min=", "--slurm: expected NAME=VALUE, got 'timeout_min'"),
        ("timeout_min='3", "expected words whose quotes close, got"),
        ("time=04:00:00", "expected timeout_min"),
        ("timeout_min=3 slurm_time=5", "expected timeout_min"),
        ("timeout_min=soon", "--slurm: timeout_min: expected a number, got 'soon'"),
        ("timeout_min=3 cpus_per_task=1.5", "--slurm: cpus_per_task: expected a number, got '1.5'"),
    ],
)
def test_what_a_job_asks_for_is_checked(text, message):
    with pytest.raises(UsageError, match=message):
        cluster.parse_parameters(text)


def test_values_have_their_types():
    found = cluster.parse_parameters("timeout_min=3 mem_gb=1.5 account=0042 slurm_qos='very long'")
    assert found == {"timeout_min": 3, "mem_gb": 1.5, "slurm_account": "0042", "slurm_qos": "very long"}


def test_what_slurm_does_not_know_is_named(machine):
    with pytest.raises(UsageError, match="--slurm: expected parameters of submitit, got others: Unknown arg") as found:
        cluster.make_executor(machine / "x", cluster.parse_parameters("timeout_min=3 colour=red"))
    assert "\n" not in str(found.value) and not (machine / "x").exists()


def test_a_machine_without_slurm_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="expected SLURM's srun on this machine, found none"):
        cluster.make_executor(tmp_path / "x", {"timeout_min": 3})
