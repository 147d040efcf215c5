"""Koromilas 2024: the properties of the embeddings against the temperature, and accuracy against their balance.

    python -m experiments.papers.koromilas_properties [--scale=minutes] [--out=runs/papers] [--workers=1]

Alignment, uniformity, Wasserstein uniformity and effective rank of the test images' embeddings, from the runs of
`koromilas_figure3` at one batch size. The balance is alignment + uniformity, the sum that Wang and Isola 2020 train
with: the lower, the better both are together. Tested: whether DHEL and KCL reach a lower balance than SimCLR, and, each
at the hyperparameters of its lowest balance, more even embeddings of more dimensions.
"""

import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from scipy import stats

from experiments.papers import claims, paper, settings
from experiments.papers.koromilas_figure3 import FAMILIES, GAMMA, Family, T, add_loss, make_sweeps
from experiments.papers.paper import PROBE, SEED, TEMPERATURE
from experiments.studies import study

GEOMETRY = "geometry.trained encoder."
BALANCE = "alignment + uniformity"
PROPERTIES = {
    "alignment": f"{GEOMETRY}alignment",
    "uniformity": f"{GEOMETRY}uniformity",
    "Wasserstein uniformity": f"{GEOMETRY}wasserstein_uniformity",
    "effective rank": f"{GEOMETRY}effective_rank",
    BALANCE: BALANCE,
}
SCALES = {
    "minutes": make_sweeps(settings.digits, (256,)),
    "cpu": make_sweeps(settings.fashion_mnist, (128,)),
    "paper": make_sweeps(lambda name, grid, **fields: settings.paper("cifar10", name, grid, **fields), (256,)),
}


def make_table(rows: Sequence[paper.Row]) -> paper.Table:
    """The properties of each loss at each hyperparameter, the claims, and the picture."""
    rows = [{**row, BALANCE: repr(add_up(row))} for row in add_loss(rows)]
    table: list[dict[str, Any]] = []
    for family in FAMILIES:
        for fields in list_hyperparameters(rows, family):
            row: dict[str, Any] = {"loss": family.name, "hyperparameters": _format(fields)}
            chosen = {**family.fields, **fields}
            for name, column in PROPERTIES.items():
                row[name] = paper.format_spread(paper.select(rows, column, chosen))
            row["linear probe"] = paper.format_spread(paper.select(rows, PROBE, chosen), scale=100)
            table.append(row)
    return paper.Table(table, [*_compare_families(rows), *_correlate(rows)], _draw(rows))


def add_up(row: paper.Row) -> float:
    """The balance of a run."""
    return sum(paper.read_number(row, PROPERTIES[name]) for name in ("alignment", "uniformity"))


def list_hyperparameters(rows: Sequence[paper.Row], family: Family) -> list[dict[str, float]]:
    """The hyperparameters of a loss's runs."""
    names = (T, GAMMA) if family.fields[paper.LOSS] == "kcl" else (TEMPERATURE,)
    own = paper.choose(rows, family.fields)
    return [dict(zip(names, found, strict=True)) for found in sorted({tuple(float(r[n]) for n in names) for r in own})]


def find_best(rows: Sequence[paper.Row], family: Family) -> dict[str, float]:
    """The hyperparameters of a loss with the lowest mean balance."""
    found = list_hyperparameters(rows, family)
    return min(found, key=lambda fields: statistics.mean(paper.select(rows, BALANCE, {**family.fields, **fields})))


def _format(fields: dict[str, float]) -> str:
    return ", ".join(f"{path.rpartition('.')[2]} {value:g}" for path, value in fields.items())


def _compare_families(rows: Sequence[paper.Row]) -> list[claims.Effect]:
    said = []
    best = {family.name: {**family.fields, **find_best(rows, family)} for family in FAMILIES}
    for family in FAMILIES[2:]:
        for name, falls in ((BALANCE, True), ("Wasserstein uniformity", True), ("effective rank", False)):
            found = paper.compare(rows, PROPERTIES[name], best["SimCLR"], best[family.name])
            word = "lower" if falls else "higher"
            claim = f"At the lowest balance of each, {name} is {word} with {family.name} than with SimCLR"
            said.append(claims.describe_effect(claim, found, falls=falls))
    chosen = [f"{family.name} at {_format(find_best(rows, family))}" for family in FAMILIES]
    return [*said, claims.Effect("The lowest balance of each", f"{'; '.join(chosen)}.")]


def _correlate(rows: Sequence[paper.Row]) -> list[claims.Effect]:
    """The rank correlation of each property with the accuracy, within each seed."""
    said = []
    for name, column in PROPERTIES.items():
        found = []
        for seed in sorted({row[SEED] for row in rows}):
            own = [row for row in rows if row[SEED] == seed]
            both = ([paper.read_number(row, path) for row in own] for path in (column, PROBE))
            found.append(float(stats.spearmanr(*both).statistic))
        claim = f"Rank correlation of {name} with the linear probe over a seed's runs"
        said.append(claims.Effect(claim, f"{paper.format_spread(found)}."))
    return said


def _draw(rows: Sequence[paper.Row]) -> Figure:
    figure = Figure(figsize=(2 * study.COLUMN, 4.8), layout="constrained")
    *panels, last = figure.subplots(2, 3).ravel()
    for axes, (name, column) in zip(panels, PROPERTIES.items(), strict=True):
        for family in FAMILIES[:3]:
            found = [
                (fields[TEMPERATURE], paper.select(rows, column, {**family.fields, **fields}))
                for fields in list_hyperparameters(rows, family)
            ]
            style: dict[str, Any] = {"color": family.colour, "marker": family.marker}
            paper.plot_seeds(axes, [t for t, _ in found], [values for _, values in found], **style)
        axes.set_xscale("log")
        axes.set_xticks([t for t, _ in found], [f"{t:g}" for t, _ in found])
        axes.minorticks_off()
        axes.set(xlabel="temperature", ylabel=name)
    for family in FAMILIES:
        own = paper.choose(rows, family.fields)
        both = np.array([(float(row[BALANCE]), 100 * float(row[PROBE])) for row in own])
        last.plot(*both.T, family.marker, color=family.colour, label=family.name, markersize=3)
    last.set(xlabel=BALANCE, ylabel="linear probe, top-1 in per cent")
    figure.legend(*last.get_legend_handles_labels(), loc="outside lower center", ncols=len(FAMILIES))
    return figure


PAPER_TABLE = paper.Paper("koromilas_properties", SCALES, make_table)

if __name__ == "__main__":
    paper.run_as_program(lambda: paper.main(PAPER_TABLE))
