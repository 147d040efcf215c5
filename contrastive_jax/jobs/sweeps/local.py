"""Runs of a sweep in processes of this machine, which share its cores and devices."""

import collections
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from contrastive_jax.errors import Interrupted, UsageError

_SIGNALS = (
    (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if hasattr(signal, "SIGHUP") else (signal.SIGINT, signal.SIGTERM)
)
LOOK_EVERY = 0.05  # seconds between two looks at the processes
_PROBE = "import jax; print(jax.default_backend(), jax.local_device_count())"


class Task(NamedTuple):
    """A run that is to be a process."""

    name: str
    command: Sequence[str]
    output: Path  # what it prints


class Place(NamedTuple):
    """What a worker has of the machine."""

    cores: frozenset[int]  # empty where the operating system binds no process to cores
    environment: Mapping[str, str]


def divide_machine(workers: int) -> list[Place]:
    """Divide the cores among workers and, where there are several GPUs, give each worker one of them.

    Args:
      workers: how many run at once. One worker has the whole machine.

    Raises:
      UsageError: there are more workers than cores or, where there are several, than GPUs; or the devices are TPUs,
        which one process drives.
    """
    if workers == 1:
        return [Place(frozenset(), {})]
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    count = len(cores) or os.cpu_count() or 1
    if workers > count:
        raise UsageError(f"--workers={workers}: expected at most the {count} cores of this machine.")
    shares = [frozenset(cores[k * len(cores) // workers : (k + 1) * len(cores) // workers]) for k in range(workers)]
    return [Place(*both) for both in zip(shares, _divide_devices(workers, *_count_devices()), strict=True)]


def _count_devices() -> tuple[str, int]:
    """The platform and its devices, seen by a process of its own: one that has seen GPUs keeps their memory."""
    found = subprocess.run([sys.executable, "-c", _PROBE], capture_output=True, text=True, check=False)
    if found.returncode:
        raise UsageError(f"JAX finds no devices: {(found.stderr.strip() or 'no message').splitlines()[-1]}")
    platform, count = found.stdout.split()[-2:]
    return platform, int(count)


def _divide_devices(workers: int, platform: str, count: int) -> list[dict[str, str]]:
    """The environment that shows each worker its device.

    Example:
      >>> _divide_devices(2, "cpu", 1)
      [{}, {}]
    """
    if platform == "cpu":
        return [{}] * workers
    if platform != "gpu":
        raise UsageError(
            f"--workers={workers}: expected 1 where the devices are {platform}s, which one process drives."
        )
    if workers > count:
        raise UsageError(f"--workers={workers}: expected at most the {count} GPUs of this machine; see --engine=vmap.")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = visible.split(",") if visible else [str(k) for k in range(count)]
    return [{"CUDA_VISIBLE_DEVICES": name} for name in names[:workers]]


def run_all(tasks: Sequence[Task], places: Sequence[Place], ended: Callable[[Task, int], None]) -> None:
    """Run every task in a process, one at a time in each place.

    Args:
      tasks: in the order in which they start.
      places: see `divide_machine`.
      ended: called with each task and its exit status as soon as it has ended.

    Raises:
      Interrupted: on SIGINT, SIGTERM and SIGHUP, after they were passed on to all processes and these have ended. A
        second signal is passed on too, and ends a run at once.
    """
    waiting, running = iter(tasks), dict[int, tuple[Task, subprocess.Popen[bytes]]]()
    with hear_signals() as heard, _stopped_on_error(running):
        first = 0
        while True:
            while heard:
                signum = heard.popleft()
                first = first or signum
                for _, process in running.values():
                    process.send_signal(signum if signum == signal.SIGINT else signal.SIGTERM)
            for k, place in enumerate(places):
                if k not in running and not first and (task := next(waiting, None)):
                    running[k] = task, _start(task, place)
            if not running:
                break
            for k, (task, process) in list(running.items()):
                if (status := process.poll()) is not None:
                    del running[k]
                    ended(task, status)
            time.sleep(LOOK_EVERY)
    if first:
        message = f"{signal.Signals(first).name}: all runs have stopped; run the same command to resume them."
        raise Interrupted(message, 128 + first)


def _start(task: Task, place: Place) -> "subprocess.Popen[bytes]":
    """Start a process on its cores. It has a session of its own, so that only this process hears a Ctrl-C."""
    task.output.parent.mkdir(parents=True, exist_ok=True)
    before = os.sched_getaffinity(0) if place.cores else None
    with open(task.output, "ab") as output:
        try:
            if place.cores:
                os.sched_setaffinity(0, place.cores)  # a process starts with the cores of the thread that makes it
            return subprocess.Popen(
                task.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **place.environment},
                start_new_session=True,
            )
        finally:
            if before is not None:
                os.sched_setaffinity(0, before)


@contextlib.contextmanager
def _stopped_on_error(running: Mapping[int, tuple[Task, "subprocess.Popen[bytes]"]]) -> Iterator[None]:
    """Where an error ends the sweep, end its runs first, each with a checkpoint: nothing would wait for them."""
    try:
        yield
    except BaseException:
        for _, process in running.values():
            process.terminate()
        for _, process in running.values():
            process.wait()
        raise


@contextlib.contextmanager
def hear_signals() -> "Iterator[collections.deque[int]]":
    """Collect signals in place of what they do; on exit the handlers before are restored."""
    heard = collections.deque[int]()
    before = {signum: signal.signal(signum, lambda signum, _: heard.append(signum)) for signum in _SIGNALS}
    try:
        yield heard
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def read_error(output: Path) -> str:
    """The last error that a run printed, or its last line."""
    text = output.read_text(encoding="utf-8", errors="replace") if output.exists() else ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = list(_last_errors(lines))
    return "; ".join(errors) if errors else (lines[-1] if lines else "it printed nothing")


def _last_errors(lines: Sequence[str]) -> Iterator[str]:
    """The lines that begin with `error: ` at the end of an output."""
    found: list[str] = []
    for line in reversed(lines):
        if not line.startswith("error: "):
            break
        found.append(line.removeprefix("error: "))
    return reversed(found)
