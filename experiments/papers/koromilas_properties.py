"""Koromilas 2024: the properties of the embeddings against the temperature, and accuracy against their balance.

    python -m experiments.papers.koromilas_properties [--scale=minutes] [--out=runs/papers] [--workers=1]

Alignment, uniformity, Wasserstein uniformity and effective rank of the test images' embeddings, from the runs of
`koromilas_figure3` at one batch size. The claims: DHEL and KCL spread the embeddings more evenly than SimCLR, and over
more dimensions.
"""

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from scipy import stats

from experiments.papers import paper, settings
from experiments.papers.koromilas_figure3 import FAMILIES, GAMMA, Family, T, add_loss, make_sweeps
from experiments.papers.paper import PROBE, SEED, TEMPERATURE
from experiments.studies import study

GEOMETRY = "geometry.trained encoder."
PROPERTIES = {
    "alignment": "alignment",
    "uniformity": "uniformity",
    "Wasserstein uniformity": "wasserstein_uniformity",
    "effective rank": "effective_rank",
}
SCALES = {
    "minutes": make_sweeps(settings.digits, (256,)),
    "cpu": make_sweeps(settings.fashion_mnist, (128,)),
    "paper": make_sweeps(lambda name, grid, **fields: settings.paper("cifar10", name, grid, **fields), (256,)),
}


def make_table(rows: Sequence[paper.Row]) -> paper.Table:
    """The properties of each loss at each hyperparameter, the claims, and the picture."""
    rows = add_loss(rows)
    table: list[dict[str, Any]] = []
    for family in FAMILIES:
        for fields in _hyperparameters(rows, family):
            row: dict[str, Any] = {"loss": family.name, "hyperparameters": _format(fields)}
            chosen = {**family.fields, **fields}
            for name, column in PROPERTIES.items():
                row[name] = paper.format_spread(paper.select(rows, GEOMETRY + column, chosen))
            row["linear probe"] = paper.format_spread(paper.select(rows, PROBE, chosen), scale=100)
            table.append(row)
    return paper.Table(table, _describe(rows), _draw(rows))


def _hyperparameters(rows: Sequence[paper.Row], family: Family) -> list[dict[str, float]]:
    """The hyperparameters of a loss's runs."""
    names = (T, GAMMA) if "kernel" in str(family.fields) else (TEMPERATURE,)
    own = [row for row in rows if all(row.get(path) == value for path, value in family.fields.items())]
    return [dict(zip(names, found, strict=True)) for found in sorted({tuple(float(r[n]) for n in names) for r in own})]


def _format(fields: dict[str, float]) -> str:
    return ", ".join(f"{path.rpartition('.')[2]} {value:g}" for path, value in fields.items())


def _describe(rows: Sequence[paper.Row]) -> list[str]:
    said = []
    for family in FAMILIES[2:]:
        for name, falls, word in (("Wasserstein uniformity", True, "lower"), ("effective rank", False, "higher")):
            column = GEOMETRY + PROPERTIES[name]
            ours, simclr = (_best_by_seed(rows, one, column, falls) for one in (family, FAMILIES[0]))
            different = {seed: [ours[seed] - simclr[seed]] for seed in ours}
            claim = f"The {word[:-2]}est {name} over the hyperparameters is {word} with {family.name} than with SimCLR"
            said.append(paper.describe_effect(claim, different, falls=falls))
    for name, column in PROPERTIES.items():
        rank = stats.spearmanr([float(row[GEOMETRY + column]) for row in rows], [float(row[PROBE]) for row in rows])
        said.append(f"Rank correlation of {name} with the linear probe over {len(rows)} runs: {rank.statistic:+.2f}.")
    return said


def _best_by_seed(rows: Sequence[paper.Row], family: Family, column: str, falls: bool) -> dict[int, float]:
    best = min if falls else max
    own = [row for row in rows if all(row.get(path) == value for path, value in family.fields.items())]
    seeds = sorted({int(row[SEED]) for row in own})
    return {seed: best(float(row[column]) for row in own if int(row[SEED]) == seed) for seed in seeds}


def _draw(rows: Sequence[paper.Row]) -> Figure:
    figure = Figure(figsize=(2 * study.COLUMN, 4.6), layout="constrained")
    grid = figure.subplots(2, 3).ravel()
    for axes, (name, column) in zip(grid, PROPERTIES.items(), strict=False):
        for family in FAMILIES[:3]:
            found = [
                (fields[TEMPERATURE], paper.select(rows, GEOMETRY + column, {**family.fields, **fields}))
                for fields in _hyperparameters(rows, family)
            ]
            style: dict[str, Any] = {"color": family.colour, "marker": family.marker, "label": family.name}
            paper.plot_seeds(axes, [t for t, _ in found], [values for _, values in found], **style)
        axes.set_xscale("log")
        axes.set(xlabel="temperature", ylabel=name)
    for axes, name in zip(grid[4:], ("Wasserstein uniformity", "alignment"), strict=True):
        for family in FAMILIES:
            own = [row for row in rows if all(row.get(path) == value for path, value in family.fields.items())]
            both = np.array([(float(row[GEOMETRY + PROPERTIES[name]]), 100 * float(row[PROBE])) for row in own])
            axes.plot(*both.T, family.marker, color=family.colour, label=family.name, markersize=3)
        axes.set(xlabel=name, ylabel="linear probe, top-1 in per cent")
    grid[4].legend()
    return figure


PAPER_TABLE = paper.Paper("koromilas_properties", SCALES, make_table)

if __name__ == "__main__":
    sys.exit(paper.main(PAPER_TABLE))
