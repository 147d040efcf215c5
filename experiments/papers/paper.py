"""What the papers' tables share: sweeps at several scales, pairs of runs, and the files that they leave."""

import argparse
import csv
import math
import shlex
import signal
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from contrastive_jax.errors import UsageError
from contrastive_jax.jobs.machine import files
from contrastive_jax.jobs.sweeps import program, results
from experiments.papers import claims
from experiments.studies import study

Row = Mapping[str, str]  # of results.csv, and the name of its sweep
Fields = Mapping[str, Any]  # {field of the configuration: value}
SEED, LOSS, SIZE, WEIGHT, TEMPERATURE = "seed", "loss.name", "batch_size", "vrns_weight", "loss.kwargs.temperature"
PROBE = "evaluation.trained encoder.linear_probe"
FEW_LABELS = "evaluation.trained encoder.few_labels"
VARIANCE = "whole_training_set_similarity.trained encoder.negative_variance"


class Sweep(NamedTuple):
    """A grid of runs."""

    name: str  # of its folder, which tables of one scale share
    preset: str
    fields: Fields  # that all runs share
    grid: Mapping[str, Sequence[Any]]
    engine: str = "processes"

    def arguments(self, folder: Path, *, workers: int = 1) -> list[str]:
        """The arguments of `experiments.sweep`, with the runs of all sweeps below `folder`."""
        grid = " ".join(f"{path}={','.join(map(str, values))}" for path, values in self.grid.items())
        fixed = [f"--config.{path}={value}" for path, value in self.fields.items()]
        workers = workers if self.engine == "processes" else 1
        workdir = folder / self.name
        return [
            *(f"--config={self.preset}", f"--workdir={workdir}", f"--grid={grid}"),
            *(f"--engine={self.engine}", f"--workers={workers}"),
            *fixed,
        ]

    def with_seeds(self, seeds: Sequence[int]) -> "Sweep":
        """The same sweep with other seeds, which are the same runs wherever both have one."""
        return self._replace(grid={**self.grid, SEED: seeds})


class Paper(NamedTuple):
    """A table or figure of a paper: its runs at each scale, and what is made of them."""

    name: str
    scales: Mapping[str, Sequence[Sweep]]
    make: Callable[[Sequence[Row]], "Table"]
    introduce: Callable[[Sequence[Sweep], Path], str] | None = None  # printed before the runs, from their folder

    def list_sweeps(self, scale: str, seeds: Sequence[int] | None = None) -> list[Sweep]:
        """The sweeps of a scale, none if the table does not have it, with other seeds if some are given."""
        sweeps = self.scales.get(scale, ())
        return [sweep if seeds is None else sweep.with_seeds(seeds) for sweep in sweeps]


class Table(NamedTuple):
    """What the runs of a `Paper` give."""

    rows: Sequence[Mapping[str, Any]]  # {column: cell} for each row
    effects: Sequence[claims.Effect]
    figure: Figure


class SweepEnded(Exception):
    """A sweep ended before all its runs were done, and has said why.

    Attributes:
      status: its exit status.
    """

    def __init__(self, status: int):
        super().__init__(f"exit status {status}")
        self.status = status


def run_sweep(sweep: Sweep, folder: Path, *, workers: int = 1) -> list[Row]:
    """Run a sweep, or what is left of it; the rows of its `results.csv`.

    Raises:
      SweepEnded: a run failed, the data are missing, or a signal came.
    """
    if status := program.main(sweep.arguments(folder, workers=workers)):
        raise SweepEnded(status)
    with open(folder / sweep.name / results.RESULTS, newline="", encoding="utf-8") as file:
        return [{**row, "sweep": sweep.name} for row in csv.DictReader(file)]


def select(rows: Sequence[Row], column: str, fields: Fields) -> list[float]:
    """A column of the runs with these values of fields, in the order of their seeds.

    Example:
      >>> select([{"seed": "1", "m": "32", "x": "2"}, {"seed": "0", "m": "32", "x": "1"}], "x", {"m": 32})
      [1.0, 2.0]
    """
    return [read_number(row, column) for row in choose(rows, fields)]


