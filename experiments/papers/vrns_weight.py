"""When VRNS helps and when it hurts: accuracy and variance over its weight lambda and the batch size m, SimCLR.

    python -m experiments.papers.vrns_weight [--scale=minutes] [--out=runs/papers] [--workers=1]

Lee 2025 searches lambda in {0.1, 0.3, 1, 3, 10, 30, 100} and takes 30 for Table 1.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.papers import claims, paper, settings
from experiments.papers.paper import FEW_LABELS, PROBE, SEED, SIZE, VARIANCE, WEIGHT
from experiments.papers.settings import AT_TWO_TENTHS, SEEDS
from experiments.studies import study

POSITIVES = "whole_training_set_similarity.trained encoder.positive_mean"
COLUMNS = {"linear probe": PROBE, "five labels a class": FEW_LABELS, "variance of negatives": VARIANCE}


def make_sweeps(make: Callable[..., paper.Sweep], weights: Sequence[float], sizes: Sequence[int]) -> list[paper.Sweep]:
    """The sweeps of weights against batch sizes, of which Figure 4 has those without VRNS and with lambda 30."""
    return [
        make("batch_size", settings.by_size(["simclr"], sizes), **AT_TWO_TENTHS),
        make("vrns_weight", {SIZE: sizes, WEIGHT: [f"{x:g}" for x in weights], SEED: SEEDS}, **AT_TWO_TENTHS),
    ]


SCALES = {
    "minutes": make_sweeps(settings.digits, (1, 10, 100), settings.FEW_SIZES),
    "cpu": make_sweeps(settings.cifar10, (0.3, 1, 3, 10), (32, 256)),
    "paper": make_sweeps(functools.partial(settings.paper, "cifar10"), (0.1, 0.3, 1, 3, 10, 100), settings.SIZES),
}


def make_table(rows: Sequence[paper.Row]) -> paper.Table:
    """Scores and similarities at each weight and batch size, the gain of each weight, and the picture."""
    sizes, weights = (sorted({float(row[path]) for row in rows}) for path in (SIZE, WEIGHT))
    table: list[dict[str, Any]] = []
    for m in sizes:
        for weight in weights:
            chosen = {SIZE: m, WEIGHT: weight}
            row: dict[str, Any] = {"m": int(m), "lambda": f"{weight:g}"}
            for column, path in COLUMNS.items():
                scale = 1 if path == VARIANCE else 100
                row[column] = paper.format_spread(paper.select(rows, path, chosen), scale=scale)
            row["s_pos mean"] = paper.format_spread(paper.select(rows, POSITIVES, chosen))
            table.append(row)
    effects = []
    for m in sizes:
        for weight in weights[1:]:
            for column in list(COLUMNS)[:2]:
                gains = paper.compare(rows, COLUMNS[column], {SIZE: m, WEIGHT: 0}, {SIZE: m, WEIGHT: weight}, scale=100)
                what = "linear probe" if column == "linear probe" else f"probe on {column}"
                claim = f"At m = {m:.0f}, VRNS with lambda {weight:g} raises the accuracy of the {what}"
                effects.append(claims.describe_effect(claim, gains))
    return paper.Table(table, effects, _draw(rows, sizes, weights))


def _draw(rows: Sequence[paper.Row], sizes: Sequence[float], weights: Sequence[float]) -> Figure:
    figure = Figure(figsize=(2 * study.COLUMN, 2.6), layout="constrained")
    places = np.arange(len(weights))
    colours = (study.BLUE, study.ORANGE, study.GREEN, study.RED, study.PURPLE)
    for axes, (name, column) in zip(figure.subplots(1, len(COLUMNS)), COLUMNS.items(), strict=True):
        scale = 1 if column == VARIANCE else 100
        for k, (m, colour) in enumerate(zip(sizes, colours, strict=False)):
            found = [paper.select(rows, column, {SIZE: m, WEIGHT: weight}) for weight in weights]
            scaled = [[scale * x for x in seeds] for seeds in found]
            beside = places + 0.12 * (k - (len(sizes) - 1) / 2)
            paper.plot_seeds(axes, beside, scaled, marker="o", color=colour, label=f"m = {m:.0f}")
        axes.set_xticks(places, [f"{weight:g}" for weight in weights])
        axes.set(xlabel="lambda", ylabel=name if scale == 1 else f"{name}, per cent")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(sizes))
    return figure


PAPER_TABLE = paper.Paper("vrns_weight", SCALES, make_table)

if __name__ == "__main__":
    paper.run_as_program(lambda: paper.main(PAPER_TABLE))
