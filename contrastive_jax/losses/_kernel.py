"""Losses of a kernel of the squared distance: KCL (Koromilas 2024), alignment and uniformity (Wang 2020)."""

import numbers
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from contrastive_jax import explicit_axes, pairwise, spmd
from contrastive_jax.losses import _pairs
from contrastive_jax.losses.contract import declare

Kernel = Callable[[jax.Array], jax.Array]  # of the squared distance, elementwise


@declare()
@explicit_axes.accept(out_axis=0)
def kcl(
    u: jax.Array,
    v: jax.Array,
    *,
    kernel: str | Kernel = "gaussian",
    t: float | jax.Array = 2.0,
    gamma: float | jax.Array = 16.0,
    ids: ArrayLike | None = None,
    axis_name: spmd.AxisName = None,
    implementation: str | None = None,
    precision: pairwise.Precision = "highest",
) -> jax.Array:
    r"""Kernel contrastive loss: within-view negatives only; its expectation does not depend on the batch size.

    .. math::
        \ell_i = -2 K(u_i, v_i) + \gamma \Bigl(\frac{1}{m-1} \sum_{j \ne i} K(u_i, u_j)
               + \frac{1}{m-1} \sum_{j \ne i} K(v_i, v_j)\Bigr)

    with r = \|x - y\|, so r^2 = 2 - 2 x.y, and the kernels

    ==================  ==========================================================================
    `"gaussian"`        exp(-t r^2)
    `"log"`             -1/2 log(1 + t r^2)
    `"imq"`             t / sqrt(t^2 + r^2)
    `"riesz"`           r^(-t) for t > 0, -r^(-t) for t < 0
    `"gaussian_riesz"`  for negatives riesz, for positives gaussian with t = 2
    ==================  ==========================================================================

    The riesz kernel or its slope diverges at r = 0, where positive pairs should end up. Here r^2 is at least 16 machine
    epsilons (r = 0.0014 in float32, about the smallest that 2 - 2 x.y can resolve): closer embeddings count as being at
    that distance, with a zero gradient.

    Args:
      u: [m, d] embeddings of one view, any float dtype; normalised inside. Under `axis_name`, this device's share.
      v: [m, d] embeddings of the other view; (u_i, v_i) is a positive pair.
      kernel: a name above, or an elementwise function of the squared distance, which is never negative.
      t: the kernel's parameter, scalar; may be traced. Above 0, for riesz not 0. A function of your own does not use t.
      gamma: weight of the negatives, scalar; may be traced.
      ids: [m] int instance ids; pairs with equal ids are never negatives of each other. Default: all differ.
      axis_name: compare against the embeddings of all devices along this mapped axis.
      implementation: how the negatives are reduced, see `pairwise.total`.
      precision: of the products, see `pairwise.similarities`.

    Returns:
      [m] float32 (float64 for float64 input), one value per pair, as `info_nce`: for each anchor the mean over its
      negatives; 0 for an anchor without any.

    Raises:
      ValueError: for shapes that differ, fewer than two pairs over all devices, an unknown kernel, a t known to be
        outside its range, or an unknown implementation or precision.

    Example:
      >>> u = jax.random.normal(jax.random.key(0), (8, 16))
      >>> loss = losses.kcl(u, u, kernel="gaussian", t=2.0, gamma=16.0).mean()

    References:
      Koromilas et al., 2024, https://arxiv.org/abs/2405.18045. The authors' code lacks the 1/2 of the log
      kernel in the positive term: its loss at gamma is twice this one at gamma / 2.
    """
    pairs = _pairs.prepare("kcl", u, v, ids, axis_name)
    of_positives, of_negatives = _kernels(kernel, t, pairs.u.dtype)
    gamma = _pairs.scalar("kcl", "gamma", gamma, pairs.u.dtype)
    options = {
        "anchor_ids": pairs.ids,
        "candidate_ids": pairs.ids,
        "axis_name": axis_name,
        "implementation": implementation,
        "precision": precision,
    }

    def of_similarity(s: jax.Array) -> jax.Array:
        return of_negatives(jnp.maximum(2 - 2 * s, 0))

    energy = sum(pairwise.total(of_similarity, x, x, **options) for x in (pairs.u, pairs.v))
    energy = energy / jnp.maximum(_pairs.negatives_per_anchor(pairs, ids, axis_name), 1)
    return gamma * energy - 2 * of_positives(_pairs.squared_distance(pairs))