def choose(rows: Sequence[Row], fields: Fields) -> list[Row]:
    """The runs with these values of fields, in the order of their seeds."""
    chosen = [row for row in rows if all(_is(row.get(path, ""), value) for path, value in fields.items())]
    return sorted(chosen, key=lambda row: int(row[SEED]))


def read_number(row: Row, column: str) -> float:
    """A number of a run.

    Raises:
      UsageError: the run has none there: its evaluation was not finite.
    """
    if not row[column]:
        raise UsageError(f"{row.get('run', 'a run')}: expected a number for {column}, got none; it was not finite.")
    return float(row[column])


def _is(text: str, value: Any) -> bool:
    return text == value if isinstance(value, str) else bool(text) and float(text) == value


def compare(
    rows: Sequence[Row],
    column: str,
    before: Fields,
    after: Fields,
    *,
    same: Sequence[str] = (),
    scale: float = 1.0,
) -> dict[int, list[float]]:
    """What a change of fields changes in a column: {seed: a difference for each pair of runs}.

    Args:
      rows: of the runs.
      column: what is compared.
      before: the fields of one run of each pair.
      after: the fields of the other.
      same: further fields in which the runs of a pair agree, as they do in their seed.
      scale: a factor of the differences: 100 for accuracies in points.
    """
    found: dict[int, list[float]] = {}
    values = {path: sorted({row[path] for row in rows}) for path in same}
    for choice in _product(values):
        pairs = zip(*(choose(rows, {**fields, **choice}) for fields in (before, after)), strict=True)
        for first, second in pairs:
            if first[SEED] != second[SEED]:
                raise ValueError(f"expected runs of the same seeds, got {first[SEED]} and {second[SEED]}")
            difference = read_number(second, column) - read_number(first, column)
            found.setdefault(int(first[SEED]), []).append(scale * difference)
    return found


def _product(values: Mapping[str, Sequence[str]]) -> Iterator[dict[str, str]]:
    if not values:
        yield {}
        return
    path, *rest = values
    for value in values[path]:
        yield from ({path: value, **other} for other in _product({name: values[name] for name in rest}))


def format_spread(values: Sequence[float], *, scale: float = 1.0) -> str:
    """The mean and the standard deviation over seeds, multiplied by a scale.

    Example:
      >>> format_spread([0.5, 0.52, 0.51], scale=100)
      '51 ± 1'
    """
    values = [scale * x for x in values]
    spread = f" ± {statistics.stdev(values):.2g}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.4g}{spread}"


def plot_seeds(axes: Axes, places: Sequence[float], values: Sequence[Sequence[float]], **style: Any) -> None:
    """Means at places, with the standard deviations over seeds as bars."""
    means = [statistics.mean(found) for found in values]
    errors = [statistics.stdev(found) if len(found) > 1 else 0.0 for found in values]
    axes.errorbar(places, means, errors, **style)


def main(paper: Paper, argv: Sequence[str] | None = None) -> int:
    """Make one table from the command line; return the exit status."""
    parser = argparse.ArgumentParser(prog=f"python -m experiments.papers.{paper.name}", allow_abbrev=False)
    add_options(parser, tuple(paper.scales))
    options = parser.parse_args(argv)
    if options.list:
        print("\n".join(list_commands([paper], options)))
        return 0
    return make(paper, options)


