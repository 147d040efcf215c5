"""The InfoNCE family (Lee 2025, Definition 3.1): log-sum-exp over negatives."""

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from contrastive_jax import explicit_axes, pairwise, spmd
from contrastive_jax.losses import _pairs
from contrastive_jax.losses.contract import declare

DHEL_FORMS = ("mean", "sum", "one_sided")


@declare(learnable=("temperature",))
@explicit_axes.accept(out_axis=0)
def info_nce(
    u: jax.Array,
    v: jax.Array,
    *,
    temperature: float | jax.Array = 0.2,
    ids: ArrayLike | None = None,
    axis_name: spmd.AxisName = None,
    implementation: str | None = None,
    precision: pairwise.Precision = "highest",
) -> jax.Array:
    r"""InfoNCE as in CLIP: cross-view negatives, in both directions.

    .. math::
        \ell_i = \tfrac12 \log\Bigl(1 + \sum_{j \ne i} e^{(u_i^\top v_j - u_i^\top v_i)/t}\Bigr)
               + \tfrac12 \log\Bigl(1 + \sum_{j \ne i} e^{(v_i^\top u_j - u_i^\top v_i)/t}\Bigr)

    Args:
      u: [m, d] embeddings of one view, any float dtype; normalised inside. Under `axis_name`, this device's share.
      v: [m, d] embeddings of the other view; (u_i, v_i) is a positive pair.
      temperature: t > 0, scalar; may be traced. Learnt through its logarithm, it is `pairwise.finite_exp` of that.
      ids: [m] int instance ids; pairs with equal ids are never negatives of each other. Default: all differ.
      axis_name: compare against the embeddings of all devices along this mapped axis.
      implementation: how the negatives are reduced, see `pairwise.logsumexp`.
      precision: of the products, see `pairwise.similarities`.

    Returns:
      [m] float32 (float64 for float64 input), one value per pair; the mean is the paper's loss. Under `axis_name` the
      `pmean` of each device's mean is the loss of the whole batch, and its gradient that of the whole batch.

    Raises:
      ValueError: for shapes that differ, fewer than two pairs over all devices, a temperature known to be <= 0, or an
        unknown implementation or precision.

    Example:
      >>> u = jax.random.normal(jax.random.key(0), (8, 16))
      >>> loss = losses.info_nce(u, u, temperature=0.2).mean()

    References:
      Radford et al., 2021, https://arxiv.org/abs/2103.00020; Lee et al., 2025, Definition 3.1 with
      (c1, c2) = (1, 0), https://arxiv.org/abs/2506.09781.
    """
    pairs = _pairs.prepare("info_nce", u, v, ids, axis_name)
    scale = _pairs.inverse_temperature("info_nce", temperature, pairs.u.dtype)
    return info_nce_of_pairs(pairs, scale, axis_name, implementation, precision)


def info_nce_of_pairs(
    pairs: _pairs.Pairs,
    scale: jax.Array,
    axis_name: spmd.AxisName,
    implementation: str | None,
    precision: pairwise.Precision,
) -> jax.Array:
    """`info_nce` of pairs that are prepared already."""
    from_u, from_v = pairwise.logsumexp_both_ways(
        pairs.u,
        pairs.v,
        scale=scale,
        anchor_ids=pairs.ids,
        candidate_ids=pairs.ids,
        axis_name=axis_name,
        implementation=implementation,
        precision=precision,
    )
    positive = pairs.positive * scale
    return (jax.nn.softplus(from_u - positive) + jax.nn.softplus(from_v - positive)) / 2


