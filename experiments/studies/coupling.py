"""Coupling: which losses have gradients whose alignment part depends on the negatives, or uniformity on the positives.

python -m experiments.studies.coupling [--quick] [--out=runs/studies] [--seed=0]
"""

import sys
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

from contrastive_jax import losses, pairwise, theory
from experiments.studies import study

TEMPERATURE = 0.2
KCL_T, KCL_GAMMA = 2.0, 16.0


class Similarities(NamedTuple):
    """What a loss sees of m pairs: the similarities [m, m] across the views and within each view."""

    cross: jax.Array  # positives on the diagonal
    within_u: jax.Array
    within_v: jax.Array


class Row(NamedTuple):
    """A loss of the library, and the same as a function of the similarities.

    The second form splits the gradient into that of the positives and that of the negatives.
    """

    loss: Callable[[jax.Array, jax.Array], jax.Array]
    of_similarities: Callable[[Similarities], jax.Array]


def _info_nce(s):
    return jnp.mean(_log_sum(s.cross) + _log_sum(s.cross.T)) / 2 - _mean_positive(s)


def _dcl(s):
    u, v = (
        jnp.logaddexp(_log_sum_of_others(cross), _log_sum_of_others(within))
        for cross, within in ((s.cross, s.within_u), (s.cross.T, s.within_v))
    )
    return jnp.mean(u + v) / 2 - _mean_positive(s)


def _dhel(s):
    return jnp.mean(_log_sum_of_others(s.within_u) + _log_sum_of_others(s.within_v)) / 2 - _mean_positive(s)


def _kcl(s):
    def kernel(x):
        return jnp.exp(-KCL_T * (2 - 2 * x))

    def energy(within):
        m = len(within)
        return jnp.sum(jnp.where(jnp.eye(m, dtype=bool), 0, kernel(within))) / (m * (m - 1))

    return KCL_GAMMA * (energy(s.within_u) + energy(s.within_v)) - 2 * jnp.mean(kernel(jnp.diagonal(s.cross)))


def _log_sum(x):
    return jax.nn.logsumexp(x / TEMPERATURE, axis=1)


def _log_sum_of_others(x):
    return _log_sum(jnp.where(jnp.eye(len(x), dtype=bool), -jnp.inf, x))


def _mean_positive(s):
    return jnp.mean(jnp.diagonal(s.cross)) / TEMPERATURE


LOSSES = {
    "info_nce": Row(lambda u, v: losses.info_nce(u, v, temperature=TEMPERATURE).mean(), _info_nce),
    "dcl": Row(lambda u, v: losses.dcl(u, v, temperature=TEMPERATURE).mean(), _dcl),
    "dhel": Row(lambda u, v: losses.dhel(u, v, temperature=TEMPERATURE).mean(), _dhel),
    "kcl": Row(lambda u, v: losses.kcl(u, v, kernel="gaussian", t=KCL_T, gamma=KCL_GAMMA).mean(), _kcl),
}
# Whether the part for alignment depends on the negatives, and that for uniformity on the positives (Koromilas 2024,
# Section 5).
COUPLED = {"info_nce": (True, True), "dcl": (False, True), "dhel": (False, False), "kcl": (False, False)}
NEGLIGIBLE, NOTABLE = 1e-9, 1e-2


def coupling(*, quick: bool, seed: int) -> study.Result:
    """Descend on each loss, and intervene on its gradient at every step.

    How much would the part of the positives change if the negatives were at their optimum, and how much the part of the
    negatives if the views were aligned?
    """
    m, d, steps = (16, 16, 60) if quick else (64, 32, 500)
    measured = {name: jax.device_get(_descend(row, m, d, steps, seed)) for name, row in LOSSES.items()}
    rows, checks = [], []
    for name, trace in measured.items():
        greatest = (float(trace.alignment.max()), float(trace.uniformity.max()))
        rows.append(
            {
                "loss": name,
                "alignment depends on negatives, predicted": _yes(COUPLED[name][0]),
                "change, greatest": greatest[0],
                "uniformity depends on positives, predicted": _yes(COUPLED[name][1]),
                "change, greatest ": greatest[1],
                "decoupled": _yes(max(greatest) < NEGLIGIBLE),
                "loss, last": float(trace.loss[-1]),
            }
        )
        checks.append(study.Check(f"{name}: similarities' form against the library", trace.difference.max(), 1e-12))
        for part, value, coupled in zip(("alignment", "uniformity"), greatest, COUPLED[name], strict=True):
            if coupled:
                checks.append(study.Check(f"{name}: {part} changes by more than 0.01, shortfall", NOTABLE - value, 0))
            else:
                checks.append(study.Check(f"{name}: {part} does not change", value, NEGLIGIBLE))
    return study.Result(rows, checks, _figure(measured))