def run_as_program(main: Callable[[], int]) -> NoReturn:
    """Run a command line as a whole process, which Ctrl-C ends without a traceback; sweeps have their own handlers."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(main())


def add_options(parser: argparse.ArgumentParser, scales: Sequence[str]) -> None:
    """The options that all tables share."""
    parser.add_argument("--scale", choices=scales, default=scales[0], help="(%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("runs/papers"), help="folder of runs and tables (%(default)s)")
    parser.add_argument(
        "--workers", type=int, default=1, help="runs at once (%(default)s); at the scale minutes one program has many"
    )
    parser.add_argument("--seeds", type=parse_seeds, help="in place of 0,1,2; the table is of these alone")
    parser.add_argument("--list", action="store_true", help="print the sweeps' commands, and start none")


def parse_seeds(text: str) -> tuple[int, ...]:
    """Seeds as they are written on the command line.

    Raises:
      argparse.ArgumentTypeError: they are not distinct whole numbers from 0.

    Example:
      >>> parse_seeds("0,1,2")
      (0, 1, 2)
    """
    words = [word.strip() for word in text.split(",")]
    seeds = tuple(int(word) for word in words if word.isdecimal())
    if len(seeds) < len(words) or len(set(seeds)) < len(seeds):
        raise argparse.ArgumentTypeError(f"expected distinct whole numbers from 0, such as 0,1,2, got {text!r}")
    return seeds


def list_commands(papers: Sequence[Paper], options: argparse.Namespace) -> list[str]:
    """The command of each sweep that tables need, once, with the number of its runs."""
    found: dict[str, None] = {}
    for paper in papers:
        for sweep in paper.list_sweeps(options.scale, options.seeds):
            runs = math.prod(map(len, sweep.grid.values()))
            command = sweep.arguments(options.out / options.scale / "runs", workers=options.workers)
            line = shlex.join(["python", "-m", "experiments.sweep", *command])
            found[f"{line}  # {runs} runs"] = None
    return list(found)


def make(paper: Paper, options: argparse.Namespace) -> int:
    """Run what a table needs and write it, as CSV, Markdown and a picture; return the exit status."""
    folder = options.out / options.scale
    sweeps = paper.list_sweeps(options.scale, options.seeds)
    stem = folder / paper.name
    rows: list[Row] = []
    try:
        if paper.introduce is not None:
            print(f"{paper.introduce(sweeps, folder / 'runs')}\n", flush=True)
        for sweep in sweeps:
            rows += run_sweep(sweep, folder / "runs", workers=options.workers)
        with matplotlib.rc_context(study.STYLE):
            table = paper.make(rows)
            for suffix in (".png", ".pdf"):
                with files.replace_atomically(f"{stem}{suffix}") as temporary:
                    table.figure.savefig(temporary)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except SweepEnded as ended:  # the sweep has already reported it
        return ended.status
    found = [f"- {effect.sentence}" for effect in table.effects]
    below = ["", claims.describe_correction(table.effects), "", describe_runs(rows, folder / "runs")]
    text = "\n".join([study.format_table(table.rows), "", *found, *below])
    _write_csv(Path(f"{stem}.csv"), table.rows)
    with files.replace_atomically(f"{stem}.md") as temporary:
        temporary.write_text(f"{text}\n", encoding="utf-8")
    print(f"{text}\n\n{stem}.png, {stem}.pdf, {stem}.csv, {stem}.md")
    return 0


def describe_runs(rows: Sequence[Row], folder: Path) -> str:
    """Where and when runs were made: their number, seconds, machines, versions and commits."""
    seconds: list[float] = []
    said: dict[str, None] = {}
    for row in rows:
        summary = results.read_json(folder / row["sweep"] / row["run"] / results.SUMMARY) or {}
        made = summary.get("environment", {})
        versions, git = made.get("versions", {}), made.get("git") or {}
        commit = f"{git.get('commit', 'unknown')[:7]}{' with changes' if git.get('dirty') else ''}"
        device = f"{made.get('devices', '?')} x {made.get('device', 'unknown')}, {made.get('cpus', '?')} cores"
        said[f"{device}, JAX {versions.get('jax', '?')}, commit {commit}"] = None
        seconds.append(summary.get("seconds", math.nan))
    return (
        f"{len(rows)} runs; the median of their seconds is {statistics.median(seconds):.0f}, counted from the start of "
        f"the process that ended a run, which may hold many in one program. {'; '.join(said)}."
    )


def _write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with files.replace_atomically(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
