"""Processes that share a machine: their cores, their failures, and signals."""

import os
import signal
import sys
import threading
import time

import pytest

from contrastive_jax.errors import Interrupted, UsageError
from contrastive_jax.jobs.sweeps import local

WAIT = """
import signal, sys, time
def end(signum, _):
    print("error: stopped by", signum, flush=True)
    sys.exit(128 + signum)
for signum in (signal.SIGINT, signal.SIGTERM):
    signal.signal(signum, end)
print("ready", flush=True)
time.sleep(60)
"""


def task(folder, name, code):
    return local.Task(name, [sys.executable, "-c", code], folder / f"{name}.txt")


def run(tasks, places):
    found = {}
    local.run_all(tasks, places, lambda task, status: found.__setitem__(task.name, status))
    return found


def test_each_task_runs_once_and_failures_are_known(tmp_path):
    codes = {"a": "print('hello')", "b": "import sys; print('error: no\\nerror: never'); sys.exit(2)", "c": ""}
    tasks = [task(tmp_path / "output", name, code) for name, code in codes.items()]
    assert run(tasks, local.divide_machine(1)) == {"a": 0, "b": 2, "c": 0}
    assert [local.read_error(one.output) for one in tasks] == ["hello", "no; never", "it printed nothing"]


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the system binds no process to cores")
def test_workers_share_the_cores(tmp_path, monkeypatch):
    monkeypatch.setattr(local, "_count_devices", lambda: ("cpu", 1))
    cores = os.sched_getaffinity(0)
    workers = min(2, len(cores))
    places = local.divide_machine(workers)
    code = "import os; print(sorted(os.sched_getaffinity(0)))"
    tasks = [task(tmp_path, str(k), code) for k in range(workers)]
    assert set(run(tasks, places).values()) == {0}
    assert os.sched_getaffinity(0) == cores
    if workers > 1:
        printed = sorted(one.output.read_text().strip() for one in tasks)
        assert printed == sorted(str(sorted(place.cores)) for place in places)
        assert frozenset.union(*(place.cores for place in places)) == cores


def test_each_worker_has_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr(local, "_count_devices", lambda: ("gpu", 2))
    monkeypatch.setattr(local.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    first, second = local.divide_machine(2)
    assert first == (frozenset(range(4)), {"CUDA_VISIBLE_DEVICES": "0"})
    assert second == (frozenset(range(4, 8)), {"CUDA_VISIBLE_DEVICES": "1"})
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-a")
    assert [place.environment["CUDA_VISIBLE_DEVICES"] for place in local.divide_machine(2)] == ["5", "GPU-a"]
    with pytest.raises(UsageError, match="--workers=3: expected at most the 2 GPUs"):
        local.divide_machine(3)
    with pytest.raises(UsageError, match="--workers=9: expected at most the 8 cores"):
        local.divide_machine(9)
    monkeypatch.setattr(local, "_count_devices", lambda: ("tpu", 4))
    with pytest.raises(UsageError, match="expected 1 where the devices are tpus"):
        local.divide_machine(2)


def test_the_platform_is_asked_in_a_process_of_its_own():
    assert local._count_devices()[0] == "cpu"


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_all_and_starts_no_more(signum, tmp_path):
    tasks = [task(tmp_path, name, WAIT) for name in "abc"]

    def send():
        while not all(one.output.exists() and one.output.read_text() for one in tasks[:2]):
            time.sleep(0.02)
        os.kill(os.getpid(), signum)

    before = signal.getsignal(signum)
    sender = threading.Thread(target=send)
    sender.start()
    with pytest.raises(Interrupted, match=f"{signum.name}: all runs have stopped") as caught:
        run(tasks, [local.Place(frozenset(), {})] * 2)
    sender.join()
    assert caught.value.status == 128 + signum
    passed_on = signal.SIGINT if signum == signal.SIGINT else signal.SIGTERM
    assert [local.read_error(one.output) for one in tasks[:2]] == [f"stopped by {int(passed_on)}"] * 2
    assert not tasks[2].output.exists() and signal.getsignal(signum) == before


def test_an_error_ends_the_runs_that_nothing_would_wait_for(tmp_path):
    first = task(tmp_path, "a", WAIT)
    once_ready = f"import pathlib, time\nwhile not pathlib.Path({str(first.output)!r}).read_text(): time.sleep(0.02)"

    def refuse(ended, status):
        raise OSError(f"{ended.name} ended with {status}")

    with pytest.raises(OSError, match="b ended with 0"):
        local.run_all([first, task(tmp_path, "b", once_ready)], [local.Place(frozenset(), {})] * 2, refuse)
    assert local.read_error(first.output) == f"stopped by {int(signal.SIGTERM)}"
