"""Functions of whole arrays on meshes with explicit axes, which `jax.make_mesh` gives by default."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from contrastive_jax import closures

Function = TypeVar("Function", bound=Callable[..., Any])


def accept(out_axis: int | None) -> Callable[[Function], Function]:
    """Let a function take arrays that are sharded over explicit axes, of which every operation would have to speak.

    Inside the function those axes are automatic: XLA divides the work. Where no axis is explicit, as inside
    `shard_map`, the function is called as it is.

    Args:
      out_axis: the first axis of each output is sharded as this axis of the first array is; None: it is replicated.

    Returns:
      A decorator.
    """

    def decorate(fn: Function) -> Function:
        @functools.wraps(fn)
        def call(*args: Any, **kwargs: Any) -> Any:
            leaves, structure = jax.tree.flatten((args, kwargs))
            mesh = _explicit_mesh(leaves)
            if mesh is None:
                return fn(*args, **kwargs)
            arrays, fill = _split(leaves, mesh)

            def on_automatic_axes(arrays: list[Any]) -> Any:
                args, kwargs = jax.tree.unflatten(structure, fill(arrays))
                return fn(*args, **kwargs)

            sharding = NamedSharding(mesh, _spec(leaves, out_axis))
            automatic = jax.sharding.auto_axes(on_automatic_axes, axes=_explicit(mesh), out_sharding=sharding)
            if not jax.sharding.get_abstract_mesh().axis_names:  # no mesh in use: constants find that of the arrays
                automatic = jax.jit(automatic)
            return automatic(arrays)

        return cast(Function, call)

    return decorate


def _explicit_mesh(leaves: list[Any]) -> Any:
    """The mesh whose explicit axes are in use here; None where there are none."""
    here = jax.sharding.get_abstract_mesh()
    if here.axis_names:
        return here if _explicit(here) else None
    meshes = (jax.typeof(x).sharding.mesh for x in leaves if isinstance(x, jax.Array))
    return next((mesh for mesh in meshes if _explicit(mesh)), None)


def _explicit(mesh: Any) -> tuple[str, ...]:
    kinds = zip(mesh.axis_names, mesh.axis_types or (), strict=False)
    return tuple(name for name, kind in kinds if kind == AxisType.Explicit)


def _spec(leaves: list[Any], axis: int | None) -> PartitionSpec:
    """How the first array that has this axis is sharded along it."""
    specs = (jax.typeof(x).sharding.spec for x in leaves if isinstance(x, jax.Array) and x.ndim > (axis or 0))
    return PartitionSpec() if axis is None else PartitionSpec(*next(specs, PartitionSpec())[axis : axis + 1])


def _split(leaves: list[Any], mesh: Any) -> tuple[list[Any], Callable[[list[Any]], list[Any]]]:
    """The arrays among the leaves, with those that functions close over; and how to put them back."""
    double = any(isinstance(x, jax.Array) and x.dtype == jnp.float64 for x in leaves)
    like = jnp.zeros((), jnp.float64 if double else jnp.float32)
    functions = {i: closures.hoist_elementwise(x, like) for i, x in enumerate(leaves) if callable(x)}
    arrays: list[Any] = [x if isinstance(x, jax.Array) else None for x in leaves]
    arrays = [functions[i].arrays if i in functions else x for i, x in enumerate(arrays)]
    shardings = jax.tree.map(lambda x: NamedSharding(mesh, jax.typeof(x).sharding.spec), arrays)

    def fill(arrays: list[Any]) -> list[Any]:
        filled = [leaf if array is None else array for leaf, array in zip(leaves, arrays, strict=True)]
        for i, function in functions.items():
            filled[i] = functools.partial(_on_explicit_axes(function.fn, mesh, shardings[i]), arrays[i])
        return filled

    return arrays, fill


def _on_explicit_axes(fn: Callable[..., jax.Array], mesh: Any, shardings: Any) -> Callable[..., jax.Array]:
    """A hoisted function, called on automatic axes: within, they are explicit, as they were where it was traced."""
    whole = NamedSharding(mesh, PartitionSpec())
    return jax.sharding.explicit_axes(fn, axes=_explicit(mesh), in_sharding=(shardings, whole))
