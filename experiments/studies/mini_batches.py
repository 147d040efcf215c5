"""Mini-batches: how much fixed and reshuffled partitions spread the negative similarities, and what VRNS changes.

python -m experiments.studies.mini_batches [--quick] [--out=runs/studies] [--seed=0]
"""

import itertools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

from contrastive_jax import losses, pairwise, theory
from experiments.studies import sphere, study

LOSSES = {"simclr": losses.simclr, "dcl": losses.dcl, "dhel": losses.dhel}
TEMPERATURE = 0.5
WEIGHTS = (0.0, 30.0)  # of VRNS; 30 as in Table 1 of Lee 2025
PARTITIONS = ("fixed", "reshuffled")


def mini_batches(*, quick: bool, seed: int) -> study.Result:
    """Descend on mini-batches of m out of n instances, fixed or reshuffled at every pass.

    The variance of all n (n-1) negative similarities is compared with the interval of Theorem 5.5 (Lee 2025).
    """
    n, epochs, names, starts = (8, 500, ("simclr",), 1) if quick else (32, 2000, tuple(LOSSES), 3)
    sizes = [2, n] if quick else [2, 4, 8, 16, 32]
    rows = [row for name in names for m in sizes for row in _measure(name, n, m, epochs, seed + np.arange(starts))]
    return study.Result(rows, _checks(rows, n), _figure(rows, n, names, sizes))


def _measure(name, n, m, epochs, seeds):
    """A row for each partition and weight of VRNS, over all starts."""
    found = _descend(name, n, m, epochs, seeds)
    least, greatest = theory.negative_variance_bounds(n, m)
    for (partition, weight), pairs in zip(itertools.product(PARTITIONS, WEIGHTS), found, strict=True):
        negatives = np.array([sphere.negatives(u, v) for u, v in pairs])
        variances = negatives.var(axis=1)
        yield {
            "loss": name,
            "m": m,
            "partition": partition,
            "VRNS": weight,
            "interval": (least, greatest),
            "variance": float(variances.mean()),
            "of the starts": (float(variances.min()), float(variances.max())),
            "mean s_neg": float(negatives.mean()),
            "least s_pos": float(min(sphere.positives(u, v).min() for u, v in pairs)),
        }


