"""Supervised contrastive learning: positives by label."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
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
    groups = _group_instances(labels, None if ids is None else pairs.ids, axis_name)
    dense = shared.choose_implementation(implementation, 2 * len(labels), 2 * len(labels), axis_name) == "dense"
    positives, u, v = (_sum_whole if dense else _sum_by_columns)(axis_name, pairs.u, pairs.v, groups)
    others = pairwise.logsumexp_over_views(
        [u, v],
        scale=scale,
        ids=instances,
        axis_name=axis_name,
        implementation=implementation,
        precision=precision,
    )
    # Both views of an instance have its label and its id: it has as many positives in one as in the other.
    number = 2 * _sum_of_groups(spmd.gather(jnp.ones_like(pairs.positive), axis_name), groups) - 1

    def one_sided(others: jax.Array, positives: jax.Array) -> jax.Array:
        return jnp.logaddexp(others, pairs.positive * scale) - positives / number * scale

    return (one_sided(others[0], positives[0]) + one_sided(others[1], positives[1])) / 2


class Group(NamedTuple):
    """Who shares a label, an id, or both: each has the number of its group."""

    numbers: jax.Array  # [m of all devices]
    mine: jax.Array  # [m]


Groups = list[Group]
Sums = tuple[jax.Array, jax.Array]  # [m] for the anchors u and the anchors v
# Those who share a label or an id: of both, less those who share both and were counted twice.
_SIGNS = (1, 1, -1)
_COLUMNS = 16


def _group_instances(labels: jax.Array, ids: jax.Array | None, axis_name: spmd.AxisName) -> Groups:
    """Groups by label; with ids also by id, and by both: in the order of the signs they count with."""
    keys = [[labels]] if ids is None else [[labels], [ids], [labels, ids]]
    return [_group_equals(each, axis_name) for each in keys]


def _group_equals(keys: list[jax.Array], axis_name: spmd.AxisName) -> Group:
    """Groups of the instances, of all devices, whose keys are equal.

    The instances are sorted by key, so memory stays linear in their number: there is no matrix of who equals whom.
    """
    everyone = [spmd.gather(key, axis_name) for key in keys]
    order = jnp.lexsort(everyone)
    first = sum((jnp.diff(key[order]) != 0).astype(jnp.int32) for key in everyone) > 0
    number = jnp.concatenate([jnp.zeros(1, jnp.int32), jnp.cumsum(first, dtype=jnp.int32)])
    numbers, m = jnp.zeros_like(number).at[order].set(number), len(keys[0])
    return Group(numbers, numbers[spmd.axis_index(axis_name) * m + jnp.arange(m, dtype=jnp.int32)])


def _sum_of_groups(x: jax.Array, groups: Groups) -> jax.Array:
    """For each of m instances the sum of x [m of all devices, ...] over those that share its label or its id."""
    terms = [
        sign * jax.ops.segment_sum(x, group.numbers, num_segments=len(x))[group.mine]
        for sign, group in zip(_SIGNS, groups, strict=False)
    ]
    return functools.reduce(jnp.add, terms)


def _sum_whole(
    axis_name: spmd.AxisName, u: jax.Array, v: jax.Array, groups: Groups
) -> tuple[Sums, jax.Array, jax.Array]:
    """Each anchor's sum of similarities to its positives; and u and v, as they came."""
    sums = _sum_of_groups(spmd.gather(u + v, axis_name), groups)
    of_u, of_v = (pairwise.of_pairs(x, sums - x) for x in (u, v))
    return (of_u, of_v), u, v


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _sum_by_columns(
    axis_name: spmd.AxisName, u: jax.Array, v: jax.Array, groups: Groups
) -> tuple[Sums, jax.Array, jax.Array]:
    """`_sum_whole` of some columns after others, so that no second array [m, d] is stored.

    The gradient of a further use of the u and v that it returns comes back through it, and it adds its own to that.
    """
    return _forward(axis_name, u, v, groups)[0]


def _forward(axis_name: spmd.AxisName, u: jax.Array, v: jax.Array, groups: Groups) -> tuple[Any, Any]:
    def body(i: jax.Array, sums: Sums) -> Sums:
        more, *_ = _sum_whole(axis_name, _columns(u, i), _columns(v, i), groups)
        return sums[0] + more[0], sums[1] + more[1]

    zeros, *_ = spmd.vary_alike((jnp.zeros(u.shape[:1], u.dtype), u, v, groups[0].mine))
    return (lax.fori_loop(0, u.shape[1] // _width(u), body, (zeros, zeros)), u, v), (u, v, groups)


def _backward(axis_name: spmd.AxisName, residuals: Any, g: tuple[Sums, jax.Array, jax.Array]) -> tuple[Any, Any, None]:
    u, v, groups = residuals

    def body(i: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        _, pull = jax.vjp(lambda u, v: _sum_whole(axis_name, u, v, groups)[0], _columns(u, i), _columns(v, i))
        du, dv = (
            lax.dynamic_update_slice_in_dim(x, _columns(x, i) + more, i * _width(x), 1)
            for x, more in zip(carry, pull(g[0]), strict=True)
        )
        return du, dv

    du, dv = lax.fori_loop(0, u.shape[1] // _width(u), body, g[1:])
    return du, dv, None


_sum_by_columns.defvjp(_forward, _backward)


def _width(x: jax.Array) -> int:
    """How many columns of x [m, d] are summed at once: as many as divide d."""
    return max(width for width in range(1, _COLUMNS + 1) if x.shape[1] % width == 0)


def _columns(x: jax.Array, i: jax.Array) -> jax.Array:
    return lax.dynamic_slice_in_dim(x, i * _width(x), _width(x), 1)