@declare(learnable=("temperature",))
@explicit_axes.accept(out_axis=0)
def simclr(
    u: jax.Array,
    v: jax.Array,
    *,
    temperature: float | jax.Array = 0.2,
    ids: ArrayLike | None = None,
    axis_name: spmd.AxisName = None,
    implementation: str | None = None,
    precision: pairwise.Precision = "highest",
) -> jax.Array:
    r"""SimCLR's NT-Xent: cross-view and within-view negatives.

    .. math::
        \ell_i = \tfrac12 \log\Bigl(1 + \sum_{j \ne i} \bigl(e^{(u_i^\top v_j - u_i^\top v_i)/t}
                 + e^{(u_i^\top u_j - u_i^\top v_i)/t}\bigr)\Bigr) + \tfrac12 (u \leftrightarrow v)

    Args:
      u: [m, d] embeddings of one view, any float dtype; normalised inside. Under `axis_name`, this device's share.
      v: [m, d] embeddings of the other view; (u_i, v_i) is a positive pair.
      temperature: t > 0, scalar; may be traced. 0.2 is that of Lee 2025, Table 1.
      ids: [m] int instance ids; pairs with equal ids are never negatives of each other. Default: all differ.
      axis_name: compare against the embeddings of all devices along this mapped axis.
      implementation: how the negatives are reduced, see `pairwise.logsumexp`.
      precision: of the products, see `pairwise.similarities`.

    Returns:
      [m] float32 (float64 for float64 input), one value per pair, as `info_nce`.

    Raises:
      ValueError: as `info_nce`.

    Example:
      >>> u = jax.random.normal(jax.random.key(0), (8, 16))
      >>> loss = losses.simclr(u, u, temperature=0.2).mean()

    References:
      Chen et al., 2020, https://arxiv.org/abs/2002.05709; Lee et al., 2025, Definition 3.1 with (c1, c2) = (1, 1).
      The authors' code exponentiates before it takes the logarithm and overflows below t = 0.0113; this does not.
    """
    pairs = _pairs.prepare("simclr", u, v, ids, axis_name)
    scale = _pairs.inverse_temperature("simclr", temperature, pairs.u.dtype)
    from_u, from_v = _pairs.both_kinds(pairs, scale, axis_name, implementation, precision)
    positive = pairs.positive * scale
    return (jax.nn.softplus(from_u - positive) + jax.nn.softplus(from_v - positive)) / 2


@declare()
@explicit_axes.accept(out_axis=0)
def dcl(
    u: jax.Array,
    v: jax.Array,
    *,
    temperature: float | jax.Array = 0.2,
    sigma: float | jax.Array | None = None,
    ids: ArrayLike | None = None,
    axis_name: spmd.AxisName = None,
    implementation: str | None = None,
    precision: pairwise.Precision = "highest",
) -> jax.Array:
    r"""Decoupled contrastive learning: SimCLR without the positive pair in the denominator.

    .. math::
        \ell_i = -\frac{u_i^\top v_i}{t} + \tfrac12 \log \sum_{j \ne i} \bigl(e^{u_i^\top v_j/t}
                 + e^{u_i^\top u_j/t}\bigr) + \tfrac12 \log \sum_{j \ne i} \bigl(e^{v_i^\top u_j/t}
                 + e^{v_i^\top v_j/t}\bigr)

    With `sigma` it is DCLW: the positive term is weighed by a negated von Mises-Fisher density of mean 1,

    .. math:: w_i = 2 - \frac{e^{u_i^\top v_i/\sigma}}{\frac1m \sum_k e^{u_k^\top v_k/\sigma}}

    so that the pairs furthest apart are pulled the most.

    Args:
      u: [m, d] embeddings of one view, any float dtype; normalised inside. Under `axis_name`, this device's share.
      v: [m, d] embeddings of the other view; (u_i, v_i) is a positive pair.
      temperature: t > 0, scalar; may be traced.
      sigma: width of the weights, > 0, scalar; may be traced. 0.5 is usual. None weighs every pair by 1. The
        mean in w runs over the pairs of all devices.
      ids: [m] int instance ids; pairs with equal ids are never negatives of each other. Default: all differ.
      axis_name: compare against the embeddings of all devices along this mapped axis.
      implementation: how the negatives are reduced, see `pairwise.logsumexp`.
      precision: of the products, see `pairwise.similarities`.

    Returns:
      [m] float32 (float64 for float64 input), one value per pair, as `info_nce`. The logarithm of an anchor without
      negatives counts as 0.

    Raises:
      ValueError: as `info_nce`, or for a sigma known to be <= 0.

    Example:
      >>> u = jax.random.normal(jax.random.key(0), (8, 16))
      >>> loss = losses.dcl(u, u, temperature=0.2).mean()

    References:
      Yeh et al., 2022, https://arxiv.org/abs/2110.06848; Lee et al., 2025, Definition 3.1 with psi = log,
      (c1, c2) = (1, 1). The weights carry no gradient, as in lightly's DCLW: they say how much each pair is pulled.
      The paper leaves it open; differentiated, they would push apart the pairs that are much better aligned than the
      average.
    """
    pairs = _pairs.prepare("dcl", u, v, ids, axis_name)
    scale = _pairs.inverse_temperature("dcl", temperature, pairs.u.dtype)
    from_u, from_v = _pairs.both_kinds(pairs, scale, axis_name, implementation, precision)
    positive = pairs.positive * scale
    if sigma is not None:
        positive = positive * _mises_fisher_weights(pairs.positive, sigma, axis_name)
    return (_pairs.finite_or_zero(from_u) + _pairs.finite_or_zero(from_v)) / 2 - positive


