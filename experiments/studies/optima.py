"""Optima: every loss, minimised over the embeddings of a full batch, beside the simplex and its closed-form minimum.

python -m experiments.studies.optima [--quick] [--out=runs/studies] [--seed=0]
"""

import sys
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from contrastive_jax import losses, theory
from experiments.studies import sphere, study

LIMIT = 1e-3
QUICK = ("info_nce", "dcl", "dhel, mean", "siglip", "spectral", "kcl, gaussian", "kcl, riesz (t = -1.5)")


class Row(NamedTuple):
    """A loss under test, and the closed form of its least value."""

    loss: Callable[[jax.Array, jax.Array], jax.Array]
    minimum: Callable[[int], float]
    negative: Callable[[int], float] = theory.negative_similarity_optimum


def make_row(name: str, **kwargs) -> Row:
    """A loss of pairs by name."""
    fn = getattr(losses, name)
    return Row(lambda u, v: fn(u, v, **kwargs).mean(), lambda n: theory.minimum(name, m=n, **kwargs))


def make_view_row(name: str, **kwargs) -> Row:
    """A multi-view loss on three views; the third is the sum of the other two, which the loss normalises."""
    fn = getattr(losses, name)
    return Row(
        lambda u, v: fn(jnp.stack([u, v, u + v]), **kwargs).mean(),
        lambda n: theory.minimum(name, m=n, num_views=3, **kwargs),
    )


def make_siglip_within_view() -> Row:
    """SigLIP with within-view negatives, at a bias where it separates excessively without them."""

    def phi(s):
        return -jax.nn.softplus(-10 * s)

    def psi(s, n):
        return (n - 1) * jax.nn.softplus(10 * s)

    def loss(u, v):
        return losses.independently_additive(u, v, phi=phi, psi=lambda s: psi(s, len(u)), within_view=True).mean()

    return Row(loss, lambda n: float(2 * psi(jnp.float64(theory.negative_similarity_optimum(n)), n) - phi(1.0)))


LOSSES = {
    "info_nce": make_row("info_nce", temperature=0.5),
    "simclr": make_row("simclr", temperature=0.5),
    "dcl": make_row("dcl", temperature=0.5),
    "dhel, mean": make_row("dhel", temperature=0.5, form="mean"),
    "dhel, sum": make_row("dhel", temperature=0.5, form="sum"),
    "siglip": make_row("siglip", scale=10.0, bias=-10.0),
    "siglip + within-view": make_siglip_within_view(),
    "spectral": make_row("spectral")._replace(negative=lambda n: 0.0),
    "kcl, gaussian": make_row("kcl", kernel="gaussian"),
    "kcl, log": make_row("kcl", kernel="log"),
    "kcl, imq": make_row("kcl", kernel="imq"),
    "kcl, riesz (t = -1.5)": make_row("kcl", kernel="riesz", t=-1.5),
    "kcl, gaussian_riesz": make_row("kcl", kernel="gaussian_riesz"),
    "align_uniform": make_row("align_uniform"),
    "sup_con, labels differ": Row(
        lambda u, v: losses.sup_con(u, v, jnp.arange(len(u)), temperature=0.5).mean(),
        lambda n: theory.minimum("sup_con", m=n, temperature=0.5),
    ),
    "multi_view_info_nce": make_view_row("multi_view_info_nce", temperature=0.5),
    "multi_view_dhel": make_view_row("multi_view_dhel", temperature=0.5),
}


def optima(*, quick: bool, seed: int) -> study.Result:
    """Minimise every loss over n embeddings in n dimensions.

    Compared with Theorem 5.1 (Lee 2025) and Theorems 4.1 and 6.1 (Koromilas 2024).
    """
    names, sizes, starts = (QUICK, (4,), 1) if quick else (tuple(LOSSES), (4, 8, 16), 3)
    rows = []
    for name in names:
        row = LOSSES[name]
        minimize = sphere.make_minimizer(row.loss)
        for n in sizes:
            rows.append(_measure(name, row, n, [minimize(n=n, d=n, seed=seed + k) for k in range(starts)]))
    worst = {key: max(row[key] for row in rows) for key in ERRORS}
    checks = [study.Check(f"largest {key} of all losses, n and starts", value, LIMIT) for key, value in worst.items()]
    return study.Result(rows, checks, _figure(rows, names, sizes))


ERRORS = ("error of s_pos", "error of s_neg", "error of minimum")


def _measure(name, row, n, found):
    """The largest error over all pairs and starts."""
    target = row.negative(n)
    minimum = row.minimum(n)
    errors = (
        max(np.abs(sphere.positives(x.u, x.v) - 1).max() for x in found),
        max(np.abs(sphere.negatives(x.u, x.v) - target).max() for x in found),
        max(abs(x.loss - minimum) for x in found),
    )
    measured = {
        "s_neg, predicted": float(target),
        "s_neg, mean measured": float(np.mean([sphere.negatives(x.u, x.v).mean() for x in found])),
        "minimum, predicted": float(minimum),
        "minimum, measured": min(x.loss for x in found),
    }
    return {"loss": name, "n": n} | measured | dict(zip(ERRORS, map(float, errors), strict=True))


def _figure(rows, names, sizes):
    figure = Figure(figsize=(2 * study.COLUMN, 3.6), layout="constrained")
    figure.suptitle("Full-batch optima: largest error over all pairs and starts", fontsize=9)
    panels = figure.subplots(1, 3, sharey=True)
    looks = [(study.BLUE, "o"), (study.ORANGE, "s"), (study.GREEN, "^")]
    for axes, key in zip(panels, ERRORS, strict=True):
        for n, (color, marker) in zip(sizes, looks, strict=False):
            errors = [max(row[key], 1e-16) for row in rows if row["n"] == n]
            axes.plot(errors, range(len(names)), marker, color=color, markerfacecolor="none", label=f"n = {n}")
        axes.axvline(LIMIT, color=study.BLACK, linestyle="--", linewidth=1, label="limit")
        axes.set(xscale="log", xlim=(1e-17, 1e-1), title=key.replace("_pos", "$_{pos}$").replace("_neg", "$_{neg}$"))
        axes.set_xlabel("absolute error")
        axes.grid(axis="y", alpha=0.3)
    panels[0].set_yticks(range(len(names)), names)
    panels[0].invert_yaxis()
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


if __name__ == "__main__":
    sys.exit(study.main("optima", optima))
