"""Seconds of a sweep as one program (`--engine=vmap`), beside those of its runs one by one.

    python -m experiments.benchmarks.sweep [--model=mlp] [--hidden=512,512] [--epochs=120] [--runs=16] [--alone=2]
      [--draw]

The runs are the digits preset with four temperatures, two weights of VRNS and `runs` / 8 seeds. Both ways are whole
commands in processes of their own: they start Python, compile, train, evaluate and, with `--draw`, draw. A run alone is
a command of `experiments.train`; `--alone` of them, spread over the grid, are timed, and their mean counts for all. The
processor's time stands beside the clock's, because other work on the machine changes it less.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

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


def _time_alone(common: Sequence[str], cell: tuple[float, float, int], workdir: Path) -> Seconds:
    temperature, weight, seed = cell
    fields = {"loss.kwargs.temperature": temperature, "vrns_weight": weight, "seed": seed}
    given = [f"--config.{path}={value}" for path, value in fields.items()]
    return time_command(["experiments.train", *common, *given, f"--workdir={workdir}"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
