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


@pytest.fixture
def executor(tmp_path):
    return cluster.make_executor(tmp_path / "slurm", {"timeout_min": 5, "slurm_partition": "gpu"}, where="local")


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
    tasks = [task(tmp_path, "a", code, 0, 143), task(tmp_path, "b", code, 2, 0)]
    found = {}
    cluster.run_all(executor, tasks, lambda one, *outcome: found.update({one.name: outcome}))
    assert found == {"a": (0, ""), "b": (2, "")}


def test_a_job_that_is_warned_saves_and_goes_on_in_a_new_one(executor, tmp_path):
    """So SLURM does before the time limit and on pre-emption."""
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
    run, output, statuses = cluster._Run(), tmp_path / "out.txt", []
    code = "import time; print('ready', flush=True); time.sleep(1); print('done')"
    thread = threading.Thread(target=lambda: statuses.append(run([sys.executable, "-c", code], output)))
    thread.start()
    wait_for("ready", output)
    for signum in (signal.SIGUSR1, signal.SIGUSR2):
        os.kill(run._process.pid, signum)
    thread.join()
    assert statuses == [0] and output.read_text() == "ready\ndone\n"


def test_a_signal_cancels_the_jobs(executor, tmp_path):
    one = task(tmp_path, "a", RESUMED, tmp_path / "checkpoint")

    def interrupt():
        wait_for("ready", one.output)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=interrupt).start()
    with pytest.raises(Interrupted, match="SIGTERM: the jobs were cancelled") as stopped:
        cluster.run_all(executor, [one], lambda *_: None)
    assert stopped.value.status == 143
    wait_for("step 7", tmp_path / "checkpoint")


def test_an_error_cancels_the_jobs(executor, tmp_path):
    tasks = [task(tmp_path, "a", RESUMED, tmp_path / "checkpoint"), task(tmp_path, "b", "")]

    def fail(*_):
        wait_for("ready", tasks[0].output)
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        cluster.run_all(executor, tasks, fail)
    wait_for("step 7", tmp_path / "checkpoint")


@pytest.mark.parametrize("status", [0, 1])
def test_a_slurm_without_accounts_is_named_once(status, tmp_path, monkeypatch, capsys):
    level = logging.getLogger("submitit").level
    (tmp_path / "srun").touch(mode=0o755)
    (tmp_path / "sacct").write_text(f"#!/bin/sh\nexit {status}\n")
    (tmp_path / "sacct").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    try:
        cluster.make_executor(tmp_path / "x", {"timeout_min": 3})
    finally:
        logging.getLogger("submitit").setLevel(level)
    assert capsys.readouterr().err.startswith("SLURM keeps no accounts here (sacct fails)") == (status == 1)


@pytest.mark.parametrize("said", ["sbatch: error: no such partition\nsbatch: error: failed", "no; failed"])
def test_what_slurm_refuses_is_one_line(said, tmp_path):
    class Executor:
        def map_array(self, *_):
            raise submitit.core.utils.FailedJobError(said)

    with pytest.raises(UsageError, match=r"^--slurm: SLURM takes no such job: no.*; failed$"):
        cluster.run_all(Executor(), [task(tmp_path, "a", "")], lambda *_: None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected timeout_min, the most minutes of a job"),
        ("partition=gpu", "expected timeout_min"),
        ("timeout_min=3 gpu", "--slurm: 'gpu': expected NAME=VALUE"),
        ("timeout_min=", "--slurm: 'timeout_min': expected NAME=VALUE"),
        ("timeout_min='3", "no closing quotation"),
    ],
)
def test_what_a_job_asks_for_is_checked(text, message):
    with pytest.raises(UsageError, match=message):
        cluster.parse_parameters(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("timeout_min=3 colour=red", "--slurm: Unknown argument 'colour' for executor 'slurm'"),
        ("timeout_min=soon", '--slurm: Parameter "timeout_min" expected type'),
    ],
)
def test_what_slurm_does_not_know_is_named(text, message, tmp_path, monkeypatch):
    (tmp_path / "srun").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match=message) as found:
        cluster.make_executor(tmp_path / "x", cluster.parse_parameters(text))
    assert "\n" not in str(found.value) and not (tmp_path / "x").exists()


def test_a_machine_without_slurm_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="expected SLURM's srun on this machine, found none"):
        cluster.make_executor(tmp_path / "x", {"timeout_min": 3})