def _descend(name, n, m, epochs, seeds):
    """Embeddings [partition x weight, seed, 2, n, n] after so many passes over the set, with Adam.

    The batches of a pass share no embedding, so one step on all of them equals a step on each in turn.
    """

    def loss(x, order, weight):
        batches = pairwise.normalize(x.reshape(-1, n)).reshape(2, n, n)[:, order].reshape(2, n // m, m, n)

        def of_batch(u, v):
            contrastive = LOSSES[name](u, v, temperature=TEMPERATURE)
            return (contrastive + weight * losses.vrns(u, v, num_instances=n)).mean()

        return jax.vmap(of_batch)(*batches).mean()

    optimizer = optax.adam(optax.cosine_decay_schedule(0.05, epochs), eps=1e-12)

    def run(reshuffled, weight, seed):
        def epoch(carry, key):
            x, state = carry
            order = jnp.where(reshuffled, jax.random.permutation(key, n), jnp.arange(n))
            updates, state = optimizer.update(jax.grad(loss)(x, order, weight), state)
            return (pairwise.normalize(optax.apply_updates(x, updates)), state), None

        start, keys = jax.random.split(jax.random.key(seed))
        x = pairwise.normalize(jax.random.normal(start, (2 * n, n), jnp.float64))
        (x, _), _ = jax.lax.scan(epoch, (x, optimizer.init(x)), jax.random.split(keys, epochs))
        return x.reshape(2, n, n)

    settings = [jnp.array(x) for x in zip(*itertools.product((False, True), WEIGHTS), strict=True)]
    over_seeds = jax.vmap(run, (None, None, 0))
    return np.asarray(jax.jit(jax.vmap(over_seeds, (0, 0, None)))(*settings, jnp.asarray(seeds)))


def _checks(rows, n):
    optimal = [row for row in rows if row["partition"] == "fixed" and not row["VRNS"]]
    outside = [
        max(row["interval"][0] - row["of the starts"][0], row["of the starts"][1] - row["interval"][1])
        for row in optimal
    ]
    target = theory.negative_similarity_optimum(n)
    raised = [b["variance"] - a["variance"] for a, b in itertools.pairwise(rows) if b["VRNS"]]
    return [
        study.Check("fixed partitions: how far a variance lies outside the interval", max(outside), 1e-4),
        study.Check("fixed partitions: greatest 1 - s_pos", max(1 - row["least s_pos"] for row in optimal), 1e-3),
        study.Check(
            "fixed partitions: error of the mean s_neg", max(abs(row["mean s_neg"] - target) for row in optimal), 1e-3
        ),
        study.Check("either partition: by how much VRNS raises the variance", max(raised), 1e-4),
    ]


def _figure(rows, n, names, sizes):
    figure = Figure(figsize=(2 * study.COLUMN, 5.2), layout="constrained")
    curves, spheres = figure.subfigures(2, 1, height_ratios=[1.15, 1])
    curves.suptitle(f"Variance of all negative similarities after mini-batches of m, n = {n}", fontsize=9)
    panels = curves.subplots(1, 2, sharey=True)
    for axes, partition in zip(panels, PARTITIONS, strict=True):
        _draw_curves(axes, [row for row in rows if row["partition"] == partition], names, sizes)
        axes.set(title=f"{partition} partition", xlabel="m, instances in a batch")
    panels[0].set_ylabel("variance of $s_{neg}$")
    curves.legend(*panels[0].get_legend_handles_labels(), loc="outside right center", handlelength=3)
    spheres.suptitle("Theorem 5.5 in three dimensions: n = 4 in fixed batches of m = 2, and the full batch", fontsize=9)
    shapes = {
        "least": (theory.construct_extreme_variance(n=4, m=2, d=3, which="least"), 2),
        "greatest": (theory.construct_extreme_variance(n=4, m=2, d=3, which="greatest"), 2),
        "full batch": (theory.simplex(4, 3), 1),
    }
    for k, (title, (x, batches)) in enumerate(shapes.items()):
        axes = spheres.add_subplot(1, 3, k + 1, projection="3d")
        _draw_sphere(axes, x, batches)
        axes.set_title(f"{title}: variance {sphere.negatives(x, x).var():.2f}")
    return figure


def _draw_curves(axes, rows, names, sizes):
    least, greatest = np.array([theory.negative_variance_bounds(max(sizes), m) for m in sizes]).T
    axes.fill_between(sizes, least, greatest, color=study.SKY, alpha=0.3, label="Theorem 5.5, for\nfixed batches")
    looks = {"simclr": (study.BLUE, "o"), "dcl": (study.ORANGE, "s"), "dhel": (study.GREEN, "^")}
    for name, weight in itertools.product(names, WEIGHTS):
        chosen = [row for row in rows if row["loss"] == name and row["VRNS"] == weight]
        color, marker = looks[name]
        variances = np.array([(row["variance"], *row["of the starts"]) for row in chosen]).T
        axes.errorbar(
            sizes,
            variances[0],
            yerr=(variances[0] - variances[1], variances[2] - variances[0]),
            color=color,
            marker=marker,
            markerfacecolor="none",
            linestyle="--" if weight else "-",
            label=name + (" + VRNS" if weight else ""),
        )
    axes.set_xscale("log", base=2)
    axes.set_yscale("symlog", linthresh=1e-4)
    axes.set_xticks(sizes, sizes)
    axes.set_ylim(bottom=0)


def _draw_sphere(axes, x, batches):
    angle, height = np.meshgrid(np.linspace(0, 2 * np.pi, 25), np.linspace(0, np.pi, 13))
    grid = np.cos(angle) * np.sin(height), np.sin(angle) * np.sin(height), np.cos(height)
    axes.plot_wireframe(*grid, color="0.88", linewidth=0.4)
    looks = [(study.BLUE, "o", 30, "--"), (study.ORANGE, "s", 90, "-")]
    for points, (color, marker, size, line) in zip(np.split(x, batches), looks, strict=False):
        for point in points:
            axes.plot(*zip((0, 0, 0), point, strict=True), color=color, linewidth=1.5, linestyle=line)
        faces = "none" if marker == "s" else color
        axes.scatter(*points.T, s=size, marker=marker, facecolors=faces, edgecolors=color, depthshade=False)
    axes.set_axis_off()
    axes.set_box_aspect((1, 1, 1), zoom=1.5)
    axes.view_init(elev=25, azim=70)


if __name__ == "__main__":
    sys.exit(study.main("mini_batches", mini_batches))
