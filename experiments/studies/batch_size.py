"""Batch size: how much the expected loss of a fixed set of embeddings depends on the size of the batches.

python -m experiments.studies.batch_size [--quick] [--out=runs/studies] [--seed=0]
"""

import sys
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from scipy import stats

from contrastive_jax import losses, pairwise, theory
from experiments.studies import study

TEMPERATURE = 0.5
DIMENSIONS = 16


class Row(NamedTuple):
    """A loss, its constant that grows with the batch, and its limit without that constant."""

    loss: Callable[[jax.Array, jax.Array], jax.Array]
    constant: Callable[[int], float]
    limit: Callable[[jax.Array, jax.Array], float]
    unbiased: bool = False


def _softmax(loss, constant, limit, **kwargs):
    return Row(lambda u, v: loss(u, v, temperature=TEMPERATURE, **kwargs).mean(), constant, limit)


def _limit(**kinds):
    return lambda u, v: float(theory.asymptotic_info_nce(u, v, temperature=TEMPERATURE, **kinds))


def _limit_of_dhel_sum(u, v):
    """`_limit` has the uniformity once; the form "sum" has it twice."""
    once = _limit(cross_view=False, within_view=True)(u, v)
    return 2 * once + float(jnp.sum(u * v, axis=-1).mean()) / TEMPERATURE


def _kcl(kernel):
    def loss(u, v):
        return losses.kcl(u, v, kernel=kernel).mean()

    return Row(loss, lambda m: 0.0, lambda u, v: float(loss(u, v)), unbiased=True)


LOSSES = {
    "info_nce": _softmax(losses.info_nce, np.log, _limit()),
    "simclr": _softmax(losses.simclr, lambda m: np.log(2 * m), _limit(within_view=True)),
    "dcl": _softmax(losses.dcl, lambda m: np.log(2 * m), _limit(within_view=True)),
    "dhel, mean": _softmax(losses.dhel, np.log, _limit(cross_view=False, within_view=True), form="mean"),
    "dhel, sum": _softmax(losses.dhel, lambda m: 2 * np.log(m), _limit_of_dhel_sum, form="sum"),
    "kcl, gaussian": _kcl("gaussian"),
    "kcl, log": _kcl("log"),
    "kcl, imq": _kcl("imq"),
}
QUICK = ("info_nce", "dhel, mean", "kcl, gaussian")
CONFIDENCE = 0.95
SIGMAS = 4.0  # allowed distance of an unbiased mean from its limit; one of 25 means exceeds it for one seed in 600


def batch_size(*, quick: bool, seed: int) -> study.Result:
    """Compare the mean loss of a fixed set of pairs, over random partitions into batches of m, with its limit.

    Koromilas 2024: the kernel losses are unbiased, and the InfoNCE family approaches its limit from one side.
    """
    n, partitions, sizes = (256, 16, (2, 16, 128, 256)) if quick else (1024, 32, (2, 8, 32, 128, 512, 1024))
    names = QUICK if quick else tuple(LOSSES)
    center, first, second = jax.random.normal(jax.random.key(seed), (3, n, DIMENSIONS), jnp.float64)
    u, v = (pairwise.normalize(center + 0.5 * noise) for noise in (first, second))
    orders = jax.vmap(lambda key: jax.random.permutation(key, n))(
        jax.random.split(jax.random.key(seed + 1), partitions)
    )
    rows = []
    for name in names:
        row = LOSSES[name]
        limit = row.limit(u, v)
        for m in sizes:
            means = _means(row.loss, u, v, orders, m) - row.constant(m)
            rows.append(_summarize(name, m, means, limit))
    return study.Result(rows, _checks(rows, names), _figure(rows, names, sizes))


def _means(loss, u, v, orders, m):
    """The mean loss of each partition into batches of m: [partitions]."""

    def of_partition(order):
        batches = (x[order].reshape(-1, m, DIMENSIONS) for x in (u, v))
        return jax.lax.map(lambda pair: loss(*pair), tuple(batches), batch_size=max(1, 256 // m)).mean()

    return np.asarray(jax.jit(lambda orders: jax.lax.map(of_partition, orders))(orders))


def _summarize(name, m, means, limit):
    error = means.std(ddof=1) / np.sqrt(len(means))
    reach = error * stats.t.ppf((1 + CONFIDENCE) / 2, len(means) - 1)
    return {
        "loss": name,
        "m": m,
        "limit": limit,
        "E[L] - constant": float(means.mean()),
        "95% interval": (float(means.mean() - reach), float(means.mean() + reach)),
        "bias": float(means.mean() - limit),
        "standard error": float(error),
    }


def _checks(rows, names):
    unbiased = [row for row in rows if LOSSES[row["loss"]].unbiased]
    # With the full set as the batch nothing is random: the standard error is rounding.
    sigmas = max(abs(row["bias"]) / (row["standard error"] + 1e-9) for row in unbiased)
    checks = [study.Check("kcl, every m: distance from the limit in standard errors", sigmas, SIGMAS)]
    for name in (name for name in names if not LOSSES[name].unbiased):
        bias = np.array([abs(row["bias"]) for row in rows if row["loss"] == name])
        order = np.log2(bias[-2] / bias[-1])
        checks.append(study.Check(f"{name}: by how much |bias| rises with m", float(np.diff(bias).max()), 0))
        checks.append(study.Check(f"{name}: |bias| halves as m doubles, error of the order", abs(order - 1), 0.2))
    return checks


def _figure(rows, names, sizes):
    figure = Figure(figsize=(2 * study.COLUMN, 2.7), layout="constrained")
    figure.suptitle("Expected loss of one set of embeddings against the size of the batch", fontsize=9)
    family, kernels = figure.subplots(1, 2)
    colors = (study.BLUE, study.ORANGE, study.GREEN, study.RED, study.PURPLE)
    looks = dict(zip(LOSSES, [*zip(colors, "os^vD", strict=True), *zip(colors, "os^", strict=False)], strict=True))
    for name in names:
        color, marker = looks[name]
        chosen = [row for row in rows if row["loss"] == name]
        bias = np.array([row["bias"] for row in chosen])
        reach = bias - [row["95% interval"][0] - row["limit"] for row in chosen]
        axes, shift = (kernels, {"o": 0.9, "s": 1.0, "^": 1.1}[marker]) if LOSSES[name].unbiased else (family, 1.0)
        look = {"color": color, "marker": marker, "markerfacecolor": "none", "capsize": 2}
        axes.errorbar(shift * np.array(sizes), bias, reach, label=name.split("kcl, ")[-1], **look)
    for axes, title in ((family, "InfoNCE family, its constant taken off"), (kernels, "KCL, by kernel")):
        axes.axhline(0, color=study.BLACK, linestyle="--", linewidth=1)
        axes.set_xscale("log", base=2)
        axes.set(title=title, xlabel="m, pairs in a batch", ylabel="mean loss $-$ limit, 95% interval")
        axes.legend()
    return figure


if __name__ == "__main__":
    sys.exit(study.main("batch_size", batch_size))
