"""Lee 2025, Table 1: the variance of negative similarities against the batch size m, SimCLR with and without VRNS.

    python -m experiments.papers.lee_table1 [--scale=minutes] [--out=runs/papers]

The paper trains ResNet-18 on CIFAR-100 and takes 5,000 augmented positive pairs of the training data. `minutes` takes a
small perceptron on the digits, whose 1,437 images are all measured. `paper` is their protocol, for accelerators; it has
not been run. The claims: VRNS lowers the variance at every m, and without it the variance falls as m grows.
"""

import statistics
import sys
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from experiments.papers import paper
from experiments.studies import study

SAMPLE = "training_set_similarity.trained encoder.cross_view.variance"
WHOLE = "whole_training_set_similarity.trained encoder.negative_variance"
WEIGHT = 30.0
SIZES = (32, 64, 128, 256, 512)
PAPER = {  # m: without VRNS, with it
    32: (0.1649, 0.1008),
    64: (0.1505, 0.0952),
    128: (0.1444, 0.0929),
    256: (0.1404, 0.0921),
    512: (0.1396, 0.0917),
}
GRID = f"batch_size={','.join(map(str, SIZES))} vrns_weight=0,{WEIGHT:g} seed=0,1,2"
# The scores are not in this table: as little of them as there can be.
UNSCORED = {"evaluation.raw_pixels": False, "evaluation.probe_epochs": 1, "evaluation.draws": 1}
SMALL = {"model.name": "mlp", "model.kwargs.hidden": (128,), "epochs": 30, "log.tensorboard_every": 50}
SCALES = {
    "minutes": paper.Scale("configs/digits.py", {"loss.kwargs.temperature": 0.2, **SMALL, **UNSCORED}, GRID, "vmap"),
    "paper": paper.Scale("configs/cifar100.py", {"loss.kwargs.temperature": 0.2}, GRID),
}


def make_table(rows: Sequence[paper.Row]) -> paper.Table:
    """The table, the two claims, and the picture, from the runs."""
    table: list[dict[str, Any]] = []
    for m in SIZES:
        row: dict[str, Any] = {"m": m}
        for k, (name, weight) in enumerate((("SimCLR", 0.0), ("with VRNS", WEIGHT))):
            for where, column in (("5,000 pairs", SAMPLE), ("whole set", WHOLE)):
                values = paper.of_seeds(rows, column, batch_size=m, vrns_weight=weight)
                row[f"{name}, {where}"] = paper.format_spread(values)
            row[f"{name}, paper"] = PAPER[m][k]
        table.append(row)
    plain = {m: paper.of_seeds(rows, WHOLE, batch_size=m, vrns_weight=0.0) for m in SIZES}
    reduced = {m: paper.of_seeds(rows, WHOLE, batch_size=m, vrns_weight=WEIGHT) for m in SIZES}
    lower = [b - a for m in SIZES for a, b in zip(plain[m], reduced[m], strict=True)]
    falls = [b - a for a, b in zip(plain[SIZES[0]], plain[SIZES[-1]], strict=True)]
    effects = [
        paper.describe_effect("VRNS lowers the variance of the negatives over the training set", lower),
        paper.describe_effect(f"Without VRNS that variance is lower at m = {SIZES[-1]} than at {SIZES[0]}", falls),
    ]
    return paper.Table(table, effects, _draw(plain, reduced))


def _draw(plain: dict[int, list[float]], reduced: dict[int, list[float]]) -> Figure:
    figure = Figure(figsize=(study.COLUMN, 2.6), layout="constrained")
    axes = figure.subplots()
    for name, found, k, colour in (("SimCLR", plain, 0, study.BLUE), ("with VRNS", reduced, 1, study.ORANGE)):
        means = [statistics.mean(found[m]) for m in SIZES]
        errors = [statistics.stdev(found[m]) if len(found[m]) > 1 else 0.0 for m in SIZES]
        axes.errorbar(SIZES, means, errors, marker="o", color=colour, label=name)
        axes.plot(
            SIZES, [PAPER[m][k] for m in SIZES], ":", marker="x", color=colour, label=f"{name}, paper (CIFAR-100)"
        )
    axes.set_xscale("log", base=2)
    axes.set(xlabel="m", ylabel="variance of negative similarities", ylim=(0, None))
    axes.legend()
    return figure


if __name__ == "__main__":
    sys.exit(paper.main("lee_table1", SCALES, make_table))
