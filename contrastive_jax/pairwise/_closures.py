"""What a user's function closes over, as arguments: a custom gradient may close over nothing that is traced."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Hoisted(NamedTuple):
    """A function without a closure, and what its closure held."""

    fn: Callable[..., jax.Array]  # (others, s, *constants) -> the function's values at s
    constants: tuple[jax.Array, ...]  # traced floats: the gradient reaches them
    others: tuple[jax.Array, ...]  # everything else, such as integers, keys, and arrays that are known


def hoist(fn: Callable[[jax.Array], jax.Array], like: jax.Array) -> Hoisted:
    """Make arguments of all arrays that `fn` closes over, by tracing it once for a `like`.

    `jax.closure_convert` does this for traced floats alone.
    """
    traced = jax.make_jaxpr(fn)(like)
    differentiable = [_is_differentiable(x) for x in traced.consts]

    def without_closure(others: tuple[jax.Array, ...], s: jax.Array, *constants: jax.Array) -> jax.Array:
        of_kind = {True: iter(constants), False: iter(others)}
        return jax.core.eval_jaxpr(traced.jaxpr, [next(of_kind[x]) for x in differentiable], s)[0]

    def having(kind: bool) -> tuple[jax.Array, ...]:
        return tuple(x for x, own in zip(traced.consts, differentiable, strict=True) if own == kind)

    return Hoisted(without_closure, having(True), having(False))


def _is_differentiable(x: Any) -> bool:
    return isinstance(x, jax.core.Tracer) and jnp.issubdtype(x.dtype, jnp.inexact)
