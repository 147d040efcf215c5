"""Lee 2025, Figure 4: accuracy against the batch size m, SimCLR, DCL and DHEL, with and without VRNS.

    python -m experiments.papers.lee_figure4 [--scale=minutes] [--out=runs/papers] [--workers=1]

The paper trains ResNet-18 on CIFAR-10 and CIFAR-100. The claims: VRNS raises the accuracy at small m, and more there
than at large m.
"""

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from experiments.papers import claims, paper, settings
from experiments.papers.paper import LOSS, PROBE, SIZE, WEIGHT
from experiments.papers.settings import AT_TWO_TENTHS, SIZES, VRNS
from experiments.studies import study

LOSSES = {"simclr": "SimCLR", "dcl": "DCL", "dhel": "DHEL"}
GRID = settings.by_size(list(LOSSES))
SCALES = {
    "minutes": [settings.digits("batch_size", settings.by_size(list(LOSSES), settings.FEW_SIZES), **AT_TWO_TENTHS)],
    "cpu": [settings.cifar10("batch_size", GRID, **AT_TWO_TENTHS)],
    "paper": [settings.paper("cifar10", "batch_size", GRID, **AT_TWO_TENTHS)],
}


def make_table(rows: Sequence[paper.Row]) -> paper.Table:
    """The table, the claims for each loss, and the picture, from the runs."""
    sizes = [m for m in SIZES if paper.select(rows, PROBE, {SIZE: m})]
    table: list[dict[str, Any]] = []
    for loss, name in LOSSES.items():
        for m in sizes:
            row: dict[str, Any] = {"loss": name, "m": m}
            for what, weight in (("alone", 0), ("with VRNS", VRNS)):
                found = paper.select(rows, PROBE, {LOSS: loss, SIZE: m, WEIGHT: weight})
                row[f"linear probe, {what}"] = paper.format_spread(found, scale=100)
            table.append(row)
    effects = []
    least, most = sizes[0], sizes[-1]
    for loss, name in LOSSES.items():
        gains = {
            m: paper.compare(
                rows, PROBE, {LOSS: loss, SIZE: m, WEIGHT: 0}, {LOSS: loss, SIZE: m, WEIGHT: VRNS}, scale=100
            )
            for m in (least, most)
        }
        more = {seed: [gains[least][seed][0] - gains[most][seed][0]] for seed in gains[least]}
        effects += [
            claims.describe_effect(f"VRNS raises the accuracy of {name} at m = {least}", gains[least]),
            claims.describe_effect(f"VRNS raises the accuracy of {name} more at m = {least} than at {most}", more),
        ]
    return paper.Table(table, effects, _draw(rows, sizes))


def _draw(rows: Sequence[paper.Row], sizes: Sequence[int]) -> Figure:
    figure = Figure(figsize=(2 * study.COLUMN, 2.4), layout="constrained")
    for axes, (loss, name) in zip(figure.subplots(1, len(LOSSES), sharey=True), LOSSES.items(), strict=True):
        for k, (what, weight, colour) in enumerate((("alone", 0, study.BLUE), ("with VRNS", VRNS, study.ORANGE))):
            found = [paper.select(rows, PROBE, {LOSS: loss, SIZE: m, WEIGHT: weight}) for m in sizes]
            percent = [[100 * x for x in seeds] for seeds in found]
            places = [m * 2 ** (0.16 * k - 0.08) for m in sizes]  # side by side
            paper.plot_seeds(axes, places, percent, marker="o", color=colour, label=what)
        axes.set_xscale("log", base=2)
        axes.set_xticks(sizes, map(str, sizes))
        axes.set(xlabel="m", title=name)
    figure.axes[0].set(ylabel="linear probe, top-1 in per cent")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


PAPER_TABLE = paper.Paper("lee_figure4", SCALES, make_table)

if __name__ == "__main__":
    paper.run_as_program(lambda: paper.main(PAPER_TABLE))
