"""The only place that knows the differences between JAX versions, 0.7 to the newest.

Each difference is found by looking for the feature, never by comparing version numbers.
"""

from contextlib import AbstractContextManager
from typing import Any, cast

import jax
from jax import lax


def enable_x64(new_value: bool = True) -> AbstractContextManager[None]:
    """A context in which JAX holds 64-bit values, or does not: `jax.enable_x64` (`jax.experimental`'s before 0.8)."""
    if hasattr(jax, "enable_x64"):
        return cast(AbstractContextManager[None], jax.enable_x64(new_value))
    from jax import experimental

    return cast(Any, experimental).enable_x64(new_value)


def varying_axes(x: Any) -> frozenset[Any]:
    """The mapped axes over which `shard_map` takes an array to differ; none outside `shard_map`."""
    aval = jax.typeof(x)
    if hasattr(aval, "manual_axis_type"):
        return frozenset(aval.manual_axis_type.varying)
    return frozenset(cast(Any, aval).vma)  # before 0.10


def is_about_varying(error: Exception) -> bool:
    """Whether `shard_map` refused a primitive or a loop because its values do not differ over the same axes.

    The values may be right all the same: loops that start from a constant are refused, and so is the gradient of `erf`
    on JAX 0.12.0. That an output differs between the devices is another error.
    """
    return "manual ax" in str(error)


def mark_varying(x: jax.Array, axes: tuple[Any, ...]) -> jax.Array:
    """An array marked as differing over more mapped axes: `lax.pcast` (`lax.pvary` before 0.8)."""
    if hasattr(lax, "pcast"):
        return lax.pcast(x, axes, to="varying")
    return cast(Any, lax).pvary(x, axes)


def shape_varying_as(shape: tuple[int, ...], dtype: Any, arrays: Any) -> jax.ShapeDtypeStruct:
    """The shape and dtype of what is computed from a tree of arrays, which differs where any of them does."""
    axes = frozenset[Any]().union(*map(varying_axes, jax.tree.leaves(arrays)))
    if not axes:
        return jax.ShapeDtypeStruct(shape, dtype)
    if hasattr(jax.typeof(0), "manual_axis_type"):
        kind = cast(Any, type(jax.typeof(0).manual_axis_type))
        return jax.ShapeDtypeStruct(shape, dtype, manual_axis_type=kind(varying=axes))
    return cast(Any, jax.ShapeDtypeStruct)(shape, dtype, vma=axes)  # before 0.10
