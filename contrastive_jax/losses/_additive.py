"""The independently additive family (Lee 2025, Definition 3.2): a sum over positives, a sum over negatives."""

import jax
from jax.typing import ArrayLike

from contrastive_jax import explicit_axes, pairwise, spmd
from contrastive_jax.losses import _pairs
from contrastive_jax.losses.contract import declare


@declare(learnable=("scale", "bias"))
@explicit_axes.accept(out_axis=0)
def siglip(
    u: jax.Array,
    v: jax.Array,
    *,
    scale: float | jax.Array = 10.0,
    bias: float | jax.Array = -10.0,
    ids: ArrayLike | None = None,
    axis_name: spmd.AxisName = None,
    implementation: str | None = None,
    precision: pairwise.Precision = "highest",
) -> jax.Array:
    r"""SigLIP's pairwise sigmoid loss: each pair is classified as positive or negative by itself.

    .. math::
        \ell_i = \log\bigl(1 + e^{-(a\, u_i^\top v_i + b)}\bigr)
               + \sum_{j \ne i} \log\bigl(1 + e^{a\, u_i^\top v_j + b}\bigr)

    with a the scale and b the bias. Its mean is the sum over all m^2 pairs divided by m.

    Args:
      u: [m, d] embeddings of one view, any float dtype; normalised inside. Under `axis_name`, this device's share.
      v: [m, d] embeddings of the other view; (u_i, v_i) is a positive pair.
      scale: a, scalar, the inverse of a temperature; may be traced, or learnt.
      bias: b, scalar, **added** to the logit; may be traced, or learnt.
      ids: [m] int instance ids; pairs with equal ids are never negatives of each other. Default: all differ.
      axis_name: compare against the embeddings of all devices along this mapped axis.
      implementation: how the negatives are reduced, see `pairwise.total`.
      precision: of the products, see `pairwise.similarities`.

    Returns:
      [m] float32 (float64 for float64 input), one value per pair, as `info_nce`.

    Raises:
      ValueError: for shapes that differ, fewer than two pairs over all devices, a scale or bias that is not a scalar,
        or an unknown implementation or precision.

    Example:
      >>> u = jax.random.normal(jax.random.key(0), (8, 16))
      >>> loss = losses.siglip(u, u, scale=10.0, bias=-10.0).mean()

    References:
      Zhai et al., 2023, https://arxiv.org/abs/2303.15343; Lee et al., 2025, Definition 3.2 with (c1, c2) = (1, 0),
      phi(x) = -log(1 + exp(-t x + b)) and psi(x) = (m - 1) log(1 + exp(t x - b)), https://arxiv.org/abs/2506.09781.
      The logit of Lee 2025 is t s - b; this one is that of the SigLIP paper and of its code, t s + b: negate their b.
    """
    pairs = _pairs.prepare("siglip", u, v, ids, axis_name)
    scale = _pairs.scalar("siglip", "scale", scale, pairs.u.dtype)
    bias = _pairs.scalar("siglip", "bias", bias, pairs.u.dtype)
    negatives = pairwise.total(
        lambda s: pairwise.softplus(scale * s + bias),
        pairs.u,
        pairs.v,
        anchor_ids=pairs.ids,
        candidate_ids=pairs.ids,
        axis_name=axis_name,
        implementation=implementation,
        precision=precision,
    )
    return pairwise.softplus(-(scale * pairs.positive + bias)) + negatives


@declare()
@explicit_axes.accept(out_axis=0)
def spectral(
    u: jax.Array,
    v: jax.Array,
    *,
    ids: ArrayLike | None = None,
    axis_name: spmd.AxisName = None,
    implementation: str | None = None,
    precision: pairwise.Precision = "highest",
) -> jax.Array:
    r"""Spectral contrastive loss: pulls positives together and pushes negatives to orthogonality.

    .. math:: \ell_i = -u_i^\top v_i + \frac{1}{m-1} \sum_{j \ne i} (u_i^\top v_j)^2

    Args:
      u: [m, d] embeddings of one view, any float dtype; normalised inside. Under `axis_name`, this device's share.
      v: [m, d] embeddings of the other view; (u_i, v_i) is a positive pair.
      ids: [m] int instance ids; pairs with equal ids are never negatives of each other. Default: all differ.
      axis_name: compare against the embeddings of all devices along this mapped axis.
      implementation: `"moments"` takes time and memory linear in m, see `pairwise.moments`, and gathers no embeddings;
        the others reduce the negatives as `pairwise.total` does. None takes moments from 2d pairs of all devices on.
      precision: of the products, see `pairwise.similarities`.

    Returns:
      [m] float32 (float64 for float64 input), one value per pair, as `info_nce`. The mean is over each anchor's own
      negatives; 0 for an anchor without any.

    Raises:
      ValueError: for shapes that differ, fewer than two pairs over all devices, or an unknown implementation
        or precision.

    Example:
      >>> u = jax.random.normal(jax.random.key(0), (8, 16))
      >>> loss = losses.spectral(u, u).mean()

    References:
      Lee et al., 2025, Definition 3.2 with (c1, c2) = (1, 0), phi(x) = x, psi(x) = x^2,
      https://arxiv.org/abs/2506.09781. HaoChen et al., 2021, https://arxiv.org/abs/2106.04156, weigh the positive
      term by 2 and do not normalise the embeddings.
    """
    pairs = _pairs.prepare("spectral", u, v, ids, axis_name)
    return _pairs.mean_square("spectral", pairs, ids, 0.0, axis_name, implementation, precision) - pairs.positive
