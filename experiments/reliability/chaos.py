"""Kill a run at random moments with `kill -9`, restart it with the same command, and check that no trace is left.

    python -m experiments.reliability.chaos [--kills=30] [--seed=0] [--workdir=runs/chaos] [-- --config.epochs=10 ...]

First comes a run that is never killed. Then the same run is started, killed at a moment drawn from the seed (while it
starts, takes a step, writes its log or a checkpoint, or evaluates) and started again, until it ends; the next round
begins in a new workdir. After each round the final parameters and optimiser state, `metrics.jsonl` and `similarity.npz`
are compared with those of the first run, bit for bit.
"""

import argparse
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from contrastive_jax.jobs import config as config_lib
from contrastive_jax.jobs import job as job_lib
from contrastive_jax.jobs.logs import rows as logs
from contrastive_jax.jobs.machine import storage
from contrastive_jax.jobs.machine.checkpoints import Checkpoints
from contrastive_jax.training import TrainState

OPTIONS = ("--config=configs/smoke.py", "--config.epochs=10", "--config.checkpoint.every=20")
_POLL_SECONDS = 0.0005
_MOST_LOGGED = 60_000  # bytes that a run logs at most before it is killed


class Seen(NamedTuple):
    """What can be seen of a run that is about to be killed: its log and its output."""

    workdir: Path
    log_size: int  # bytes that it has to log first

    def has_logged(self) -> bool:
        """Whether the log has grown beyond the size that was drawn."""
        return _size(self.workdir / logs.ROWS) > self.log_size

    def has_begun_a_checkpoint(self) -> bool:
        """Whether a checkpoint is being written after that."""
        return self.has_logged() and any((self.workdir / "checkpoints").glob("*tmp*"))

    def has_begun_evaluating(self) -> bool:
        """Whether all steps are taken and the evaluation has begun."""
        return "Evaluating" in (self.workdir / "screen.log").read_text()


class Moment(NamedTuple):
    """When a run is killed: a delay, drawn from [0, longest] seconds, after something has happened."""

    has_happened: Callable[[Seen], bool]
    longest: float


MOMENTS = {
    "starting": Moment(lambda seen: True, 8.0),
    "in a step": Moment(Seen.has_logged, 0.1),
    "writing a checkpoint": Moment(Seen.has_begun_a_checkpoint, 0.02),
    "writing the log": Moment(Seen.has_logged, 0.001),
    "evaluating": Moment(Seen.has_begun_evaluating, 3.0),
}


class Kill(NamedTuple):
    """One kill: when it happened, and what was left afterwards."""

    round: int
    moment: str
    seconds: float
    logged: int
    kept: int | None

    def format_row(self) -> str:
        """A line of the table."""
        kept = "none" if self.kept is None else self.kept
        return f"| {self.round} | {self.moment} | {self.seconds:.1f} | {self.logged} | {kept} |"


def kill_runs(workdir: Path, options: list[str], *, kills: int, seed: int) -> Iterator[Kill]:
    """Kill runs `kills` times and yield each kill; every moment comes once before any comes again.

    Raises:
      AssertionError: a run that was killed ends differently from the one that was not.
    """
    rng = random.Random(seed)
    whole = workdir / "never-killed"
    _finish(_start(whole, options), whole)
    done, round_, moments = 0, 1, _draw_moments(rng)
    moment = next(moments)
    while done < kills:
        victim = workdir / f"round-{round_}"
        if (killed := _kill(victim, options, moment, rng)) is not None:
            done, moment = done + 1, next(moments)
            yield killed._replace(round=round_)
            if done < kills:
                continue
            _finish(_start(victim, options), victim)
        _assert_same(whole, victim)
        round_ += 1


def _draw_moments(rng: random.Random) -> Iterator[str]:
    while True:
        yield from rng.sample(list(MOMENTS), len(MOMENTS))


def _start(workdir: Path, options: list[str]) -> subprocess.Popen[bytes]:
    workdir.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "experiments.train", *options, f"--workdir={workdir}"]
    with open(workdir / "screen.log", "w") as screen:
        return subprocess.Popen(command, stdout=screen, stderr=subprocess.STDOUT)


def _finish(process: subprocess.Popen[bytes], workdir: Path) -> None:
    assert process.wait() == 0, (workdir / "screen.log").read_text()


def _kill(workdir: Path, options: list[str], name: str, rng: random.Random) -> Kill | None:
    """Start the run and kill it; None if it ended first."""
    moment, delay = MOMENTS[name], rng.uniform(0, MOMENTS[name].longest)
    seen = Seen(workdir, _size(workdir / logs.ROWS) + rng.randrange(_MOST_LOGGED))
    began = time.monotonic()
    process = _start(workdir, options)
    while not moment.has_happened(seen):
        if process.poll() is not None:
            _finish(process, workdir)
            return None
        time.sleep(_POLL_SECONDS)
    time.sleep(delay)
    process.kill()
    if process.wait() != -signal.SIGKILL:
        _finish(process, workdir)
        return None
    steps = storage.list_steps(workdir / "checkpoints")
    logged = _count_lines(workdir / logs.ROWS)
    return Kill(0, name, time.monotonic() - began, logged, steps[-1] if steps else None)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _count_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def _assert_same(first: Path, second: Path) -> None:
    states = [_read_final_state(workdir) for workdir in (first, second)]
    jax.tree.map(np.testing.assert_array_equal, *states)
    rows = [(workdir / logs.ROWS).read_bytes() for workdir in (first, second)]
    assert rows[0] == rows[1], f"metrics.jsonl: expected the bytes of {first} in {second}, got others"
    histograms = [np.load(workdir / "similarity.npz") for workdir in (first, second)]
    assert histograms[0].files == histograms[1].files
    for name in histograms[0].files:
        np.testing.assert_array_equal(histograms[0][name], histograms[1][name])


def _read_final_state(workdir: Path) -> TrainState:
    config = config_lib.from_json((workdir / "config.json").read_text())
    with Checkpoints(workdir / "checkpoints", keep=config.checkpoint.keep) as checkpoints:
        return checkpoints.restore(job_lib.prepare(config, workdir).initial)


def main(argv: list[str]) -> int:
    """Print the table, a line after each kill."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workdir", type=Path, default=Path("runs/chaos"))
    parser.add_argument("options", nargs="*", help="of experiments.train, after --, replacing the smoke preset")
    given = parser.parse_args(argv)
    if given.workdir.exists():
        print(f"error: --workdir={given.workdir}: expected a new folder, got one that exists.", file=sys.stderr)
        return 2
    print("| round | killed while | seconds after its start | steps logged | last checkpoint |")
    print("|---:|---|---:|---:|---:|", flush=True)
    for kill in kill_runs(given.workdir, given.options or list(OPTIONS), kills=given.kills, seed=given.seed):
        print(kill.format_row(), flush=True)
    print(f"\n{given.kills} kills: parameters, optimiser state, metrics.jsonl and similarity.npz equal those of a run")
    print("that was never killed, bit for bit.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
