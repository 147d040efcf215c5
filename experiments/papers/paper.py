"""What the papers' tables share: sweeps at several scales, paired tests over seeds, and the files that they leave."""

import argparse
import csv
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
from matplotlib.figure import Figure
from scipy import stats

from contrastive_jax.errors import UsageError
from contrastive_jax.jobs.machine import files
from contrastive_jax.jobs.sweeps import program, results
from experiments.studies import study

Row = Mapping[str, str]  # of results.csv


class Scale(NamedTuple):
    """A size at which a table is made."""

    preset: str
    fields: Mapping[str, Any]  # that all runs share
    grid: str
    engine: str = "processes"


class Table(NamedTuple):
    """A table or figure of a paper, with ours beside it."""

    rows: Sequence[Mapping[str, Any]]  # {column: cell} for each row
    effects: Sequence[str]  # a sentence for each effect that the paper claims
    figure: Figure


def run_sweep(scale: Scale, workdir: Path) -> list[Row]:
    """Take all runs of a scale, or what is left of them; the rows of their `results.csv`.

    Raises:
      UsageError: a run failed; the sweep has said which.
    """
    arguments = [f"--config={scale.preset}", f"--workdir={workdir}", f"--grid={scale.grid}", f"--engine={scale.engine}"]
    status = program.main(arguments + [f"--config.{path}={value}" for path, value in scale.fields.items()])
    if status:
        raise UsageError(f"{workdir}: expected all runs to end, got status {status}. Run the same command to go on.")
    with open(workdir / results.RESULTS, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def of_seeds(rows: Sequence[Row], column: str, **fields: Any) -> list[float]:
    """A column of the runs with these values of fields, in the order of their seeds."""
    chosen = [row for row in rows if all(float(row[path]) == value for path, value in fields.items())]
    return [float(row[column]) for row in sorted(chosen, key=lambda row: int(row["seed"]))]


def format_spread(values: Sequence[float]) -> str:
    """The mean and the standard deviation over seeds."""
    spread = f" ± {statistics.stdev(values):.2g}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.4g}{spread}"


def describe_effect(claim: str, differences: Sequence[float]) -> str:
    """Whether differences within seeds have the sign that a paper claims, by a paired t-test.

    Args:
      claim: what the paper says, as a sentence without its full stop.
      differences: one for each pair of runs that differ in the claim alone; negative where the claim holds.

    Example:
      >>> describe_effect("VRNS lowers the variance", [-0.1, -0.12, -0.11])
      'VRNS lowers the variance: confirmed in 3 of 3 pairs, mean difference -0.11, p = 0.0027.'
    """
    below = sum(x < 0 for x in differences)
    mean, p = statistics.mean(differences), float(stats.ttest_1samp(differences, 0.0).pvalue)
    decided = len(differences) > 1 and p < 0.05
    verdict = ("confirmed" if mean < 0 else "contradicted") if decided else "not decidable at this size: right"
    return f"{claim}: {verdict} in {below} of {len(differences)} pairs, mean difference {mean:.3g}, p = {p:.2g}."


def main(
    name: str,
    scales: Mapping[str, Scale],
    make: Callable[[Sequence[Row]], Table],
    argv: Sequence[str] | None = None,
) -> int:
    """Make one table from the command line; return the exit status."""
    parser = argparse.ArgumentParser(prog=f"python -m experiments.papers.{name}", allow_abbrev=False)
    parser.add_argument("--scale", choices=list(scales), default=next(iter(scales)), help="(%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("runs/papers"), help="folder of all results (%(default)s)")
    options = parser.parse_args(argv)
    start, stem = time.perf_counter(), options.out / f"{name}-{options.scale}"
    try:
        rows = run_sweep(scales[options.scale], stem.with_name(f"{stem.name}-runs"))
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    with matplotlib.rc_context(study.STYLE):
        table = make(rows)
        for suffix in (".png", ".pdf"):
            with files.replace_atomically(f"{stem}{suffix}") as temporary:
                table.figure.savefig(temporary)
    _write_csv(Path(f"{stem}.csv"), table.rows)
    print("\n".join([study.format_table(table.rows), "", *table.effects]))
    print(f"\n{time.perf_counter() - start:.0f} s; {stem}.png, {stem}.pdf, {stem}.csv")
    return 0


def _write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with files.replace_atomically(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
