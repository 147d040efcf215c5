"""Lee 2025, Table 1: the variance of negative similarities against the batch size m, SimCLR with and without VRNS.

    python -m experiments.papers.lee_table1 [--scale=minutes] [--out=runs/papers] [--workers=1]

The paper trains ResNet-18 on CIFAR-100 and takes 5,000 augmented positive pairs of the training data; all pairs of the
training set are measured as well. The claims: VRNS lowers the variance at every m, and without it the variance falls as
m grows.
"""

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from experiments.papers import claims, paper, settings
from experiments.papers.paper import SIZE, VARIANCE, WEIGHT
from experiments.papers.settings import AT_TWO_TENTHS, SIZES, VRNS
from experiments.studies import study

SAMPLE = "training_set_similarity.trained encoder.cross_view.variance"
PAPER = {  # m: without VRNS, with it
    32: (0.1649, 0.1008),
    64: (0.1505, 0.0952),
    128: (0.1444, 0.0929),
    256: (0.1404, 0.0921),
    512: (0.1396, 0.0917),
}
GRID = settings.by_size(["simclr"])
SCALES = {
    "minutes": [settings.digits("batch_size", settings.by_size(["simclr"], settings.FEW_SIZES), **AT_TWO_TENTHS)],
    "cpu": [settings.cifar10("batch_size", GRID, **AT_TWO_TENTHS)],
    "paper": [settings.paper("cifar100", "batch_size", GRID, **AT_TWO_TENTHS)],
}


def make_table(rows: Sequence[paper.Row]) -> paper.Table:
    """The table, the claims, and the picture, from the runs."""
    sizes = [m for m in SIZES if paper.select(rows, VARIANCE, {SIZE: m})]
    table: list[dict[str, Any]] = []
    for m in sizes:
        row: dict[str, Any] = {"m": m}
        for k, (name, weight) in enumerate((("SimCLR", 0), ("with VRNS", VRNS))):
            for where, column in (("5,000 pairs", SAMPLE), ("whole set", VARIANCE)):
                row[f"{name}, {where}"] = paper.format_spread(paper.select(rows, column, {SIZE: m, WEIGHT: weight}))
            row[f"{name}, paper (CIFAR-100)"] = PAPER[m][k]
        table.append(row)
    lowered = paper.compare(rows, VARIANCE, {WEIGHT: 0}, {WEIGHT: VRNS}, same=[SIZE])
    grown = paper.compare(rows, VARIANCE, {SIZE: sizes[0], WEIGHT: 0}, {SIZE: sizes[-1], WEIGHT: 0})
    gains = [
        paper.compare(rows, VARIANCE, {SIZE: m, WEIGHT: 0}, {SIZE: m, WEIGHT: VRNS}) for m in (sizes[0], sizes[-1])
    ]
    most = {seed: [gains[0][seed][0] - gains[1][seed][0]] for seed in gains[0]}
    effects = [
        claims.describe_effect("VRNS lowers the variance of the negatives over the training set", lowered, falls=True),
        claims.describe_effect(
            f"Without VRNS that variance is lower at m = {sizes[-1]} than at {sizes[0]}", grown, falls=True
        ),
        claims.describe_effect(f"VRNS lowers it by more at m = {sizes[0]} than at {sizes[-1]}", most, falls=True),
    ]
    return paper.Table(table, effects, _draw(rows, sizes))


def _draw(rows: Sequence[paper.Row], sizes: Sequence[int]) -> Figure:
    figure = Figure(figsize=(study.COLUMN, 2.8), layout="constrained")
    axes = figure.subplots()
    for k, (name, weight, colour) in enumerate((("SimCLR", 0, study.BLUE), ("with VRNS", VRNS, study.ORANGE))):
        found = [paper.select(rows, VARIANCE, {SIZE: m, WEIGHT: weight}) for m in sizes]
        paper.plot_seeds(axes, sizes, found, marker="o", color=colour, label=name)
        axes.plot(
            sizes, [PAPER[m][k] for m in sizes], ":", marker="x", color=colour, label=f"{name}, paper (CIFAR-100)"
        )
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, map(str, sizes))
    axes.set(xlabel="m", ylabel="variance of negative similarities", ylim=(0, None))
    figure.legend(loc="outside lower center", ncols=2)
    return figure


PAPER_TABLE = paper.Paper("lee_table1", SCALES, make_table)

if __name__ == "__main__":
    paper.run_as_program(lambda: paper.main(PAPER_TABLE))
