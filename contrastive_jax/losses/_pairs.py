"""What every loss does first: check, normalise, number the instances."""

import numbers
from typing import NamedTuple

import jax
import jax.numpy as jnp

from contrastive_jax import pairwise, spmd


class Pairs(NamedTuple):
    """This device's positive pairs, ready to be compared."""

    u: jax.Array  # [m, d], unit norm
    v: jax.Array  # [m, d], unit norm
    ids: jax.Array  # [m] int32, unique over all devices unless the caller gave others
    positive: jax.Array  # [m], similarity of u_i and v_i


def prepare(name: str, u: jax.Array, v: jax.Array, ids: jax.Array | None, axis_name: spmd.AxisName) -> Pairs:
    """Check the shapes of a batch of pairs and normalise it."""
    u, v = jnp.asarray(u), jnp.asarray(v)
    if u.ndim != 2 or u.shape != v.shape:
        raise ValueError(f"losses.{name}: u and v of one shape [m, d] are wanted; got {u.shape} and {v.shape}.")
    if not jnp.issubdtype(u.dtype, jnp.floating) or not jnp.issubdtype(v.dtype, jnp.floating):
        raise ValueError(f"losses.{name}: u and v of a float dtype are wanted; got {u.dtype} and {v.dtype}.")
    m = u.shape[0]
    if m * spmd.axis_size(axis_name) < 2:
        raise ValueError(
            f"losses.{name}: m >= 2 pairs over all devices are wanted, else there are no negatives; got {m}."
        )
    if ids is None:
        ids = spmd.axis_index(axis_name) * m + jnp.arange(m, dtype=jnp.int32)
    elif ids.shape != (m,) or not jnp.issubdtype(ids.dtype, jnp.integer):
        raise ValueError(
            f"losses.{name}: ids are instance ids, integers of shape ({m},); got {ids.dtype} of shape {ids.shape}."
        )
    dtype = pairwise.accumulation_dtype(u.dtype, v.dtype)
    u, v = pairwise.normalize(u.astype(dtype)), pairwise.normalize(v.astype(dtype))
    return Pairs(u, v, ids, jnp.sum(u * v, axis=-1))


def inverse_temperature(name: str, temperature: float | jax.Array, dtype: jnp.dtype) -> jax.Array:
    """1 / temperature, as a scalar of the embeddings' dtype; a known temperature that is not positive is refused."""
    if isinstance(temperature, numbers.Real) and not temperature > 0:
        raise ValueError(f"losses.{name}: a temperature above 0 is wanted; got {temperature}.")
    temperature = jnp.asarray(temperature, dtype)
    if temperature.ndim != 0:
        raise ValueError(f"losses.{name}: a scalar temperature is wanted; got shape {temperature.shape}.")
    return 1 / temperature


def finite_or_zero(log_sum: jax.Array) -> jax.Array:
    """A log-sum-exp as it is, but 0 where an anchor has no negative at all (-inf)."""
    return jnp.where(jnp.isneginf(log_sum), 0, log_sum)
