"""Lee 2025, Figure 3: accuracy against the temperature, SimCLR with and without VRNS.

    python -m experiments.papers.lee_figure3 [--scale=minutes] [--out=runs/papers] [--workers=1]

The paper trains ResNet-18 on CIFAR-10 and CIFAR-100. The claims: VRNS raises the accuracy where the temperature is high
(at 2 from 81 to 86 per cent on CIFAR-10), and the curve becomes flatter.
"""

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from experiments.papers import claims, paper, settings
from experiments.papers.paper import PROBE, SEED, TEMPERATURE, WEIGHT
from experiments.papers.settings import SEEDS, TEMPERATURES, VRNS
from experiments.studies import study

PAPER = {2.0: (81, 86)}  # of the curves, the numbers that the text states: without VRNS, with it, on CIFAR-10
GRID = {TEMPERATURE: TEMPERATURES, WEIGHT: (0, f"{VRNS:g}"), SEED: SEEDS}
SCALES = {
    "minutes": [settings.digits("temperature", GRID, batch_size=256)],
    "cpu": [settings.cifar10("temperature", GRID, batch_size=256)],
    "paper": [settings.paper("cifar10", "temperature", GRID)],
}


def make_table(rows: Sequence[paper.Row]) -> paper.Table:
    """The table, the claims, and the picture, from the runs."""
    table: list[dict[str, Any]] = []
    curves: dict[float, list[list[float]]] = {0.0: [], VRNS: []}
    for t in TEMPERATURES:
        row: dict[str, Any] = {"temperature": t}
        for k, (name, weight) in enumerate((("SimCLR", 0.0), ("with VRNS", VRNS))):
            found = paper.select(rows, PROBE, {TEMPERATURE: t, WEIGHT: weight})
            curves[weight].append([100 * x for x in found])
            row[f"{name}, linear probe"] = paper.format_spread(found, scale=100)
            row[f"{name}, paper (CIFAR-10)"] = PAPER[t][k] if t in PAPER else ""
        table.append(row)
    by_seed = {weight: list(zip(*found, strict=True)) for weight, found in curves.items()}
    pairs = list(enumerate(zip(by_seed[0.0], by_seed[VRNS], strict=True)))
    flatter = {seed: [(max(b) - min(b)) - (max(a) - min(a))] for seed, (a, b) in pairs}
    best = {seed: [max(b) - max(a)] for seed, (a, b) in pairs}
    hot = {TEMPERATURE: TEMPERATURES[-1]}
    raised = paper.compare(rows, PROBE, {**hot, WEIGHT: 0}, {**hot, WEIGHT: VRNS}, scale=100)
    effects = [
        claims.describe_effect(f"VRNS raises the accuracy at temperature {TEMPERATURES[-1]:g}", raised),
        claims.describe_effect("With VRNS the accuracy ranges less over the temperatures", flatter, falls=True),
        claims.describe_effect("The best accuracy over the temperatures is higher with VRNS", best),
    ]
    return paper.Table(table, effects, _draw(curves))


def _draw(curves: dict[float, list[list[float]]]) -> Figure:
    figure = Figure(figsize=(study.COLUMN, 2.6), layout="constrained")
    axes = figure.subplots()
    for k, (name, weight, colour) in enumerate((("SimCLR", 0.0, study.BLUE), ("with VRNS", VRNS, study.ORANGE))):
        places = [t * 1.04 ** (2 * k - 1) for t in TEMPERATURES]  # side by side
        paper.plot_seeds(axes, places, curves[weight], marker="o", color=colour, label=name)
    axes.set_xscale("log")
    axes.set_xticks(TEMPERATURES, map(str, TEMPERATURES))
    axes.minorticks_off()
    axes.set(xlabel="temperature", ylabel="linear probe, top-1 in per cent")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


PAPER_TABLE = paper.Paper("lee_figure3", SCALES, make_table)

if __name__ == "__main__":
    paper.run_as_program(lambda: paper.main(PAPER_TABLE))
