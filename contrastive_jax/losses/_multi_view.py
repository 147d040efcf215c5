"""More than two views of each instance (Koromilas 2025)."""

import itertools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from contrastive_jax import explicit_axes, pairwise, spmd
from contrastive_jax.losses import _pairs, _softmax
from contrastive_jax.losses.contract import declare

INFO_NCE_FORMS = ("joint", "pairwise")
DHEL_FORMS = ("sum", "mean")


@declare(many_views=True)
@explicit_axes.accept(out_axis=1)
def multi_view_info_nce(
    views: jax.Array,
    *,
    temperature: float | jax.Array = 0.2,
    form: str = "pairwise",
    ids: ArrayLike | None = None,
    axis_name: spmd.AxisName = None,
    implementation: str | None = None,
    precision: pairwise.Precision = "highest",
) -> jax.Array:
    r"""MV-InfoNCE: one logarithm over the interactions of all views of an instance.

    With z_il the embedding of view l of instance i, `form="joint"` is the paper's

    .. math::
        \ell_i = -\log \frac{\sum_{l \ne k} e^{z_{il}^\top z_{ik}/t}}
                            {\sum_{l \ne k} \sum_j e^{z_{il}^\top z_{jk}/t}}

    over ordered pairs of views l, k, and `form="pairwise"` what the paper compares it with, PWE: the mean of `info_nce`
    over all pairs of views. On two views "pairwise" is `info_nce`; "joint" is not: it takes one logarithm of both
    directions together where `info_nce` takes the mean of two, and is never below it.

    Args:
      views: [V, m, d] embeddings of V >= 2 views of m instances, any float dtype; normalised inside. Under `axis_name`,
        this device's share of the instances, with all their views.
      temperature: t > 0, scalar; may be traced.
      form: `"joint"` or `"pairwise"`.
      ids: [m] int instance ids; pairs with equal ids are never negatives of each other. Default: all differ.
      axis_name: compare against the embeddings of all devices along this mapped axis.
      implementation: how the negatives are reduced, see `pairwise.logsumexp`.
      precision: of the products, see `pairwise.similarities`.

    Returns:
      [m] float32 (float64 for float64 input), one value per instance, as `info_nce` gives one per pair.

    Raises:
      ValueError: for views that are not [V >= 2, m, d] of a float dtype, fewer than two instances over all devices, a
        temperature known to be <= 0, an unknown form, or an unknown implementation or precision.

    Example:
      >>> views = jax.random.normal(jax.random.key(0), (4, 8, 16))
      >>> loss = losses.multi_view_info_nce(views, temperature=0.2).mean()

    References:
      Koromilas et al., 2025, https://arxiv.org/abs/2507.06979. The authors' code also puts the within-view pairs in
      the denominator; their equation, followed here, does not.
    """
    if form not in INFO_NCE_FORMS:
        raise ValueError(f"losses.multi_view_info_nce: expected form 'joint' or 'pairwise', got {form!r}.")
    embeddings, ids = _prepare("multi_view_info_nce", views, ids, axis_name)
    options = {"axis_name": axis_name, "implementation": implementation, "precision": precision}
    scale = _pairs.inverse_temperature("multi_view_info_nce", temperature, embeddings[0].dtype)
    if form == "pairwise":
        pairs = [_pairs.Pairs(u, v, ids, pairwise.of_pairs(u, v)) for u, v in itertools.combinations(embeddings, 2)]
        values = [_softmax.info_nce_of_pairs(x, scale, axis_name, implementation, precision) for x in pairs]
        return jnp.mean(jnp.stack(values), axis=0)
    negatives = [
        pairwise.logsumexp_both_ways(u, v, scale=scale, anchor_ids=ids, candidate_ids=ids, **options)
        for u, v in itertools.combinations(embeddings, 2)
    ]
    positives = _log_sum_of_positives(embeddings, scale) + math.log(2)  # each pair in both orders
    return jax.nn.softplus(_pairs.logsumexp(jnp.stack(jax.tree.leaves(negatives))) - positives)


