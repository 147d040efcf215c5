"""Precision: how far the rounded products of a TPU or a GPU move a loss and its gradient.

python -m experiments.studies.precision [--quick] [--out=runs/studies] [--seed=0]
"""

import functools
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from matplotlib.figure import Figure

from contrastive_jax import losses
from experiments.studies import rounding, study

TEMPERATURES = (0.05, 0.2, 0.5)
# By t: each loss at the scale of similarities that this temperature has.
LOSSES: dict[str, Callable[..., jax.Array]] = {
    "info_nce": lambda u, v, t, **options: losses.info_nce(u, v, temperature=t, **options),
    "simclr": lambda u, v, t, **options: losses.simclr(u, v, temperature=t, **options),
    "siglip": lambda u, v, t, **options: losses.siglip(u, v, scale=1 / t, bias=-10.0, **options),
    "kcl": lambda u, v, t, **options: losses.kcl(u, v, kernel="gaussian", t=0.5 / t, **options),
    "vrns": lambda u, v, t, **options: losses.vrns(u, v, num_instances=50_000, **options),
}


class Embeddings(NamedTuple):
    """How embeddings are drawn: around one common direction, and the views around their instance."""

    center: float  # length of the common direction; of an instance's own part it is 1
    noise: float  # of a view


EMBEDDINGS = {
    "random": Embeddings(0.0, 0.5),  # negatives of similarity 0 on average, positives of 0.8
    "clustered": Embeddings(10.0, 0.5),  # of 0.99
    "collapsing": Embeddings(100.0, 0.5),  # of 0.9999
}
ROUNDINGS = {"bf16x3": rounding.bf16_x3, "TF32": rounding.tf32, "bf16": rounding.bf16}


class Errors(NamedTuple):
    """Relative errors."""

    value: float  # of the mean, relative to the mean size of the values
    gradient: float  # of the gradient of the mean, in norm


# What the documentation of `pairwise.similarities` promises.
BOUNDS = {
    "float32": Errors(5e-6, 1e-4),
    "bf16x3": Errors(5e-5, 2e-4),
    "TF32": Errors(2e-3, 1e-2),
    "bf16": Errors(2e-2, 5e-2),
}


def is_bounded(name: str, kind: str, arithmetic: str) -> bool:
    """Whether the bounds hold: `kcl` takes 2 - 2 s, of which a rounded s near 1 leaves nothing, or less."""
    return not (name == "kcl" and kind == "collapsing" and arithmetic in ("TF32", "bf16"))


def precision(*, quick: bool, seed: int) -> study.Result:
    """Compare losses whose products are rounded as other processors round them with the same losses in float64.

    Nothing but the operands of the products is rounded, to nearest; see `experiments.studies.rounding`.
    """
    m, d = (64, 32) if quick else (1024, 128)
    rows: list[dict[str, Any]] = []
    found: dict[Any, Errors] = {}
    for name in LOSSES:
        for kind, embeddings in EMBEDDINGS.items():
            u, v = draw(embeddings, m, d, seed)
            for t in TEMPERATURES:
                errors = measure(name, u, v, t)
                found |= {(name, kind, t, arithmetic): x for arithmetic, x in errors.items()}
                cells = {arithmetic: f"{x.value:.1e}, {x.gradient:.1e}" for arithmetic, x in errors.items()}
                if name != "vrns":  # which has no temperature
                    rows.append({"loss": name, "embeddings": kind, "t": t, **cells})
                elif t == TEMPERATURES[0]:
                    rows.append({"loss": name, "embeddings": kind, "t": "any", **cells})
    return study.Result(rows, list(_check(found)), _draw(found))


def draw(embeddings: Embeddings, m: int, d: int, seed: int) -> np.ndarray:
    """Two views of m instances, unit vectors [2, m, d] in float32."""
    rng = np.random.default_rng(seed)
    own = embeddings.center * rng.normal(size=(1, d)) + rng.normal(size=(m, d))
    views = own + embeddings.noise * rng.normal(size=(2, m, d))
    return (views / np.linalg.norm(views, axis=-1, keepdims=True)).astype(np.float32)


