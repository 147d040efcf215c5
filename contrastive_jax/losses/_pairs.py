"""Steps that the losses share: check, normalise and number the pairs, and sums over negatives."""

import numbers
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from contrastive_jax import pairwise, spmd
from contrastive_jax.pairwise import shared


class Pairs(NamedTuple):
    """This device's positive pairs, ready to be compared."""

    u: jax.Array  # [m, d], unit norm
    v: jax.Array  # [m, d], unit norm
    ids: jax.Array  # [m] int, unique over all devices unless the caller gave others
    positive: jax.Array  # [m], similarity of u_i and v_i


def prepare(name: str, u: jax.Array, v: jax.Array, ids: ArrayLike | None, axis_name: spmd.AxisName) -> Pairs:
    """Check the shapes of a batch of pairs and normalise it."""
    u, v = jnp.asarray(u), jnp.asarray(v)
    if u.ndim != 2 or u.shape != v.shape:
        raise ValueError(f"losses.{name}: expected u and v of the same shape [m, d], got {u.shape} and {v.shape}.")
    if not jnp.issubdtype(u.dtype, jnp.floating) or not jnp.issubdtype(v.dtype, jnp.floating):
        raise ValueError(f"losses.{name}: expected u and v of a float dtype, got {u.dtype} and {v.dtype}.")
    ids = number_instances(name, u.shape[0], ids, axis_name)
    dtype = shared.accumulation_dtype(u.dtype, v.dtype)
    u, v = pairwise.normalize(u.astype(dtype)), pairwise.normalize(v.astype(dtype))
    return Pairs(u, v, ids, pairwise.of_pairs(u, v))


def number_instances(name: str, m: int, ids: ArrayLike | None, axis_name: spmd.AxisName) -> jax.Array:
    """The caller's instance ids [m], checked; or, for None, numbers that no other device uses."""
    if m * spmd.axis_size(axis_name) < 2:
        raise ValueError(f"losses.{name}: expected m >= 2 pairs over all devices, got {m}; fewer have no negatives.")
    if ids is None:
        return spmd.axis_index(axis_name) * m + jnp.arange(m, dtype=jnp.int32)
    return shared.check_ids(f"losses.{name}", "ids", ids, (m,))


def scalar(name: str, what: str, value: float | jax.Array, dtype: jnp.dtype) -> jax.Array:
    """A hyperparameter, which may be traced, as a scalar of the embeddings' dtype."""
    value = jnp.asarray(value, dtype)
    if value.ndim != 0:
        raise ValueError(f"losses.{name}: expected a scalar {what}, got shape {value.shape}.")
    return value


def positive_scalar(name: str, what: str, value: float | jax.Array, dtype: jnp.dtype) -> jax.Array:
    """A `scalar` that must be positive, if its value is known."""
    if isinstance(value, numbers.Real) and not value > 0:
        raise ValueError(f"losses.{name}: expected {what} > 0, got {value}.")
    return scalar(name, what, value, dtype)


def inverse_temperature(name: str, temperature: float | jax.Array, dtype: jnp.dtype) -> jax.Array:
    """1 / temperature, as a scalar of the embeddings' dtype; a known temperature must be positive."""
    return 1 / positive_scalar(name, "temperature", temperature, dtype)


def negatives_per_anchor(pairs: Pairs, ids: ArrayLike | None, axis_name: spmd.AxisName) -> int | jax.Array:
    """How many negatives of one kind (cross-view, or within a view) each anchor has: one int, or [m] with ids."""
    if ids is None:
        return pairs.ids.shape[0] * spmd.axis_size(axis_name) - 1
    everyone = jnp.sort(spmd.gather(pairs.ids, axis_name))  # instead of an [m, m] comparison: memory is linear in m
    equal = jnp.searchsorted(everyone, pairs.ids, side="right") - jnp.searchsorted(everyone, pairs.ids, side="left")
    return (len(everyone) - equal).astype(pairs.positive.dtype)


def mean_square(
    name: str,
    pairs: Pairs,
    ids: ArrayLike | None,
    shift: float | jax.Array,
    axis_name: spmd.AxisName,
    implementation: str | None,
    precision: pairwise.Precision,
) -> jax.Array:
    """The mean of (u_i.v_j - shift)^2 over each anchor's negatives [m]; 0 for an anchor without any.

    `"moments"` forms no similarities. None chooses it from 2d pairs on: there it is both cheaper and as exact.
    """
    shared.check_implementation(f"losses.{name}", implementation, axis_name, known=(*shared.REDUCTIONS, "moments"))
    everyone, dimensions = len(pairs.u) * spmd.axis_size(axis_name), pairs.u.shape[1]
    if implementation == "moments" or (implementation is None and everyone >= 2 * dimensions):
        numbered: dict[str, Any] = (
            {"paired": True} if ids is None else {"anchor_ids": pairs.ids, "candidate_ids": pairs.ids}
        )
        found = pairwise.moments(pairs.u, pairs.v, shift=shift, axis_name=axis_name, precision=precision, **numbered)
        return found.squares / jnp.maximum(found.number, 1)
    squares = pairwise.total(
        lambda s: jnp.square(s - shift),
        pairs.u,
        pairs.v,
        anchor_ids=pairs.ids,
        candidate_ids=pairs.ids,
        axis_name=axis_name,
        implementation=implementation,
        precision=precision,
    )
    return squares / jnp.maximum(negatives_per_anchor(pairs, ids, axis_name), 1)


def both_kinds(
    pairs: Pairs,
    scale: jax.Array,
    axis_name: spmd.AxisName,
    implementation: str | None,
    precision: pairwise.Precision,
) -> list[jax.Array]:
    """Log-sum-exp over cross-view and within-view negatives, for the anchors u and the anchors v: two of [m]."""
    options: dict[str, Any] = {"axis_name": axis_name, "implementation": implementation, "precision": precision}
    return pairwise.logsumexp_over_views([pairs.u, pairs.v], scale=scale, ids=pairs.ids, **options)


def squared_distance(pairs: Pairs) -> jax.Array:
    """|u_i - v_i|^2 [m], accurate however close the two are.

    For unit vectors it equals 2 - 2 u_i.v_i. A zero row is orthogonal to everything, so that here it gives 2 as well.
    """
    zeros = sum(jnp.all(x == 0, axis=-1).astype(x.dtype) for x in (pairs.u, pairs.v))
    return jnp.sum(jnp.square(pairs.u - pairs.v), axis=-1) + zeros


def finite_or_zero(log_sum: jax.Array) -> jax.Array:
    """A log-sum-exp as it is, but 0 where an anchor has no negative at all (-inf)."""
    return jnp.where(jnp.isneginf(log_sum), 0, log_sum)


def logsumexp(logits: jax.Array) -> jax.Array:
    """log of the sum of exp over the first axis; -inf, with a zero gradient, where every entry is -inf."""
    empty = jnp.all(jnp.isneginf(logits), axis=0)
    return jnp.where(empty, -jnp.inf, jax.nn.logsumexp(jnp.where(empty[None], 0, logits), axis=0))
