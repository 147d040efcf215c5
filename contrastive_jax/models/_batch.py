"""The whole batch, of all devices, as a layer inside a model sees it."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, nnx
from jax.custom_batching import custom_vmap

from contrastive_jax import spmd
from contrastive_jax.errors import UsageError


class _Call(NamedTuple):
    """How the model that is being called gets its batch."""

    axis_name: spmd.AxisName = None
    by_row: bool = False  # under a vmap over rows, or over parts, of it


_NO_CALL = _Call()
_this_call: ContextVar[_Call] = ContextVar("this_call", default=_NO_CALL)


def batch_mean(x: jax.Array) -> jax.Array:
    """Mean over the rows of the whole batch of all devices, for layers that keep statistics of their own.

    `models.apply` knows the mapped axis, and whether the model sees the batch row by row; called elsewhere this is
    `x.mean(axis=0)`.

    Args:
      x: [b, ...], one row for each image.

    Returns:
      [...], the same on every device.

    Example:
      >>> batch_mean(jnp.array([[1.0, 2.0], [3.0, 4.0]]))
      Array([2., 3.], dtype=float32)
    """
    axis_name = _this_call.get().axis_name

    def mean(_: tuple[()], rows: jax.Array) -> tuple[jax.Array, tuple[()]]:
        return spmd.pmean(rows.mean(axis=0), axis_name), ()

    return _see_whole_batch(mean)((), x)[0]


def _see_whole_batch(fn: Callable[[Any, Any], tuple[Any, Any]]) -> Callable[[Any, Any], tuple[Any, Any]]:
    """`fn(shared, rows) -> (shared, rows)` that gets all rows at once even under a `vmap` over rows.

    `shard_map` with `check_vma=True` refuses collectives over the axis of a `vmap`, so that a layer could not average
    over it. Instead the rows [n, b, ...] of all n members are handed over as one batch [n * b, ...].
    """
    if not _this_call.get().by_row:
        return fn
    call = custom_vmap(fn)

    @call.def_vmap
    def of_all_members(size: int, is_mapped: Any, shared: Any, rows: Any) -> tuple[Any, Any]:
        if any(jax.tree.leaves(is_mapped[0])):
            raise UsageError(
                "expected the parameters and statistics of a normalisation to be the same for all rows of a batch, got "
                "some under a vmap inside the model. Call the normalisation outside that vmap."
            )

        def joined(x: jax.Array, mapped: bool) -> jax.Array:
            x = x if mapped else jnp.broadcast_to(x, (size, *x.shape))
            return x.reshape(-1, *x.shape[2:])

        shared, rows = fn(shared, jax.tree.map(joined, rows, is_mapped[1]))
        rows = jax.tree.map(lambda x: x.reshape(size, -1, *x.shape[1:]), rows)
        return (shared, rows), (jax.tree.map(lambda _: False, shared), jax.tree.map(lambda _: True, rows))

    return call


@contextlib.contextmanager
def normalize_over(model: nnx.Module, axis_name: spmd.AxisName, *, by_row: bool) -> Iterator[None]:
    """Within, every batch normalisation of `model` and every `batch_mean` is over the whole batch of all devices.

    Args:
      model: a copy of the caller's own: its normalisations are changed.
      axis_name: the mapped axis of the devices; None outside one.
      by_row: whether `model` is called under a `vmap` over rows, or over parts, of the batch.
    """
    for _, module in nnx.iter_modules(model):
        if isinstance(module, nnx.BatchNorm):
            module.axis_name = axis_name
            if by_row:
                object.__setattr__(module, "__class__", _of_whole_batch(type(module)))
    token = _this_call.set(_Call(axis_name, by_row))
    try:
        with linen.intercept_methods(_linen_of_whole_batch(axis_name)):
            yield
    finally:
        _this_call.reset(token)


@functools.cache
def _of_whole_batch(kind: type[nnx.BatchNorm]) -> type[nnx.BatchNorm]:
    """The class of a normalisation that sees all rows at once; its instances keep their attributes."""

    def __call__(self: nnx.BatchNorm, *args: Any, **kwargs: Any) -> jax.Array:
        graphdef, state = nnx.split(self)
        arrays, fill = _separate_arrays(args, kwargs)

        def call(state: nnx.State, arrays: Any) -> tuple[nnx.State, jax.Array]:
            norm = nnx.merge(graphdef, state, copy=True)
            args, kwargs = fill(arrays)
            out = kind.__call__(norm, *args, **kwargs)
            return nnx.state(norm), out

        state, out = _see_whole_batch(call)(state, arrays)
        nnx.update(self, state)
        return out

    return type(kind.__name__, (kind,), {"__call__": __call__})


def _linen_of_whole_batch(axis_name: spmd.AxisName) -> Callable[..., Any]:
    """An interceptor that does the same for the normalisations of a Linen module in `nnx.bridge.ToNNX`."""
    inside = False

    def intercept(call_method: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        nonlocal inside
        norm = context.module
        is_call = isinstance(norm, linen.BatchNorm) and context.method_name == "__call__"
        if inside or not is_call or norm.is_initializing():
            return call_method(*args, **kwargs)
        alone = norm.clone(parent=None, axis_name=axis_name)
        mutable = ["batch_stats"] if norm.is_mutable_collection("batch_stats") else []
        arrays, fill = _separate_arrays(args, kwargs)

        def call(variables: Any, arrays: Any) -> tuple[Any, jax.Array]:
            args, kwargs = fill(arrays)
            out, updates = alone.apply(variables, *args, mutable=mutable, **kwargs)
            return updates, out

        inside = True
        try:
            updates, out = _see_whole_batch(call)(dict(norm.variables), arrays)
        finally:
            inside = False
        for name, value in updates.get("batch_stats", {}).items():
            norm.put_variable("batch_stats", name, value)
        return out

    return intercept


def _separate_arrays(args: Any, kwargs: Any) -> tuple[list[Any], Callable[[list[Any]], tuple[Any, Any]]]:
    """The arrays among the arguments of a call, and a function that puts others into their places."""
    leaves, treedef = jax.tree.flatten((args, kwargs))
    is_array = [isinstance(leaf, jax.Array | np.ndarray) for leaf in leaves]

    def fill(arrays: list[Any]) -> tuple[Any, Any]:
        remaining = iter(arrays)
        filled = [next(remaining) if array else leaf for leaf, array in zip(leaves, is_array, strict=True)]
        return jax.tree.unflatten(treedef, filled)

    return [leaf for leaf, array in zip(leaves, is_array, strict=True) if array], fill