@declare()
@explicit_axes.accept(out_axis=0)
def dhel(
    u: jax.Array,
    v: jax.Array,
    *,
    temperature: float | jax.Array = 0.2,
    form: str = "mean",
    ids: ArrayLike | None = None,
    axis_name: spmd.AxisName = None,
    implementation: str | None = None,
    precision: pairwise.Precision = "highest",
) -> jax.Array:
    r"""Decoupled hyperspherical energy loss: within-view negatives only, the positive pair apart.

    .. math::
        \ell_i = -\frac{u_i^\top v_i}{t} + w \Bigl(\log \sum_{j \ne i} e^{u_i^\top u_j/t}
                 + \log \sum_{j \ne i} e^{v_i^\top v_j/t}\Bigr)

    with w = 1/2 for `form="mean"` (Lee 2025, Definition 3.1), w = 1 for `"sum"` (the code of Koromilas 2024 with both
    views), and the first logarithm alone, with weight 1, for `"one_sided"` (their equation). Uniformity weighs twice as
    much under `"sum"` as under `"mean"`: the gradients are not parallel.

    Args:
      u: [m, d] embeddings of one view, any float dtype; normalised inside. Under `axis_name`, this device's share.
      v: [m, d] embeddings of the other view; (u_i, v_i) is a positive pair.
      temperature: t > 0, scalar; may be traced.
      form: `"mean"`, `"sum"` or `"one_sided"`.
      ids: [m] int instance ids; pairs with equal ids are never negatives of each other. Default: all differ.
      axis_name: compare against the embeddings of all devices along this mapped axis.
      implementation: how the negatives are reduced, see `pairwise.logsumexp`.
      precision: of the products, see `pairwise.similarities`.

    Returns:
      [m] float32 (float64 for float64 input), one value per pair, as `info_nce`. The logarithm of an anchor without
      negatives counts as 0.

    Raises:
      ValueError: as `info_nce`, or for an unknown form.

    Example:
      >>> u = jax.random.normal(jax.random.key(0), (8, 16))
      >>> loss = losses.dhel(u, u, temperature=0.2, form="sum").mean()

    References:
      Koromilas et al., 2024, Equation 5, https://arxiv.org/abs/2405.18045. On several devices the authors mask by the
      local batch and so lose or invent negatives; here every device sees all m - 1 of them.
    """
    if form not in DHEL_FORMS:
        raise ValueError(f"losses.dhel: expected form {', '.join(map(repr, DHEL_FORMS))}, got {form!r}.")
    pairs = _pairs.prepare("dhel", u, v, ids, axis_name)
    scale = _pairs.inverse_temperature("dhel", temperature, pairs.u.dtype)
    views = {"mean": (pairs.u, pairs.v), "sum": (pairs.u, pairs.v), "one_sided": (pairs.u,)}[form]
    options = {"scale": scale, "axis_name": axis_name, "implementation": implementation, "precision": precision}
    uniformity = sum(
        _pairs.finite_or_zero(pairwise.logsumexp(x, x, anchor_ids=pairs.ids, candidate_ids=pairs.ids, **options))
        for x in views
    )
    return uniformity * (0.5 if form == "mean" else 1.0) - pairs.positive * scale


def _mises_fisher_weights(positive: jax.Array, sigma: float | jax.Array, axis_name: spmd.AxisName) -> jax.Array:
    """2 - exp(s_i / sigma) / mean exp(s / sigma), over the positive pairs of all devices: [m], without a gradient."""
    sigma = _pairs.positive_scalar("dcl", "sigma", sigma, positive.dtype)
    logits = lax.stop_gradient(positive / sigma)
    everyone = spmd.gather(logits, axis_name)
    return 2 - everyone.shape[0] * jnp.exp(logits - jax.nn.logsumexp(everyone))
