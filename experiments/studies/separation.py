"""Excessive separation: where SigLIP's full-batch optimum pushes negatives further apart than the simplex.

python -m experiments.studies.separation [--quick] [--out=runs/studies] [--seed=0]
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from contrastive_jax import losses, theory
from experiments.studies import sphere, study

N = 8
BAND = 0.1  # around the boundary: difference of the logarithms of the two sides of Equation 10
TOLERANCE = 1e-4  # the mean of s_neg counts as below -1/(n-1) if it is this far below


def separation(*, quick: bool, seed: int) -> study.Result:
    """Minimise SigLIP over the embeddings of n = 8 instances, for a grid of scales and biases.

    Negatives should fall below -1/(n-1) on one side of Equation 10 (Lee 2025, Theorem 5.3), and nowhere once
    within-view negatives are added.
    """
    count = 5 if quick else 21
    scales, biases = np.linspace(0.5, 12, count), np.linspace(-10, 8, count)
    predicted = theory.siglip_separates_excessively(scale=scales[:, None], bias=biases, n=N)
    outside = np.abs(_margin(scales[:, None], biases)) > BAND
    excess = {kind: _excess(kind == WITHIN, scales, biases, seed) for kind in (CROSS, WITHIN)}
    rows, checks = [], []
    for kind, values in excess.items():
        says = predicted if kind == CROSS else np.zeros_like(predicted)
        agree = (values > TOLERANCE) == says
        rows.append(
            {
                "negatives": kind,
                "grid points": agree.size,
                "separate, predicted": int(says.sum()),
                "separate, measured": int((values > TOLERANCE).sum()),
                "agree": f"{100 * agree.mean():.1f}%",
                "agree outside the band": f"{100 * agree[outside].mean():.1f}%",
                "outside the band": int(outside.sum()),
                "greatest excess": float(values.max()),
            }
        )
        checks.append(study.Check(f"{kind}: grid points outside the band that disagree", (~agree[outside]).sum(), 0))
    return study.Result(rows, checks, _figure(scales, biases, excess))


CROSS, WITHIN = "cross-view", "cross- and within-view"


def _margin(scale, bias):
    """Log of the right side of Equation 10 over the left; above 0 where SigLIP separates excessively."""
    return np.log((N - 2) / 2) - np.logaddexp(0, scale / (N - 1) - bias) + np.logaddexp(0, scale + bias)


def _excess(within_view, scales, biases, seed):
    """How far the mean of s_neg at the optimum lies below -1/(n-1), for each scale and bias."""

    def loss(u, v, scale, bias):
        return losses.independently_additive(
            u,
            v,
            phi=lambda s: -jax.nn.softplus(-scale * s - bias),
            psi=lambda s: (N - 1) * jax.nn.softplus(scale * s + bias),
            within_view=within_view,
        ).mean()

    minimize = sphere.make_minimizer(loss)
    found = [[minimize(jnp.float64(a), jnp.float64(b), n=N, d=N, seed=seed) for b in biases] for a in scales]
    mean = np.array([[sphere.negatives(x.u, x.v).mean() for x in row] for row in found])
    return theory.negative_similarity_optimum(N) - mean


def _figure(scales, biases, excess):
    figure = Figure(figsize=(2 * study.COLUMN, 2.7), layout="constrained")
    figure.suptitle(f"SigLIP's full-batch optimum, n = {N}: how far negatives lie below the simplex", fontsize=9)
    fine = np.meshgrid(np.linspace(scales[0], scales[-1], 300), np.linspace(biases[0], biases[-1], 300))
    panels = figure.subplots(1, 2, sharey=True)
    top = max(values.max() for values in excess.values())
    for axes, (kind, values) in zip(panels, excess.items(), strict=True):
        image = axes.pcolormesh(scales, biases, np.maximum(values.T, 0), cmap="cividis", vmin=0, vmax=top)
        image.set_rasterized(True)
        axes.contour(*fine, _margin(*fine), levels=[0], colors=study.RED, linewidths=1.8)
        axes.plot([], [], color=study.RED, linewidth=1.8, label="Eq. 10, cross-view negatives alone")
        below = np.argwhere(values > TOLERANCE)
        dots = {"marker": "o", "linestyle": "", "markersize": 2, "color": "white", "markeredgecolor": study.BLACK}
        axes.plot(scales[below[:, 0]], biases[below[:, 1]], markeredgewidth=0.3, label="measured below", **dots)
        axes.set(title=f"{kind} negatives", xlabel="scale")
        axes.legend(loc="lower left", frameon=True, framealpha=0.9)
    panels[0].set_ylabel("bias")
    figure.colorbar(image, ax=list(panels), label="$-1/(n-1) - \\mathrm{E}[s_{neg}]$")
    return figure


if __name__ == "__main__":
    sys.exit(study.main("separation", separation))