@declare(many_views=True)
@explicit_axes.accept(out_axis=1)
def multi_view_dhel(
    views: jax.Array,
    *,
    temperature: float | jax.Array = 0.2,
    form: str = "sum",
    ids: ArrayLike | None = None,
    axis_name: spmd.AxisName = None,
    implementation: str | None = None,
    precision: pairwise.Precision = "highest",
) -> jax.Array:
    r"""MV-DHEL: one logarithm aligns all views of an instance; each view is made uniform on its own.

    With z_il the embedding of view l of instance i,

    .. math::
        \ell_i = -\log \sum_{l < k} e^{z_{il}^\top z_{ik}/t} + w \sum_l \log \sum_{j \ne i} e^{z_{il}^\top z_{jl}/t}

    with w = 1 for `form="sum"`, the paper's, and w = 1/V for `form="mean"`, whose weight of uniformity does not grow
    with the number of views. On two views each form is that form of `dhel` (whose own default is `"mean"`).

    Args:
      views: [V, m, d] embeddings of V >= 2 views of m instances, any float dtype; normalised inside. Under `axis_name`,
        this device's share of the instances, with all their views.
      temperature: t > 0, scalar; may be traced.
      form: `"sum"` or `"mean"`.
      ids: [m] int instance ids; pairs with equal ids are never negatives of each other. Default: all differ.
      axis_name: compare against the embeddings of all devices along this mapped axis.
      implementation: how the negatives are reduced, see `pairwise.logsumexp`.
      precision: of the products, see `pairwise.similarities`.

    Returns:
      [m] float32 (float64 for float64 input), one value per instance. The logarithm of an anchor without negatives
      counts as 0.

    Raises:
      ValueError: as `multi_view_info_nce`.

    Example:
      >>> views = jax.random.normal(jax.random.key(0), (4, 8, 16))
      >>> loss = losses.multi_view_dhel(views, temperature=0.2).mean()

    References:
      Koromilas et al., 2025, https://arxiv.org/abs/2507.06979. As in the authors' code each pair of views counts once
      and an anchor is not its own negative; their equation counts each pair in both orders, which takes off log 2.
    """
    if form not in DHEL_FORMS:
        raise ValueError(f"losses.multi_view_dhel: expected form 'sum' or 'mean', got {form!r}.")
    embeddings, ids = _prepare("multi_view_dhel", views, ids, axis_name)
    scale = _pairs.inverse_temperature("multi_view_dhel", temperature, embeddings[0].dtype)
    options = {"scale": scale, "axis_name": axis_name, "implementation": implementation, "precision": precision}
    uniformity = sum(
        _pairs.finite_or_zero(pairwise.logsumexp(x, x, anchor_ids=ids, candidate_ids=ids, **options))
        for x in embeddings
    )
    return uniformity / (1 if form == "sum" else len(embeddings)) - _log_sum_of_positives(embeddings, scale)


class _Views(NamedTuple):
    views: list[jax.Array]  # V times [m, d], unit norm
    ids: jax.Array  # [m] int32


def _prepare(name: str, views: jax.Array, ids: ArrayLike | None, axis_name: spmd.AxisName) -> _Views:
    views = jnp.asarray(views)
    if views.ndim != 3 or views.shape[0] < 2:
        raise ValueError(f"losses.{name}: expected views of shape [V, m, d] with V >= 2, got {views.shape}.")
    if not jnp.issubdtype(views.dtype, jnp.floating):
        raise ValueError(f"losses.{name}: expected views of a float dtype, got {views.dtype}.")
    ids = _pairs.number_instances(name, views.shape[1], ids, axis_name)
    return _Views([pairwise.normalize(x) for x in views], ids)


def _log_sum_of_positives(views: list[jax.Array], scale: jax.Array) -> jax.Array:
    """log of the sum over pairs of views of exp(scale * similarity): [m]."""
    similarity = jnp.stack([pairwise.of_pairs(u, v) for u, v in itertools.combinations(views, 2)])
    return jax.nn.logsumexp(similarity * scale, axis=0)
