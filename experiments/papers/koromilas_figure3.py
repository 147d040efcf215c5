"""Koromilas 2024, Figure 3: accuracy against the batch size m, the median and quartiles over the hyperparameters.

    python -m experiments.papers.koromilas_figure3 [--scale=minutes] [--out=runs/papers] [--workers=1]

SimCLR, DCL and DHEL over temperatures, KCL with the Gaussian and the logarithmic kernel over t and gamma; the grids are
ours. DHEL is the paper's own, `form="sum"`. In the authors' logarithmic kernel the positive term lacks a half, so their
gamma of 16 is 8 here. Tested: whether at the least m DHEL and KCL have a higher median than SimCLR and quartiles that
lie closer together, and whether their median falls less from the greatest m to the least.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from experiments.papers import claims, paper, settings
from experiments.papers.paper import LOSS, PROBE, SEED, SIZE, TEMPERATURE
from experiments.papers.settings import SEEDS
from experiments.studies import study

TEMPERATURES = (0.1, 0.2, 0.5, 1.0)
KERNEL, T, GAMMA, FORM = "loss.kwargs.kernel", "loss.kwargs.t", "loss.kwargs.gamma", "loss.kwargs.form"


class Family(NamedTuple):
    """A loss and the hyperparameters that it is taken over."""

    name: str
    fields: Mapping[str, str]  # that choose its runs
    colour: str
    marker: str


FAMILIES = (
    Family("SimCLR", {LOSS: "simclr"}, study.BLUE, "o"),
    Family("DCL", {LOSS: "dcl"}, study.SKY, "s"),
    Family("DHEL", {LOSS: "dhel", FORM: "sum"}, study.GREEN, "^"),
    Family("KCL, Gaussian", {LOSS: "kcl", KERNEL: "gaussian"}, study.ORANGE, "D"),
    Family("KCL, log", {LOSS: "kcl", KERNEL: "log"}, study.RED, "v"),
)


def make_sweeps(
    make: Callable[..., paper.Sweep], sizes: Sequence[int], temperatures: Sequence[float] = TEMPERATURES
) -> list[paper.Sweep]:
    """The sweeps: of losses with a temperature, of DHEL, whose form the others do not have, and of KCL."""
    last = {SIZE: sizes, SEED: SEEDS}
    return [
        make("losses", {LOSS: ("simclr", "dcl"), TEMPERATURE: temperatures, **last}),
        make("dhel", {FORM: ("sum",), TEMPERATURE: temperatures, **last}, **{LOSS: "dhel"}),
        make("kcl", {KERNEL: ("gaussian", "log"), T: (1, 2), GAMMA: (8, 16), **last}, **{LOSS: "kcl"}),
    ]


def _paper(name: str, grid: Mapping[str, Sequence[Any]], **fields: Any) -> paper.Sweep:
    return settings.paper("cifar10", name, grid, **fields)


SCALES = {
    "minutes": make_sweeps(settings.digits, settings.FEW_SIZES),
    "cpu": make_sweeps(settings.fashion_mnist, (32, 128, 512)),
    "paper": make_sweeps(_paper, settings.SIZES),
}


def add_loss(rows: Sequence[paper.Row]) -> list[paper.Row]:
    """The runs with the field `loss.name` also where their sweep has one loss."""
    return [{LOSS: row["sweep"].rpartition("_")[2], **row} for row in rows]


def list_scores(rows: Sequence[paper.Row], family: Family, m: int, column: str = PROBE) -> np.ndarray:
    """A column of all runs of a loss at a batch size, [hyperparameters, seeds]."""
    found = paper.select(rows, column, {**family.fields, SIZE: m})  # ordered by seed
    seeds = {row[SEED] for row in rows}
    return np.reshape(found, (len(seeds), -1)).T


def make_table(rows: Sequence[paper.Row]) -> paper.Table:
    """Medians and quartiles over hyperparameters and seeds, the claims, and the picture."""
    rows = add_loss(rows)
    sizes = sorted({int(row[SIZE]) for row in rows})
    scores = {family.name: {m: 100 * list_scores(rows, family, m) for m in sizes} for family in FAMILIES}
    table: list[dict[str, Any]] = []
    for name, found in scores.items():
        for m, values in found.items():
            low, middle, high = np.quantile(values, (0.25, 0.5, 0.75))
            medians = np.median(values, axis=0)
            table.append(
                {
                    "loss": name,
                    "m": m,
                    "linear probe, median": f"{middle:.1f}",
                    "25% to 75%": f"{low:.1f} to {high:.1f}",
                    "best": f"{values.max():.1f}",
                    "median of each seed": _format_medians(medians),
                }
            )
    return paper.Table(table, list(_describe(scores, sizes)), _draw(scores, sizes))


def _format_medians(medians: np.ndarray) -> str:
    spread = f" ± {statistics.stdev(medians):.2f}" if len(medians) > 1 else ""
    return f"{statistics.mean(medians):.1f}{spread}"


def _describe(scores: Mapping[str, Mapping[int, np.ndarray]], sizes: Sequence[int]) -> list[claims.Effect]:
    least, most = sizes[0], sizes[-1]
    medians = {name: {m: np.median(values, axis=0) for m, values in found.items()} for name, found in scores.items()}
    said = []
    for family in FAMILIES[2:]:
        above = medians[family.name][least] - medians["SimCLR"][least]
        said.append(
            claims.describe_effect(f"At m = {least} the median of {family.name} is above SimCLR's", _by_seed(above))
        )
        falls = [medians[name][most] - medians[name][least] for name in (family.name, "SimCLR")]
        said.append(
            claims.describe_effect(
                f"From m = {most} to {least} the median of {family.name} falls less than SimCLR's",
                _by_seed(falls[0] - falls[1]),
                falls=True,
            )
        )
        wider = [
            np.subtract(*np.quantile(scores[name][least], (0.75, 0.25), axis=0)) for name in (family.name, "SimCLR")
        ]
        said.append(
            claims.describe_effect(
                f"At m = {least} the quartiles of {family.name} lie closer together than SimCLR's",
                _by_seed(wider[0] - wider[1]),
                falls=True,
            )
        )
    return said


def _by_seed(values: np.ndarray) -> dict[int, list[float]]:
    return {seed: [float(x)] for seed, x in enumerate(values)}


def _draw(scores: Mapping[str, Mapping[int, np.ndarray]], sizes: Sequence[int]) -> Figure:
    figure = Figure(figsize=(study.COLUMN, 3.0), layout="constrained")
    axes = figure.subplots()
    for k, family in enumerate(FAMILIES):
        quantiles = np.array([np.quantile(scores[family.name][m], (0.25, 0.5, 0.75)) for m in sizes])
        places = np.array(sizes) * 2 ** (0.08 * (k - len(FAMILIES) // 2))  # side by side
        errors = np.abs(quantiles[:, [0, 2]] - quantiles[:, [1]]).T
        style: dict[str, Any] = {"color": family.colour, "marker": family.marker, "label": family.name}
        axes.errorbar(places, quantiles[:, 1], errors, capsize=2, **style)
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, map(str, sizes))
    axes.set(xlabel="m", ylabel="linear probe, top-1 in per cent")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


PAPER_TABLE = paper.Paper("koromilas_figure3", SCALES, make_table)

if __name__ == "__main__":
    paper.run_as_program(lambda: paper.main(PAPER_TABLE))