@declare()
@explicit_axes.accept(out_axis=0)
def align_uniform(
    u: jax.Array,
    v: jax.Array,
    *,
    weight: float | jax.Array = 1.0,
    alpha: float | jax.Array = 2.0,
    t: float | jax.Array = 2.0,
    ids: ArrayLike | None = None,
    axis_name: spmd.AxisName = None,
    implementation: str | None = None,
    precision: pairwise.Precision = "highest",
) -> jax.Array:
    r"""Alignment and uniformity, optimised directly.

    .. math::
        \ell_i = \|u_i - v_i\|^\alpha + \frac{\lambda}{2} \Bigl(\log \mathop{\mathrm{mean}}_{j \ne k}
                 e^{-t \|u_j - u_k\|^2} + \log \mathop{\mathrm{mean}}_{j \ne k} e^{-t \|v_j - v_k\|^2}\Bigr)

    with lambda the weight. Uniformity is the logarithm of a mean over **all** pairs, so it belongs to the batch, not to
    an anchor: every anchor has the same value of it.

    Args:
      u: [m, d] embeddings of one view, any float dtype; normalised inside. Under `axis_name`, this device's share.
      v: [m, d] embeddings of the other view; (u_i, v_i) is a positive pair.
      weight: lambda, scalar; may be traced.
      alpha: power of the distance, > 0, scalar; may be traced. Below 2, a pair that coincides has a zero gradient.
      t: of the Gaussian, > 0, scalar; may be traced.
      ids: [m] int instance ids; pairs with equal ids are never negatives of each other. Default: all differ.
      axis_name: compare against the embeddings of all devices along this mapped axis.
      implementation: how the negatives are reduced, see `pairwise.logsumexp`.
      precision: of the products, see `pairwise.similarities`.

    Returns:
      [m] float32 (float64 for float64 input), one value per pair, as `info_nce`. The uniformity of a batch without any
      negative counts as 0.

    Raises:
      ValueError: for shapes that differ, fewer than two pairs over all devices, an alpha or t known to be <= 0, or an
        unknown implementation or precision.

    Example:
      >>> u = jax.random.normal(jax.random.key(0), (8, 16))
      >>> loss = losses.align_uniform(u, u, weight=1.0, alpha=2.0, t=2.0).mean()

    References:
      Wang and Isola, 2020, Section 4, https://arxiv.org/abs/2005.10242.
    """
    pairs = _pairs.prepare("align_uniform", u, v, ids, axis_name)
    weight = _pairs.scalar("align_uniform", "weight", weight, pairs.u.dtype)
    alpha = _pairs.positive_scalar("align_uniform", "alpha", alpha, pairs.u.dtype)
    t = _pairs.positive_scalar("align_uniform", "t", t, pairs.u.dtype)
    options = {
        "scale": 2 * t,  # exp(-t r^2) = exp(2 t s) exp(-2 t)
        "anchor_ids": pairs.ids,
        "candidate_ids": pairs.ids,
        "axis_name": axis_name,
        "implementation": implementation,
        "precision": precision,
    }
    counts = jnp.broadcast_to(_pairs.negatives_per_anchor(pairs, ids, axis_name), pairs.positive.shape)
    log_count = jnp.log(jnp.maximum(spmd.psum(jnp.sum(counts.astype(t.dtype)), axis_name), 1)) + 2 * t
    uniformity = [
        _pairs.logsumexp(spmd.gather(pairwise.logsumexp(x, x, **options), axis_name)) for x in (pairs.u, pairs.v)
    ]
    uniformity = [jnp.where(jnp.isneginf(x), 0, x - log_count) for x in uniformity]
    return _power(_pairs.squared_distance(pairs), alpha / 2) + weight * sum(uniformity) / 2


def _gaussian(squared: jax.Array, t: float | jax.Array) -> jax.Array:
    return jnp.exp(-t * squared)


def _log(squared: jax.Array, t: float | jax.Array) -> jax.Array:
    return -jnp.log1p(t * squared) / 2


def _imq(squared: jax.Array, t: float | jax.Array) -> jax.Array:
    return t / jnp.sqrt(t**2 + squared)


def _riesz(squared: jax.Array, t: float | jax.Array) -> jax.Array:
    squared = jnp.maximum(squared, 16 * jnp.finfo(squared.dtype).eps)
    return jnp.where(jnp.asarray(t) < 0, -1, 1).astype(squared.dtype) * squared ** (-t / 2)


KERNELS = {"gaussian": _gaussian, "log": _log, "imq": _imq, "riesz": _riesz, "gaussian_riesz": _riesz}


def _kernels(kernel: str | Kernel, t: float | jax.Array, dtype: jnp.dtype) -> tuple[Kernel, Kernel]:
    """The kernels of positives and of negatives."""
    if callable(kernel):
        return kernel, kernel
    if kernel not in KERNELS:
        raise ValueError(
            f"losses.kcl: expected kernel {', '.join(map(repr, KERNELS))}, or a function of the squared distance, "
            f"got {kernel!r}."
        )
    if "riesz" not in kernel:
        t = _pairs.positive_scalar("kcl", "t", t, dtype)
    elif isinstance(t, numbers.Real) and t == 0:
        raise ValueError(f"losses.kcl: expected a t other than 0, the exponent of the {kernel} kernel, got {t}.")
    else:
        t = _pairs.scalar("kcl", "t", t, dtype)
    of_negatives = partial(KERNELS[kernel], t=t)
    return partial(_gaussian, t=2.0) if kernel == "gaussian_riesz" else of_negatives, of_negatives


def _power(x: jax.Array, exponent: jax.Array) -> jax.Array:
    """x ** exponent for x >= 0; 0, with a zero gradient, where x is 0, whatever the exponent."""
    zero = x == 0
    return jnp.where(zero, 0, jnp.where(zero, 1, x) ** exponent)
