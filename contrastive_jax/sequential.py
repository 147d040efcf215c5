"""Copies of a computation that `vmap` asks for, a few at a time: side by side they are larger than a cache."""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar, cast

import jax
from jax import lax

Function = TypeVar("Function", bound=Callable[..., Any])
# Up to about this many entries of a matrix at once: a processor gains nothing from more (experiments/benchmarks/sets).
ENTRIES = 2**20


def vmap_in_groups(fn: Callable[[Any], Any], args: Any, entries: int) -> Any:
    """`jax.vmap(fn)(args)`, computed one group after the other.

    Args:
      fn: a function of one copy of the arguments.
      args: a tree of arrays [k, ...].
      entries: how many entries the largest matrix of one copy has. A group has at most `ENTRIES` of them, or one copy.

    Returns:
      What `fn` returns, with an axis of k in front of each array.
    """
    at_once = ENTRIES // entries
    if at_once >= len(jax.tree.leaves(args)[0]):
        return jax.vmap(fn)(args)
    return lax.map(fn, args, batch_size=at_once if at_once > 1 else None)


def in_groups(fn: Function, entries: int) -> Function:
    """`fn` as it is, except that `vmap` maps it in groups, like `vmap_in_groups`.

    A branch that `fn` takes is then taken by each copy for itself. Its derivatives are those of `fn`, in forward and in
    reverse mode; under `vmap` they are mapped all at once. `fn` may use no collectives and close over no tracers.
    """

    grouped = _group(fn, entries)

    @jax.custom_jvp
    def call(*args: Any) -> Any:
        return grouped(*args)

    @call.defjvp
    def jvp(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> Any:
        return jax.jvp(fn, primals, tangents)

    return cast(Function, call)


def _group(fn: Callable[..., Any], entries: int) -> Callable[..., Any]:
    """`in_groups` without derivatives."""

    @jax.custom_batching.custom_vmap
    def call(*args: Any) -> Any:
        return fn(*args)

    @call.def_vmap
    def rule(axis_size: int, in_batched: Any, *args: Any) -> tuple[Any, Any]:
        leaves, structure = jax.tree.flatten(args)
        batched = jax.tree.leaves(in_batched)

        def of_copy(fn: Callable[..., Any], own: list[jax.Array]) -> Any:
            copied = iter(own)
            whole = [next(copied) if b else x for x, b in zip(leaves, batched, strict=True)]
            return fn(*jax.tree.unflatten(structure, whole))

        own = [x for x, b in zip(leaves, batched, strict=True) if b]
        if axis_size * entries <= ENTRIES:  # one group, which is a copy of a further vmap
            out = _group(jax.vmap(partial(of_copy, fn)), axis_size * entries)(own)
        else:
            out = vmap_in_groups(partial(of_copy, call), own, entries)
        return out, jax.tree.map(lambda _: True, out)

    return call


@jax.custom_batching.custom_vmap
def all_agree(condition: jax.Array) -> jax.Array:
    """A condition; under `vmap`, whether it holds for all copies, so that `lax.cond` takes one branch for all of them.

    Without it `vmap` makes `lax.cond` compute both branches. Both must be right where the condition is False.
    """
    return condition


@all_agree.def_vmap
def _all_agree_rule(axis_size: int, in_batched: list[bool], condition: jax.Array) -> tuple[jax.Array, bool]:
    del axis_size, in_batched  # it is called only where its one argument is mapped
    return all_agree(condition.all(axis=0)), False
