"""What the studies share: the command line, the table of predictions and measurements, and the style of pictures."""

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import matplotlib
import threadpoolctl
from matplotlib.figure import Figure

from contrastive_jax.jobs.machine import files

# Okabe and Ito's palette suits every kind of colour vision; each series also has its own marker or dash.
BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, RED, PURPLE = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7",
)  # fmt: skip
COLUMN = 3.4  # inches, the width of a column of a two-column paper
STYLE = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "legend.fontsize": 7,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "lines.linewidth": 1.2,
    "lines.markersize": 4,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "pdf.fonttype": 42,  # text stays text
    "savefig.dpi": 300,
}


class Check(NamedTuple):
    """A prediction of theory, the distance of the measurement from it, and the greatest allowed distance."""

    claim: str
    error: float
    limit: float

    @property
    def holds(self) -> bool:
        """Whether the measurement is within the limit."""
        return self.error <= self.limit


class Result(NamedTuple):
    """What a study found."""

    rows: Sequence[Mapping[str, Any]]  # the table: {column: cell} for each row
    checks: Sequence[Check]
    figure: Figure


Study = Callable[..., Result]  # (*, quick: bool, seed: int) -> Result


def main(name: str, study: Study, argv: Sequence[str] | None = None) -> int:
    """Run one study from the command line; 0 if everything that theory predicts was found, 1 if not."""
    parser = argparse.ArgumentParser(prog=f"python -m experiments.studies.{name}", description=study.__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/studies"), help="folder of the pictures (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a smaller version that takes seconds")
    options = parser.parse_args(argv)
    start = time.perf_counter()
    # float64: the difference between prediction and measurement should not be rounding. One thread for BLAS: on arrays
    # this small more of them slow JAX down (L-BFGS by a factor of ten).
    with jax.enable_x64(True), threadpoolctl.threadpool_limits(1, "blas"), matplotlib.rc_context(STYLE):
        result = study(quick=options.quick, seed=options.seed)
        try:
            paths = _save(options.out / name, result.figure)
        except OSError as error:
            print(
                f"error: --out={options.out}: expected a folder that can be written, got {error.strerror!r}.",
                file=sys.stderr,
            )
            return 2
    print(format_table(result.rows))
    print()
    for check in result.checks:
        verdict = "as predicted" if check.holds else "NOT AS PREDICTED"
        print(f"{verdict}: {check.claim}: {check.error:.2g} (at most {check.limit:.2g})")
    print(f"\n{time.perf_counter() - start:.0f} s; {', '.join(map(str, paths))}")
    return 0 if all(check.holds for check in result.checks) else 1


def _save(stem: Path, figure: Figure) -> list[Path]:
    paths = [stem.with_name(stem.name + suffix) for suffix in (".png", ".pdf")]
    for path in paths:
        with files.replace_atomically(path) as temporary:
            figure.savefig(temporary)
    return paths


def format_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows with the same columns as a Markdown table."""
    cells = [list(rows[0]), *([_format_cell(x) for x in row.values()] for row in rows)]
    widths = [max(len(row[k]) for row in cells) for k in range(len(cells[0]))]
    lines = ["| " + " | ".join(x.ljust(w) for x, w in zip(row, widths, strict=True)) + " |" for row in cells]
    return "\n".join([lines[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *lines[1:]])


def _format_cell(x: Any) -> str:
    if isinstance(x, tuple):
        return " to ".join(map(_format_cell, x))
    return f"{x:.4g}" if isinstance(x, float) else str(x)
