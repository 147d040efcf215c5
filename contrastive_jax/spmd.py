"""Single program, many devices: collectives that also mean something on one device."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

AxisName = Any  # a hashable name, or a tuple of them; None for a program that is not mapped


def axis_size(axis_name: AxisName) -> int:
    """Number of devices along `axis_name`, a Python int; 1 where the program is not mapped."""
    return 1 if axis_name is None else lax.axis_size(axis_name)


def axis_index(axis_name: AxisName) -> jax.Array:
    """This device's position along `axis_name`, int32; 0 where the program is not mapped."""
    return jnp.int32(0) if axis_name is None else jnp.asarray(lax.axis_index(axis_name), jnp.int32)


def gather(x: jax.Array, axis_name: AxisName) -> jax.Array:
    """Concatenate every device's [m, ...] into [devices * m, ...], in device order.

    Its transpose sends each device the sum of all cotangents of its own part, so a loss of gathered embeddings keeps
    its whole gradient.
    """
    return x if axis_name is None else lax.all_gather(x, axis_name, axis=0, tiled=True)


def psum(x: Any, axis_name: AxisName) -> Any:
    """Sum over the devices along `axis_name`; the value itself where the program is not mapped."""
    return x if axis_name is None else lax.psum(x, axis_name)


def pmean(x: Any, axis_name: AxisName) -> Any:
    """Mean over the devices along `axis_name`; the value itself where the program is not mapped."""
    return x if axis_name is None else lax.pmean(x, axis_name)