def measure(name: str, u: np.ndarray, v: np.ndarray, t: float) -> dict[str, Errors]:
    """The errors of a loss at temperature t in each arithmetic."""
    want = _compile(name, None)(*(x.astype(np.float64) for x in (u, v)), np.float64(t))
    scale = np.abs(want[0]).mean()

    def compare(got: Any) -> Errors:
        difference = (np.concatenate(got[1]).astype(np.float64) - np.concatenate(want[1])).ravel()
        norms = np.linalg.norm(difference) / np.linalg.norm(np.concatenate(want[1]))
        return Errors(float(abs(np.mean(got[0], dtype=np.float64) - want[0].mean()) / scale), float(norms))

    return {x: compare(_compile(name, x)(u, v, np.float32(t))) for x in ("float32", *ROUNDINGS)}


@functools.cache
def _compile(name: str, arithmetic: str | None) -> Callable[..., Any]:
    """The values of a loss and the gradient of their mean, compiled; None: exact, for float64."""
    options = {} if name == "vrns" else {"implementation": "dense"}
    options |= {"precision": "default"} if arithmetic in ROUNDINGS else {}

    def values_and_gradient(u: jax.Array, v: jax.Array, t: jax.Array) -> Any:
        def mean(u: jax.Array, v: jax.Array) -> tuple[jax.Array, jax.Array]:
            values = LOSSES[name](u, v, t, **options)
            return values.mean(), values

        gradient, values = jax.grad(mean, argnums=(0, 1), has_aux=True)(u, v)
        return values, gradient

    fn = (
        rounding.emulate(values_and_gradient, ROUNDINGS[arithmetic]) if arithmetic in ROUNDINGS else values_and_gradient
    )
    return lambda *args: jax.device_get(jax.jit(fn)(*args))


def _check(found: dict[Any, Errors]) -> Any:
    for arithmetic, bound in BOUNDS.items():
        errors = [x for key, x in found.items() if key[3] == arithmetic and is_bounded(key[0], key[1], arithmetic)]
        for what, worst, limit in zip(Errors._fields, map(max, zip(*errors, strict=True)), bound, strict=True):
            yield study.Check(f"greatest relative error of the {what} in {arithmetic}", worst, limit)


def _draw(found: dict[Any, Errors]) -> Figure:
    figure = Figure(figsize=(2 * study.COLUMN, 2.4), layout="constrained")
    panels = figure.subplots(1, len(EMBEDDINGS), sharey=True)
    colours = dict(
        zip(("bf16", "TF32", "bf16x3", "float32"), (study.RED, study.ORANGE, study.BLUE, study.BLACK), strict=True)
    )
    for axes, kind in zip(panels, EMBEDDINGS, strict=True):
        for (arithmetic, colour), marker in zip(colours.items(), "os^d", strict=True):
            for names, line in ((("info_nce", "simclr", "siglip"), "-"), (("kcl",), "--")):
                worst = [max(found[name, kind, t, arithmetic].gradient for name in names) for t in TEMPERATURES]
                label = arithmetic if line == "-" else None
                axes.plot(TEMPERATURES, worst, marker, linestyle=line, color=colour, label=label)
        axes.set(xscale="log", yscale="log", title=f"{kind} embeddings", xlabel="temperature")
        axes.set_xticks(TEMPERATURES, [str(t) for t in TEMPERATURES])
        axes.minorticks_off()
    panels[0].set_ylabel("relative error of the gradient")
    panels[1].plot([], [], "--", color=study.BLACK, label="kcl")
    panels[1].legend(loc="upper right", ncols=2)
    return figure


if __name__ == "__main__":
    sys.exit(study.main("precision", precision))
