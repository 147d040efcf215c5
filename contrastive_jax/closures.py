"""What a user's function closes over, as arguments, where a closure may hold nothing that is traced."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

Elementwise = Callable[[jax.Array], jax.Array]


class Hoisted(NamedTuple):
    """A function without a closure, and the arrays that its closure held."""

    fn: Callable[[tuple[Any, ...], jax.Array], jax.Array]  # (arrays, s) -> the function's values at s
    arrays: tuple[Any, ...]


def hoist(fn: Elementwise, like: jax.Array) -> Hoisted:
    """Make arguments of all arrays that `fn` closes over, by tracing it once, for an array `like` those it will get.

    `jax.closure_convert` does so for traced floats alone, not for integers, bools or keys.
    """
    traced = jax.make_jaxpr(fn)(like)

    def without_closure(arrays: tuple[Any, ...], s: jax.Array) -> jax.Array:
        return jax.core.eval_jaxpr(traced.jaxpr, arrays, s)[0]

    return Hoisted(without_closure, tuple(traced.consts))


def hoist_elementwise(fn: Elementwise, like: jax.Array) -> Hoisted:
    """`hoist` for arrays of any shape; `like` is a scalar of their dtype."""
    of_scalar, arrays = hoist(fn, like)

    def of_any_shape(arrays: tuple[Any, ...], s: jax.Array) -> jax.Array:
        return jax.vmap(lambda s: of_scalar(arrays, s))(s.reshape(-1)).reshape(s.shape)

    return Hoisted(of_any_shape, arrays)


def is_differentiable(x: Any) -> bool:
    """Whether a gradient can reach an array: it is traced, and holds numbers that are no integers."""
    return isinstance(x, jax.core.Tracer) and jnp.issubdtype(x.dtype, jnp.inexact)
