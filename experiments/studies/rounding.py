"""Products rounded as other processors round them: what a precision costs, measured on a CPU, which rounds nothing.

A function is computed as its jaxpr says, except that every product which asks for less than the highest precision gets
rounded operands. Each product is then exact (summed in float64), so that only the rounding is seen.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

Terms = list[tuple[jax.Array, jax.Array]]  # pairs of operands whose products are summed
Rounding = Callable[[jax.Array, jax.Array], Terms]
_CALLED = ("call_jaxpr", "jaxpr", "call")  # where primitives that call a function have it


def _round(x: jax.Array, mantissa_bits: int) -> jax.Array:
    """To the nearest number of so many bits of mantissa, ties to even, with the exponents of float32."""
    return lax.reduce_precision(x, exponent_bits=8, mantissa_bits=mantissa_bits)


def bf16(x: jax.Array, y: jax.Array) -> Terms:
    """bfloat16 operands: what "default" means on a TPU."""
    return [(_round(x, 7), _round(y, 7))]


def bf16_x3(x: jax.Array, y: jax.Array) -> Terms:
    """Three products of bfloat16 parts: what "high" means on a TPU."""
    (x_high, y_high), *_ = bf16(x, y)
    x_low, y_low = _round(x - x_high, 7), _round(y - y_high, 7)
    return [(x_high, y_high), (x_high, y_low), (x_low, y_high)]


def tf32(x: jax.Array, y: jax.Array) -> Terms:
    """TensorFloat-32 operands: what "high" and "default" mean on a GPU that has them."""
    return [(_round(x, 10), _round(y, 10))]


def emulate(fn: Callable[..., Any], rounding: Rounding) -> Callable[..., Any]:
    """`fn` with the operands of its products rounded, except of those at the highest precision. Needs 64-bit JAX.

    Example:
      >>> inner = lambda x, y: jnp.dot(x, y, precision="high")
      >>> with jax.enable_x64(True):
      ...     x = jnp.float32([1 + 2**-9])
      ...     print(inner(x, x) > 1, emulate(inner, bf16)(x, x) > 1)
      True False
    """

    def call(*args: Any) -> Any:
        closed, shape = jax.make_jaxpr(fn, return_shape=True)(*args)
        out = _evaluate(closed, rounding, jax.tree.leaves(args))
        return jax.tree.unflatten(jax.tree.structure(shape), out)

    return call


def _evaluate(closed: Any, rounding: Rounding, args: Sequence[Any]) -> list[Any]:
    jaxpr, consts = (closed.jaxpr, closed.consts) if hasattr(closed, "consts") else (closed, [])
    known = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args], strict=True))

    def read(x: Any) -> Any:
        return x.val if hasattr(x, "val") else known[x]

    for eqn in jaxpr.eqns:
        known |= zip(eqn.outvars, _evaluate_one(eqn, rounding, [read(x) for x in eqn.invars]), strict=True)
    return [read(x) for x in jaxpr.outvars]


def _evaluate_one(eqn: Any, rounding: Rounding, args: list[Any]) -> list[Any]:
    name, params = eqn.primitive.name, eqn.params
    if name == "dot_general" and params["precision"] != (lax.Precision.HIGHEST,) * 2:
        return [_multiply(rounding, params["dimension_numbers"], eqn.outvars[0].aval.dtype, *args)]
    if name == "scan":
        return _scan(rounding, args, **params)
    if name == "cond":
        return lax.switch(args[0], [_branch(x, rounding) for x in params["branches"]], *args[1:])
    if inner := [params[x] for x in _CALLED if x in params]:
        return _evaluate(inner[0], rounding, args)
    out = eqn.primitive.bind(*args, **params)
    return out if eqn.primitive.multiple_results else [out]


def _branch(closed: Any, rounding: Rounding) -> Callable[..., list[Any]]:
    return lambda *args: _evaluate(closed, rounding, args)


def _scan(
    rounding: Rounding, args: list[Any], *, jaxpr: Any, num_consts: int, num_carry: int, **options: Any
) -> list[Any]:
    consts, start, xs = args[:num_consts], args[num_consts : num_consts + num_carry], args[num_consts + num_carry :]

    def body(carry: list[Any], x: list[Any]) -> tuple[list[Any], list[Any]]:
        out = _evaluate(jaxpr, rounding, [*consts, *carry, *x])
        return out[:num_carry], out[num_carry:]

    carry, ys = lax.scan(body, start, xs, length=options["length"], reverse=options["reverse"])
    return [*carry, *ys]


def _multiply(rounding: Rounding, dimensions: Any, dtype: Any, x: jax.Array, y: jax.Array) -> jax.Array:
    terms = [
        lax.dot_general(
            x.astype(jnp.float64),
            y.astype(jnp.float64),
            dimensions,
            precision="highest",
            preferred_element_type="float64",
        )
        for x, y in rounding(x, y)
    ]
    return sum(terms[1:], terms[0]).astype(dtype)
