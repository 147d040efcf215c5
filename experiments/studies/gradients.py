"""Gradients: how hard InfoNCE pushes a negative pair apart, measured and by its formula.

python -m experiments.studies.gradients [--quick] [--out=runs/studies] [--seed=0]
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from contrastive_jax import losses, pairwise, theory
from experiments.studies import study

TEMPERATURE = 0.2
ANCHORS = 8  # measured in each batch; all of a smaller one


def gradients(*, quick: bool, seed: int) -> study.Result:
    """Differentiate the loss along directions that change a single negative similarity; compare with Theorem 5.6.

    The batches have m = 2 to 1,024 pairs, and each contains the one before (Lee 2025).
    """
    sizes = [2**k for k in range(1, 4 if quick else 11)]
    u, v = _embeddings(2 * max(sizes), max(sizes), seed)
    rows = [_measure(u[:m], v[:m]) for m in sizes]
    same = np.array([row["same pair"] for row in rows])
    checks = [
        study.Check("greatest relative error of all pairs", max(row["relative error"] for row in rows), 1e-6),
        study.Check("by how much a gradient falls below 0", max(-row["range"][0] for row in rows), 0),
        study.Check("by how much the gradient of one pair rises with m", float(np.diff(same).max()), 0),
    ]
    return study.Result(rows, checks, _figure(rows))


def _embeddings(d, n, seed):
    """Pairs whose similarities spread like those of trained embeddings, yet linearly independent."""
    spread = jnp.where(jnp.arange(d) < 16, 1.0, 1.0 / jnp.sqrt(d))
    center, *noise = jax.random.normal(jax.random.key(seed), (3, n, d)) * spread[None, None]
    return tuple(pairwise.normalize(center + 0.5 * x) for x in noise)


def _measure(u, v):
    m = len(u)
    gradient = _gradient(u, v)
    formula = theory.info_nce_negative_gradient(u @ v.T, temperature=TEMPERATURE)
    anchors = np.arange(min(m, ANCHORS))
    measured = np.array([_along_similarities(gradient[i], u[i], v) for i in anchors])
    negative = anchors[:, None] != np.arange(m)
    measured, formula = measured[negative], np.asarray(formula)[anchors][negative]
    return {
        "m": m,
        "pairs": measured.size,
        "mean, formula": float(formula.mean()),
        "mean, measured": float(measured.mean()),
        "range": (float(measured.min()), float(measured.max())),
        "same pair": float(measured[0]),
        "relative error": float(np.abs(measured / formula - 1).max()),
    }


@jax.jit
@jax.grad
def _gradient(u, v):
    return losses.info_nce(u, v, temperature=TEMPERATURE).mean()


@jax.jit
def _along_similarities(gradient, anchor, v):
    """The derivatives [m] along directions of which the j-th changes only the anchor's similarity to v_j, at unit rate.

    They leave the other similarities and the anchor's norm as they are: the columns of the pseudo-inverse of all those
    vectors.
    """
    rows = jnp.concatenate([v, anchor[None]])
    return jnp.linalg.solve(rows @ rows.T, rows @ gradient)[:-1]


def _figure(rows):
    figure = Figure(figsize=(study.COLUMN, 2.7), layout="constrained")
    axes = figure.subplots()
    m = [row["m"] for row in rows]
    low, high = np.array([row["range"] for row in rows]).T
    axes.fill_between(m, low, high, color=study.SKY, alpha=0.35, label="measured, all pairs")
    axes.plot(m, [row["mean, measured"] for row in rows], "o", color=study.BLUE, label="measured, mean")
    axes.plot(m, [row["mean, formula"] for row in rows], color=study.BLACK, label="Theorem 5.6, mean")
    axes.plot(m, [row["same pair"] for row in rows], "s--", color=study.RED, label="measured, one pair", markersize=3)
    axes.set_xscale("log", base=2)
    axes.set(
        yscale="log",
        xlabel="m, pairs in the batch",
        ylabel=r"$\partial L_{InfoNCE} / \partial s_{ij}$",
        title=f"How hard a negative pair is pushed apart (t = {TEMPERATURE})",
    )
    axes.legend(loc="lower left")
    return figure


if __name__ == "__main__":
    sys.exit(study.main("gradients", gradients))
