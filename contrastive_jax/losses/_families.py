"""The two families of Lee 2025, for any phi and psi; the named losses are members of them."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from contrastive_jax import explicit_axes, pairwise, spmd
from contrastive_jax.closures import Elementwise
from contrastive_jax.losses import _pairs


@explicit_axes.accept(out_axis=0)
def info_nce_based(
    u: jax.Array,
    v: jax.Array,
    *,
    phi: Elementwise,
    psi: Elementwise,
    cross_view: bool = True,
    within_view: bool = False,
    ids: ArrayLike | None = None,
    axis_name: spmd.AxisName = None,
    implementation: str | None = None,
    precision: pairwise.Precision = "highest",
) -> jax.Array:
    r"""The InfoNCE-based family: negatives relative to the positive, summed inside psi.

    .. math::
        \ell_i = \tfrac12\, \psi\Bigl(c_1 \sum_{j \ne i} \phi\bigl((v_j - v_i)^\top u_i\bigr)
               + c_2 \sum_{j \ne i} \phi\bigl((u_j - v_i)^\top u_i\bigr)\Bigr) + \tfrac12 (u \leftrightarrow v)

    phi, psi convex and increasing for the paper's theorems to hold. With phi(x) = exp(x / t):

    ==============  ==========  ==========  ===========
    member          psi         cross_view  within_view
    ==============  ==========  ==========  ===========
    `info_nce`      log(1 + x)  True        False
    `simclr`        log(1 + x)  True        True
    `dcl`           log(x)      True        True
    `dhel` "mean"   log(x)      False       True
    ==============  ==========  ==========  ===========

    The named functions compute the same values without overflow; this one evaluates phi and psi as given.

    Args:
      u: [m, d] embeddings of one view, any float dtype; normalised inside. Under `axis_name`, this device's share.
      v: [m, d] embeddings of the other view; (u_i, v_i) is a positive pair.
      phi: elementwise function of a difference of similarities, in [-2, 2]; it may close over traced arrays of any
        dtype.
      psi: elementwise function of a sum of phi.
      cross_view: c1, whether the cross-view negatives count.
      within_view: c2, whether the within-view negatives count.
      ids: [m] int instance ids; pairs with equal ids are never negatives of each other. Default: all differ.
      axis_name: compare against the embeddings of all devices along this mapped axis.
      implementation: how the negatives are reduced, see `pairwise.total`.
      precision: of the products, see `pairwise.similarities`.

    Returns:
      [m] float32 (float64 for float64 input), one value per pair, as `info_nce`; 0 for an anchor without negatives.

    Raises:
      ValueError: for shapes that differ, fewer than two pairs over all devices, neither kind of negative, or an
        unknown implementation or precision.

    Example:
      >>> u = jax.random.normal(jax.random.key(0), (8, 16))
      >>> loss = losses.info_nce_based(u, u, phi=lambda x: jnp.exp(x / 0.2), psi=jnp.log1p).mean()

    References:
      Lee et al., 2025, Definition 3.1, https://arxiv.org/abs/2506.09781.
    """
    _check_kinds("info_nce_based", cross_view, within_view)
    pairs = _pairs.prepare("info_nce_based", u, v, ids, axis_name)
    kinds = [*([(0, 1), (1, 0)] if cross_view else []), *([(0, 0), (1, 1)] if within_view else [])]
    sums = pairwise.totals(
        phi,
        [pairs.u, pairs.v],
        kinds,
        ids=pairs.ids,
        offset=-pairs.positive,
        axis_name=axis_name,
        implementation=implementation,
        precision=precision,
    )
    alone = _pairs.negatives_per_anchor(pairs, ids, axis_name) == 0

    def of_view(view: int) -> jax.Array:
        summed = sum(y for (anchors, _), y in zip(kinds, sums, strict=True) if anchors == view)
        # psi may be infinite, or have an infinite slope, at the sum of no negatives: it never sees one.
        return jnp.where(alone, 0, psi(jnp.where(alone, 1, summed)))

    return (of_view(0) + of_view(1)) / 2


@explicit_axes.accept(out_axis=0)
def independently_additive(
    u: jax.Array,
    v: jax.Array,
    *,
    phi: Elementwise,
    psi: Elementwise,
    cross_view: bool = True,
    within_view: bool = False,
    ids: ArrayLike | None = None,
    axis_name: spmd.AxisName = None,
    implementation: str | None = None,
    precision: pairwise.Precision = "highest",
) -> jax.Array:
    r"""The independently additive family: a separate term for each positive and each negative pair.

    .. math::
        \ell_i = -\phi(u_i^\top v_i) + \frac{c_1}{m-1} \sum_{j \ne i} \psi(u_i^\top v_j)
               + \frac{c_2}{2(m-1)} \sum_{j \ne i} \bigl(\psi(u_i^\top u_j) + \psi(v_i^\top v_j)\bigr)

    phi concave and increasing, psi convex and increasing for the paper's theorems to hold. Members, both with
    cross-view negatives alone: `spectral`, phi(x) = x and psi(x) = x^2; `siglip`, phi(x) = -log(1 + exp(-a x - b)) and
    psi(x) = (m - 1) log(1 + exp(a x + b)).

    Args:
      u: [m, d] embeddings of one view, any float dtype; normalised inside. Under `axis_name`, this device's share.
      v: [m, d] embeddings of the other view; (u_i, v_i) is a positive pair.
      phi: elementwise function of a similarity; it may close over traced arrays of any dtype.
      psi: elementwise function of a similarity, likewise.
      cross_view: c1, whether the cross-view negatives count.
      within_view: c2, whether the within-view negatives count.
      ids: [m] int instance ids; pairs with equal ids are never negatives of each other. Default: all differ.
      axis_name: compare against the embeddings of all devices along this mapped axis.
      implementation: how the negatives are reduced, see `pairwise.total`.
      precision: of the products, see `pairwise.similarities`.

    Returns:
      [m] float32 (float64 for float64 input), one value per pair, as `info_nce`: for each anchor the mean over its
      negatives; 0 for an anchor without any.

    Raises:
      ValueError: for shapes that differ, fewer than two pairs over all devices, neither kind of negative, or an
        unknown implementation or precision.

    Example:
      >>> u = jax.random.normal(jax.random.key(0), (8, 16))
      >>> loss = losses.independently_additive(u, u, phi=lambda x: x, psi=jnp.square, within_view=True).mean()

    References:
      Lee et al., 2025, Definition 3.2, https://arxiv.org/abs/2506.09781.
    """
    _check_kinds("independently_additive", cross_view, within_view)
    pairs = _pairs.prepare("independently_additive", u, v, ids, axis_name)

    sums = pairwise.totals(
        psi,
        [pairs.u, pairs.v],
        [*([(0, 1)] if cross_view else []), *([(0, 0), (1, 1)] if within_view else [])],
        ids=pairs.ids,
        axis_name=axis_name,
        implementation=implementation,
        precision=precision,
    )
    negatives = jnp.zeros_like(pairs.positive)
    if cross_view:
        negatives += sums[0]
    if within_view:
        negatives += (sums[-2] + sums[-1]) / 2
    count = jnp.maximum(_pairs.negatives_per_anchor(pairs, ids, axis_name), 1)
    return negatives / count - phi(pairs.positive)


def _check_kinds(name: str, cross_view: bool, within_view: bool) -> None:
    if not cross_view and not within_view:
        raise ValueError(
            f"losses.{name}: expected cross_view or within_view negatives, or both, got neither; "
            "(c1, c2) is (1, 0), (0, 1) or (1, 1)."
        )
