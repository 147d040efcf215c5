"""Remedies for small batches: VRNS, a queue, SogCLR and gradient caching, where 32 pairs are compared at a time.

    python -m experiments.papers.estimators [--scale=minutes] [--out=runs/papers] [--workers=1]

Every run takes the same number of steps of 256 images. They are compared in sets of 32, except with gradient caching,
which processes 32 at a time and compares all 256. Not a table of either paper: what each remedy gives for the variance
of the negatives and for the accuracy.
"""

from collections.abc import Callable, Sequence
from typing import Any

from matplotlib.figure import Figure

from experiments.papers import claims, paper, settings
from experiments.papers.paper import FEW_LABELS, LOSS, PROBE, SEED, VARIANCE, WEIGHT
from experiments.papers.settings import AT_TWO_TENTHS, SEEDS, VRNS
from experiments.studies import study

SETS = {"batch_size": 256, "contrast_size": 32}
METHODS: dict[str, dict[str, Any]] = {  # of each its name and what it sets
    "SimCLR": SETS,
    "VRNS": {**SETS, WEIGHT: VRNS},
    "Queue": {**SETS, LOSS: "moco"},
    "Queue, momentum encoder": {**SETS, LOSS: "moco", "estimator.encoder_momentum": 0.99},
    "SogCLR": {**SETS, LOSS: "sogclr"},
    "Gradient caching": {"batch_size": 32, "contrast_size": 256},
}
COLUMNS = {"linear probe": PROBE, "five labels a class": FEW_LABELS, "variance of negatives": VARIANCE}
MEAN = "whole_training_set_similarity.trained encoder.negative_mean"
COLLAPSED = 0.5  # of the mean of the negatives: beyond it a small variance is no merit


def make_sweeps(make: Callable[..., paper.Sweep]) -> list[paper.Sweep]:
    """A sweep of the seeds for each method."""
    return [make(_folder(name), {SEED: SEEDS}, **{**AT_TWO_TENTHS, **fields}) for name, fields in METHODS.items()]


def _scale(column: str) -> float:
    return 1.0 if COLUMNS[column] == VARIANCE else 100.0


def _folder(name: str) -> str:
    return f"estimators_{name.lower().replace(', ', '_').replace(' ', '_')}"


SCALES = {
    "minutes": make_sweeps(settings.digits),
    "cpu": make_sweeps(settings.cifar10),
    "paper": make_sweeps(lambda name, grid, **fields: settings.paper("cifar10", name, grid, **fields)),
}


def make_table(rows: Sequence[paper.Row]) -> paper.Table:
    """The scores of each method, what each changes against SimCLR, and the picture."""
    found = {
        name: {
            column: paper.select([row for row in rows if row["sweep"].endswith(_folder(name))], path, {})
            for column, path in {**COLUMNS, "mean of negatives": MEAN}.items()
        }
        for name in METHODS
    }
    table: list[dict[str, Any]] = []
    for name, values in found.items():
        row: dict[str, Any] = {"method": name, "m": METHODS[name]["contrast_size"]}
        for column in COLUMNS:
            row[column] = paper.format_spread(values[column], scale=_scale(column))
        row["mean of negatives"] = paper.format_spread(values["mean of negatives"])
        table.append(row)
    effects = []
    for name in list(METHODS)[1:]:
        method = name.replace(", ", " with a ")
        for column, claim, falls in (
            ("linear probe", f"{method} raises the accuracy of the linear probe", False),
            ("variance of negatives", f"{method} lowers the variance of negatives", True),
        ):
            pairs = zip(found["SimCLR"][column], found[name][column], strict=True)
            different = {seed: [_scale(column) * (b - a)] for seed, (a, b) in enumerate(pairs)}
            if falls and max(found[name]["mean of negatives"]) > COLLAPSED:
                why = "collapsed; its negatives are alike, and so their variance says nothing."
                effects.append(claims.Effect(method, why, 1.0))
            else:
                effects.append(claims.describe_effect(claim, different, falls=falls))
    return paper.Table(table, effects, _draw(found))


def _draw(found: dict[str, dict[str, list[float]]]) -> Figure:
    figure = Figure(figsize=(2 * study.COLUMN, 2.2), layout="constrained")
    places = range(len(METHODS))
    for axes, column in zip(figure.subplots(1, len(COLUMNS), sharey=True), COLUMNS, strict=True):
        for place, values in zip(places, found.values(), strict=True):
            axes.plot(
                [_scale(column) * x for x in values[column]],
                [place] * len(values[column]),
                "o",
                color=study.BLUE,
                alpha=0.7,
            )
        axes.set(xlabel=column if _scale(column) == 1 else f"{column}, per cent")
        axes.grid(axis="y", linewidth=0.4)
    figure.axes[0].set_yticks(places, list(METHODS))
    figure.axes[0].invert_yaxis()
    return figure


PAPER_TABLE = paper.Paper("estimators", SCALES, make_table)

if __name__ == "__main__":
    paper.run_as_program(lambda: paper.main(PAPER_TABLE))
