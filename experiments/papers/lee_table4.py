"""Lee 2025, Table 4: ImageNet-100, ResNet-50, top-1 against the temperature, SimCLR with and without VRNS.

    python -m experiments.papers.lee_table4 [--out=runs/papers] [--workers=1]

For accelerators: prints the command of each run beside the paper's number, then starts the runs. The images are
data/imagenet100/train/CLASS/* and data/imagenet100/test/CLASS/*, as configs/imagenet100.py says.
"""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from contrastive_jax.jobs.sweeps import program
from experiments.papers import claims, paper, settings
from experiments.papers.paper import PROBE, SEED, TEMPERATURE, WEIGHT
from experiments.papers.settings import SEEDS, VRNS
from experiments.studies import study

PAPER = {  # temperature: without VRNS, with it
    0.1: (70.14, 69.50),
    0.2: (73.80, 73.94),
    0.3: (72.30, 74.04),
    0.4: (69.92, 73.12),
    0.5: (68.60, 72.88),
}
SWEEP = settings.paper("imagenet100", "table4", {TEMPERATURE: tuple(PAPER), WEIGHT: (0, f"{VRNS:g}"), SEED: SEEDS})
SCALES = {"paper": [SWEEP]}


def list_commands(sweeps: Sequence[paper.Sweep], folder: Path) -> list[dict[str, Any]]:
    """The command of each run, beside the paper's number."""
    options = [program.parse(sweep.arguments(folder)) for sweep in sweeps]
    return [
        {
            "paper": PAPER[cell.values[TEMPERATURE]][int(cell.values[WEIGHT] > 0)],
            "command": shlex.join(["python", "-m", "experiments.train", *program.train_arguments(given, cell)]),
        }
        for given in options
        for cell in given.cells
    ]


def make_table(rows: Sequence[paper.Row]) -> paper.Table:
    """The table, the claims, and the picture, from the runs."""
    table: list[dict[str, Any]] = []
    for t, numbers in PAPER.items():
        row: dict[str, Any] = {"temperature": t}
        for name, weight, number in zip(("SimCLR", "with VRNS"), (0, VRNS), numbers, strict=True):
            found = paper.select(rows, PROBE, {TEMPERATURE: t, WEIGHT: weight})
            row[f"{name}, linear probe"] = paper.format_spread(found, scale=100)
            row[f"{name}, paper"] = number
        table.append(row)
    effects = [
        claims.describe_effect(
            f"VRNS raises the accuracy at temperature {t:g}",
            paper.compare(rows, PROBE, {TEMPERATURE: t, WEIGHT: 0}, {TEMPERATURE: t, WEIGHT: VRNS}, scale=100),
        )
        for t in PAPER
    ]
    return paper.Table(table, effects, _draw(rows))


def _draw(rows: Sequence[paper.Row]) -> Figure:
    figure = Figure(figsize=(study.COLUMN, 2.6), layout="constrained")
    axes = figure.subplots()
    for k, (name, weight, colour) in enumerate((("SimCLR", 0, study.BLUE), ("with VRNS", VRNS, study.ORANGE))):
        found = [paper.select(rows, PROBE, {TEMPERATURE: t, WEIGHT: weight}) for t in PAPER]
        percent = [[100 * x for x in seeds] for seeds in found]
        paper.plot_seeds(axes, tuple(PAPER), percent, marker="o", color=colour, label=name)
        axes.plot(tuple(PAPER), [both[k] for both in PAPER.values()], ":", marker="x", color=colour)
    axes.set(xlabel="temperature", ylabel="linear probe, top-1 in per cent", title="dotted: the paper")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def introduce(sweeps: Sequence[paper.Sweep], folder: Path) -> str:
    """The command of each run, beside the paper's number."""
    return study.format_table(list_commands(sweeps, folder))


PAPER_TABLE = paper.Paper("lee_table4", SCALES, make_table, introduce)

if __name__ == "__main__":
    paper.run_as_program(lambda: paper.main(PAPER_TABLE))
