"""Supervised contrastive learning: positives by label."""

import functools

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from contrastive_jax import explicit_axes, pairwise, spmd
from contrastive_jax.losses import _pairs
from contrastive_jax.losses.contract import declare
from contrastive_jax.pairwise import shared


@declare(labels=True)
@explicit_axes.accept(out_axis=0)
def sup_con(
    u: jax.Array,
    v: jax.Array,
    labels: ArrayLike,
    *,
    temperature: float | jax.Array = 0.1,
    ids: ArrayLike | None = None,
    axis_name: spmd.AxisName = None,
    implementation: str | None = None,
    precision: pairwise.Precision = "highest",
) -> jax.Array:
    r"""Supervised contrastive loss, L_out: every embedding of the anchor's class is a positive.

    Of the 2m embeddings z (u and v), anchor a has the positives P(a): all others with its label, its other view among
    them.

    .. math::
        \ell_a = -\frac{1}{|P(a)|} \sum_{p \in P(a)} \frac{z_a^\top z_p}{t} + \log \sum_{b \ne a} e^{z_a^\top z_b/t}

    and a pair's value is the mean over its two anchors. If all labels differ it equals `simclr`.

    Args:
      u: [m, d] embeddings of one view, any float dtype; normalised inside. Under `axis_name`, this device's share.
      v: [m, d] embeddings of the other view; (u_i, v_i) is a positive pair.
      labels: [m] int, any values; under `axis_name`, compared with those of all devices.
      temperature: t > 0, scalar; may be traced.
      ids: [m] int instance ids; pairs with equal ids are never negatives of each other: here they are positives,
        whatever their labels. If instances that are the same have the same label, ids change nothing. Default: all
        differ.
      axis_name: compare against the embeddings of all devices along this mapped axis.
      implementation: of the log-sum-exp, see `pairwise.logsumexp`. The sum over positives takes memory linear in m.
      precision: of the products, see `pairwise.similarities`.

    Returns:
      [m] float32 (float64 for float64 input), one value per pair, as `info_nce`. Finite for a label that occurs once:
      the other view is always a positive.

    Raises:
      ValueError: as `info_nce`, or for labels that are not integers [m].

    Example:
      >>> u = jax.random.normal(jax.random.key(0), (8, 16))
      >>> loss = losses.sup_con(u, u, jnp.arange(8) % 3, temperature=0.1).mean()

    References:
      Khosla et al., 2020, Equation 2, https://arxiv.org/abs/2004.11362. The authors' code multiplies it by
      temperature / 0.07, and subtracts a maximum that includes the anchor itself, which leaves log 0 at low
      temperatures.
    """
    pairs = _pairs.prepare("sup_con", u, v, ids, axis_name)
    scale = _pairs.inverse_temperature("sup_con", temperature, pairs.u.dtype)
    labels = shared.check_ids("losses.sup_con", "labels", labels, pairs.ids.shape)
    instances = _pairs.number_instances("sup_con", len(labels), None, axis_name)
    others = pairwise.logsumexp_over_views(
        [pairs.u, pairs.v],
        scale=scale,
        ids=instances,
        axis_name=axis_name,
        implementation=implementation,
        precision=precision,
    )
    # Both views of an instance have its label and its id: sums over instances serve both.
    sums, instances = _sum_of_positives(pairs.u + pairs.v, labels, None if ids is None else pairs.ids, axis_name)

    def one_sided(anchors: jax.Array, others: jax.Array) -> jax.Array:
        everything = jnp.logaddexp(others, pairs.positive * scale)
        return everything - pairwise.of_pairs(anchors, sums - anchors) / (2 * instances - 1) * scale

    return (one_sided(pairs.u, others[0]) + one_sided(pairs.v, others[1])) / 2


def _sum_of_positives(
    x: jax.Array, labels: jax.Array, ids: jax.Array | None, axis_name: spmd.AxisName
) -> tuple[jax.Array, jax.Array]:
    """For each of m instances the sum [m, d] of x over those that share its label or its id, and how many they are."""
    groups = [(1, _sum_of_equals(x, [labels], axis_name))]
    if ids is not None:  # equal in one or the other: those equal in both were counted twice
        groups += [(1, _sum_of_equals(x, [ids], axis_name)), (-1, _sum_of_equals(x, [labels, ids], axis_name))]
    sums, counts = (functools.reduce(jnp.add, [sign * group[i] for sign, group in groups]) for i in (0, 1))
    return sums, counts


def _sum_of_equals(x: jax.Array, keys: list[jax.Array], axis_name: spmd.AxisName) -> tuple[jax.Array, jax.Array]:
    """For each row of x [n, d] the sum of the rows, of all devices, whose keys equal its own, and their number.

    The rows are sorted by key, so memory stays linear in the number of rows: there is no matrix of who equals whom.
    """
    everyone, keys = spmd.gather(x, axis_name), [spmd.gather(key, axis_name) for key in keys]
    order = jnp.lexsort(keys)
    first = sum((jnp.diff(key[order]) != 0).astype(jnp.int32) for key in keys) > 0
    number = jnp.concatenate([jnp.zeros(1, jnp.int32), jnp.cumsum(first, dtype=jnp.int32)])
    group = jnp.zeros_like(number).at[order].set(number)
    mine = group[spmd.axis_index(axis_name) * len(x) + jnp.arange(len(x), dtype=jnp.int32)]
    sums = jax.ops.segment_sum(everyone, group, num_segments=len(group))
    counts = jax.ops.segment_sum(jnp.ones_like(everyone[:, 0]), group, num_segments=len(group))
    return sums[mine], counts[mine]
