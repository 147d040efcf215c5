"""Seconds of a sweep as one program (`--engine=vmap`), beside those of its runs one by one.

    python -m experiments.benchmarks.sweep [--model=mlp] [--hidden=512,512] [--epochs=120] [--runs=16] [--alone=2]
      [--draw] [--steps=20]

The runs are the digits preset with four temperatures, two weights of VRNS and `runs` / 8 seeds. Both ways are whole
commands in processes of their own: they start Python, compile, train, evaluate and, with `--draw`, draw. A run alone is
a command of `experiments.train`; `--alone` of them, spread over the grid, are timed, and their mean counts for all. The
processor's time stands beside the clock's, because other work on the machine changes it less.

With `--steps` whole runs are left out: so many steps of all runs as one program and of one run alone are timed, in
turns in this process.
"""

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax

from contrastive_jax.data import batches
from contrastive_jax.jobs import command_line
from contrastive_jax.jobs.job import Job
from contrastive_jax.jobs.sweeps import stack
from contrastive_jax.training import gradient

Cell = tuple[float, float, int]  # temperature, weight of VRNS, seed
TEMPERATURES, WEIGHTS = (0.1, 0.2, 0.5, 1.0), (0, 30)


class Seconds(NamedTuple):
    """What a command took."""

    clock: float
    processor: float  # of all its threads


def time_command(arguments: Sequence[str]) -> Seconds:
    """Run a command of this checkout and time it.

    Raises:
      RuntimeError: the command fails.
    """
    start, before = time.perf_counter(), os.times()
    found = subprocess.run([sys.executable, "-m", *arguments], capture_output=True, text=True, check=False)
    after = os.times()
    if found.returncode:
        raise RuntimeError(f"{' '.join(arguments)}: status {found.returncode}\n{found.stderr}")
    used = after.children_user - before.children_user + after.children_system - before.children_system
    return Seconds(time.perf_counter() - start, used)


def main(argv: Sequence[str]) -> int:
    """Print the times and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mlp", help="mlp, or an encoder of the zoo such as resnet10 (%(default)s)")
    parser.add_argument("--hidden", default="512,512", help="layers of the mlp (%(default)s)")
    parser.add_argument("--epochs", type=int, default=120, help="(%(default)s)")
    parser.add_argument("--runs", type=int, default=16, help="a multiple of 8 (%(default)s)")
    parser.add_argument("--alone", type=int, default=2, help="runs that are timed alone (%(default)s)")
    parser.add_argument("--steps", type=int, help="time so many steps, and no whole runs")
    parser.add_argument("--draw", action="store_true", help="let every run draw its pictures")
    options = parser.parse_args(argv)
    if options.runs < 8 or options.runs % 8:
        print(f"error: --runs={options.runs}: expected a multiple of 8.", file=sys.stderr)
        return 2
    seeds = range(options.runs // len(TEMPERATURES) // len(WEIGHTS))
    common = ["--config=configs/digits.py", f"--config.model.name={options.model}", f"--config.epochs={options.epochs}"]
    common += [f"--config.log.pictures={options.draw}"]
    common += [f"--config.model.kwargs.hidden=({options.hidden},)"] if options.model == "mlp" else []
    cells = [(t, weight, seed) for t in TEMPERATURES for weight in WEIGHTS for seed in seeds]
    if options.steps is not None:
        return time_steps(common, cells, options.steps)
    grid = f"loss.kwargs.temperature={','.join(map(str, TEMPERATURES))} vrns_weight={','.join(map(str, WEIGHTS))} "
    grid += f"seed={','.join(map(str, seeds))}"
    with tempfile.TemporaryDirectory() as folder:
        chosen = cells[:: max(1, len(cells) // options.alone)][: options.alone]
        alone = [_time_alone(common, cell, Path(folder) / f"alone{k}") for k, cell in enumerate(chosen)]
        workdir = Path(folder) / "sweep"
        sweep = ["experiments.sweep", *common, f"--workdir={workdir}", f"--grid={grid}", "--engine=vmap"]
        together = time_command(sweep)
    drawn = "pictures" if options.draw else "no pictures"
    print(f"{options.model}, {options.epochs} epochs, {len(cells)} runs, {drawn}, {os.cpu_count()} cores")
    print("| | seconds | processor's seconds |\n|---|---:|---:|")
    mean = Seconds(*(statistics.mean(times) * len(cells) for times in zip(*alone, strict=True)))
    print(f"| alone, {len(alone)} timed | {mean.clock:.0f} | {mean.processor:.0f} |")
    print(f"| one program | {together.clock:.0f} | {together.processor:.0f} |")
    print(f"| ratio | {together.clock / mean.clock:.2f} | {together.processor / mean.processor:.2f} |")
    return 0


def _time_alone(common: Sequence[str], cell: Cell, workdir: Path) -> Seconds:
    return time_command(["experiments.train", *_arguments(common, cell, workdir)])


def _arguments(common: Sequence[str], cell: Cell, workdir: Path) -> list[str]:
    temperature, weight, seed = cell
    fields = {"loss.kwargs.temperature": temperature, "vrns_weight": weight, "seed": seed}
    return [*common, *(f"--config.{path}={value}" for path, value in fields.items()), f"--workdir={workdir}"]


def time_steps(common: Sequence[str], cells: Sequence[Cell], count: int) -> int:
    """Print the medians of steps of all runs as one program and of one run alone, and their ratio."""
    workdirs = [Path(f"runs/none/{k}") for k in range(len(cells))]  # where nothing is written
    pairs = zip(cells, workdirs, strict=True)
    configs = [command_line.parse(_arguments(common, cell, workdir)).config for cell, workdir in pairs]
    jobs = stack.prepare(configs, workdirs, steps=count + 1)
    steps = [_take_stacked(jobs, count + 1), _take_alone(jobs[0], count + 1)]
    seconds: list[list[float]] = [[], []]
    for _ in range(count + 1):
        for taken, found in zip(steps, seconds, strict=True):
            start = time.perf_counter()
            next(taken)
            found.append(time.perf_counter() - start)
    together, alone = (statistics.median(found[1:]) for found in seconds)  # the first compiles
    ratio = together / (len(cells) * alone)
    print(f"a step of {len(cells)} runs, median of {count}, {os.cpu_count()} cores")
    print(f"as one program {together:.4f} s, alone {len(cells)} x {alone:.4f} s, ratio {ratio:.2f}")
    return 0


def _take_stacked(jobs: Sequence[Job], count: int) -> Iterator[None]:
    runs = stack.Stack(jobs)
    placed = runs.place([job.initial for job in jobs])
    for batch in runs.placed_batches(0, count, contextlib.nullcontext):
        placed, outputs = runs.step(placed, batch)
        jax.block_until_ready((placed, outputs))
        yield


def _take_alone(job: Job, count: int) -> Iterator[None]:
    placed, order = job.mapped.place_state(job.initial), job.order
    positions = gradient.layout(order.update_size, job.config.batch_size, 1)
    for batch in batches.iterate(job.train, order, start=0, stop=count, positions=positions):
        placed, outputs = job.mapped.step(placed, job.mapped.place_batch({n: batch[n] for n in job.program.inputs}))
        jax.block_until_ready((placed, outputs))
        yield


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