class Trace(NamedTuple):
    """What is measured at each step."""

    loss: jax.Array
    difference: jax.Array  # between the loss and its form in similarities
    alignment: jax.Array  # relative change of the positives' part
    uniformity: jax.Array  # relative change of the negatives' part


def _descend(row, m, d, steps, seed):
    optimizer = optax.adam(0.01)

    def step(carry, _):
        x, state = carry
        loss, gradient = jax.value_and_grad(lambda x: row.loss(*x))(x)
        trace = _measure(row, *x, loss)
        updates, state = optimizer.update(gradient, state)
        x = optax.apply_updates(x, updates)
        return (pairwise.normalize(x.reshape(-1, d)).reshape(x.shape), state), trace

    x = pairwise.normalize(jax.random.normal(jax.random.key(seed), (2 * m, d), jnp.float64)).reshape(2, m, d)
    return jax.jit(lambda carry: jax.lax.scan(step, carry, length=steps)[1])((x, optimizer.init(x)))


def _measure(row, u, v, loss):
    s = Similarities(u @ v.T, u @ u.T, v @ v.T)
    positive = jnp.eye(len(u), dtype=bool)
    optimum = theory.negative_similarity_optimum(len(u))
    # The same positives with negatives at their optimum, and the same anchors with views that equal them.
    elsewhere = jax.tree.map(lambda x: jnp.where(positive, x, optimum), s)
    aligned = Similarities(s.within_u, s.within_u, s.within_u)
    gradient = jax.grad(row.of_similarities)
    here = gradient(s)
    return Trace(
        loss=loss,
        difference=jnp.abs(row.of_similarities(s) - loss),
        alignment=_change(jnp.diagonal(gradient(elsewhere).cross), jnp.diagonal(here.cross)),
        uniformity=_change(_push(gradient(aligned), u, u), _push(here, u, v)),
    )


def _push(gradient, u, v):
    """The gradient [m, d] of the anchors u due to their negatives, along the sphere."""
    negative = ~jnp.eye(len(u), dtype=bool)
    cross, within = (jnp.where(negative, x, 0) for x in (gradient.cross, gradient.within_u + gradient.within_u.T))
    push = cross @ v + within @ u
    return push - jnp.sum(push * u, axis=1, keepdims=True) * u


def _change(there, here):
    return jnp.linalg.norm(there - here) / jnp.linalg.norm(here)


def _yes(x):
    return "yes" if x else "no"


def _figure(measured):
    figure = Figure(figsize=(2 * study.COLUMN, 2.7), layout="constrained")
    figure.suptitle("How much each part of the gradient depends on the other's pairs, over training", fontsize=9)
    panels = figure.subplots(1, 2, sharey=True)
    looks = {
        "info_nce": (study.BLUE, "-"),
        "dcl": (study.ORANGE, "--"),
        "dhel": (study.GREEN, "-."),
        "kcl": (study.RED, ":"),
    }
    titles = {
        "alignment": "alignment part, had the negatives\nbeen at their optimum",
        "uniformity": "uniformity part, had the views\nbeen aligned",
    }
    for axes, (part, title) in zip(panels, titles.items(), strict=True):
        for name, trace in measured.items():
            color, line = looks[name]
            change = getattr(trace, part)
            axes.plot(np.arange(1, len(change) + 1), change, line, color=color, label=name, linewidth=1.6)
        axes.set(title=title, xlabel="step", xscale="log")
    panels[0].set_ylabel("relative change of the gradient")
    panels[0].legend()
    return figure


if __name__ == "__main__":
    sys.exit(study.main("coupling", coupling))
