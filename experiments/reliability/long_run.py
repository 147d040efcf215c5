"""Watch a long run: do its memory, open files, threads and time per step stay the same from first to last?

    python -m experiments.reliability.long_run [--steps=20000] [--workdir=runs/long] [-- --config.batch_size=32 ...]

The smoke preset trains in its own process, which is sampled twenty times from outside. Afterwards the log is checked:
it must have every step exactly once.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil

SAMPLES = 20
_POLL_SECONDS = 0.2


class Sample(NamedTuple):
    """One look at a run."""

    step: int
    seconds: float  # since the start
    memory: int  # bytes, resident
    files: int  # open
    threads: int


def watch(process: psutil.Process, log: Path, steps: int) -> Iterator[Sample]:
    """Yield a sample each time another twentieth of the steps is logged."""
    began, step = time.monotonic(), 0
    while not log.exists():
        _wait(process)
    with open(log, "rb") as file:
        for k in range(1, SAMPLES + 1):
            while step < k * steps // SAMPLES:
                step += file.read().count(b"\n")
                _wait(process)
            memory = process.memory_info().rss
            yield Sample(step, time.monotonic() - began, memory, process.num_fds(), process.num_threads())


def _wait(process: psutil.Process) -> None:
    if process.status() == psutil.STATUS_ZOMBIE:
        raise SystemExit("error: expected a run of all steps, got one that ended early; see screen.log in its workdir.")
    time.sleep(_POLL_SECONDS)


def format_rows(samples: Iterator[Sample]) -> Iterator[str]:
    """The samples as lines of a table, with the time per step since the sample before."""
    yield "| step | resident memory (MB) | open files | threads | ms per step |"
    yield "|---:|---:|---:|---:|---:|"
    before = None
    for now in samples:
        pace = "" if before is None else f"{1000 * (now.seconds - before.seconds) / (now.step - before.step):.1f}"
        yield f"| {now.step:,} | {now.memory / 1e6:.0f} | {now.files} | {now.threads} | {pace} |"
        before = now


def check_logs(workdir: Path, steps: int) -> str:
    """Check that the log has every step once; a line about it and the sizes of the files.

    Raises:
      SystemExit: a step is missing, there twice or out of order.
    """
    with open(workdir / "metrics.jsonl") as file:
        logged = [json.loads(line)["step"] for line in file]
    if logged != list(range(steps)):
        raise SystemExit(
            f"error: metrics.jsonl: expected the rows of steps 0 to {steps - 1}, got {len(logged)} others."
        )
    sizes = {p.name: sum(f.stat().st_size for f in ([p] if p.is_file() else p.rglob("*"))) for p in workdir.iterdir()}
    listed = ", ".join(f"{name} {size / 1e6:.1f} MB" for name, size in sorted(sizes.items()) if size > 5e5)
    return f"metrics.jsonl has each of the {steps:,} steps once, in order. {listed}."


def main(argv: list[str]) -> int:
    """Print the table, a line after each sample."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--workdir", type=Path, default=Path("runs/long"))
    parser.add_argument("options", nargs="*", help="of experiments.train, after --")
    given = parser.parse_args(argv)
    if given.workdir.exists():
        print(f"error: --workdir={given.workdir}: expected a new folder, got one that exists.", file=sys.stderr)
        return 2
    given.workdir.mkdir(parents=True)
    command = [sys.executable, "-m", "experiments.train", "--config=configs/smoke.py", f"--workdir={given.workdir}"]
    command += [f"--config.epochs={given.steps}", f"--steps={given.steps}", *given.options]
    with open(given.workdir / "screen.log", "w") as screen:
        process = psutil.Popen(command, stdout=screen, stderr=subprocess.STDOUT)
    try:
        for line in format_rows(watch(process, given.workdir / "metrics.jsonl", given.steps)):
            print(line, flush=True)
        if process.wait():
            print((given.workdir / "screen.log").read_text().splitlines()[-1], file=sys.stderr)
            return 1
    finally:
        if process.is_running():
            process.kill()
    print("\n" + check_logs(given.workdir, given.steps))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
