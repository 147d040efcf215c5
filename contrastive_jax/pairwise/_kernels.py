"""The GPU kernels of `_fused`: one sums each row's values, another forms each row's gradient.

A program of a kernel has a block of rows and goes over all columns, a tile at a time.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from contrastive_jax import jax_versions, spmd
from contrastive_jax.pairwise._tiles import Function

Constants = tuple[jax.Array, ...]

interpret = False  # on a CPU, for tests: Pallas runs the kernels as ordinary JAX programs


class Shape(NamedTuple):
    """How a kernel is laid out on the chip."""

    rows: int  # of a program
    columns: int  # of a tile
    warps: int
    stages: int  # tiles in flight


# For each number of parts: the greatest dimension, and the fastest layouts of the kernels of values and of gradients
# among 7 and 8 that were tried on an H200. Wider rows in several parts do not fit the memory of a multiprocessor.
LAYOUTS = {
    1: ((128, Shape(128, 128, 8, 2), Shape(64, 64, 4, 3)), (512, Shape(128, 32, 8, 2), Shape(32, 32, 4, 2))),
    2: ((128, Shape(128, 32, 4, 3), Shape(64, 64, 4, 2)),),
    3: ((128, Shape(128, 64, 8, 2), Shape(64, 32, 4, 2)),),
}


def layouts(parts: int, dimensions: int) -> tuple[Shape, Shape]:
    """The layouts of the kernels of values and of gradients."""
    return next((values, gradients) for most, values, gradients in LAYOUTS[parts] if dimensions <= most)


class Side(NamedTuple):
    """One side of the tiles, or references to it."""

    x: tuple[Any, ...]  # bfloat16 parts that sum to the rows, [rows, d] each
    ids: Any
    valid: Any  # int32
    shift: Any  # None where its rows are not summed
    g: Any  # cotangents of the sums; None likewise


def split(x: jax.Array, parts: int, round_to: Callable[..., jax.Array]) -> tuple[jax.Array, ...]:
    """bfloat16 arrays that sum to x, the greatest first; each rounds what those before it leave."""
    split: list[jax.Array] = []
    for _ in range(parts):
        part = round_to(x, exponent_bits=8, mantissa_bits=7)
        split.append(part.astype(jnp.bfloat16))
        x = x - part
    return tuple(split)


def _round_on_chip(x: jax.Array, *, exponent_bits: int, mantissa_bits: int) -> jax.Array:
    if interpret:  # where XLA would elide the conversion
        return lax.reduce_precision(x, exponent_bits, mantissa_bits)
    return x.astype(jnp.bfloat16).astype(jnp.float32)


def _multiply(a: Sequence[jax.Array], c: Sequence[jax.Array], dimensions: tuple[int, int]) -> jax.Array:
    """The product of two arrays in parts, the smallest terms first; terms below the last part's rounding are left."""
    pairs = [(i, j) for i in range(len(a)) for j in range(len(c)) if i + j < len(a)]
    contract = (((dimensions[0],), (dimensions[1],)), ((), ()))
    terms = [
        lax.dot_general(a[i], c[j], contract, preferred_element_type=jnp.float32)
        for i, j in sorted(pairs, key=sum, reverse=True)
    ]
    return sum(terms[1:], terms[0])


def _load(side: Side, start: Any = None, size: int | None = None) -> Side:
    """A side of one tile, from references."""
    part = (lambda ref: ref[...]) if size is None else (lambda ref: ref[_slice(start, size)])
    loaded = jax.tree.map(part, side)
    return loaded._replace(valid=loaded.valid != 0)


def _slice(start: Any, size: int) -> Any:
    from jax.experimental import pallas as pl

    return pl.ds(start, size)


def sum_values(fn: Function, columns: int, constants: Any, a_ref: Side, c_ref: Side, out: Any) -> None:
    a, constants = _load(a_ref), tuple(x[0] for x in constants)

    def body(j: jax.Array, y: jax.Array) -> jax.Array:
        c = _load(c_ref, j * columns, columns)
        s = _multiply(a.x, c.x, (1, 1))
        mask = _are_negatives(a, c)
        return y + jnp.sum(jnp.where(mask, fn(jnp.where(mask, s, 0), a.shift[:, None], *constants), 0), axis=1)

    out[...] = lax.fori_loop(0, c_ref.ids.shape[0] // columns, body, jnp.zeros(a.ids.shape, jnp.float32))


def form_gradients(
    fn: Function,
    columns: int,
    alike: bool,
    constants: Any,
    frozen: Any,
    a_ref: Side,
    c_ref: Side,
    dx_out: Any,
    dk_out: tuple[Any, ...],
) -> None:
    a, frozen = _load(a_ref), tuple(x[0] for x in frozen)
    constants = tuple(x[0] for x in constants)

    def body(j: jax.Array, carry: Any) -> Any:
        dx, dk = carry
        c = _load(c_ref, j * columns, columns)
        s = _multiply(a.x, c.x, (1, 1))
        weighted = partial(_weighted_values, fn, a, c, alike, frozen)
        whole = tuple(jnp.broadcast_to(k, s.shape) for k in constants)
        ds, more = jax.vjp(weighted, s, whole)[1](jnp.ones_like(s))
        dx = dx + _multiply(split(ds, len(c.x), _round_on_chip), c.x, (1, 0))
        return dx, tuple(k + jnp.sum(part, axis=1) for k, part in zip(dk, more, strict=True))

    start = jnp.zeros(a.x[0].shape, jnp.float32), tuple(jnp.zeros(a.ids.shape, jnp.float32) for _ in constants)
    dx_out[...], dk = lax.fori_loop(0, c_ref.ids.shape[0] // columns, body, start)
    for out, k in zip(dk_out, dk, strict=True):
        out[...] = k


def _weighted_values(
    fn: Function, a: Side, c: Side, alike: bool, frozen: Constants, s: jax.Array, constants: Constants
) -> jax.Array:
    """The values of a tile times the cotangents of the sums they count for."""
    mask, constants = _are_negatives(a, c), constants or frozen
    of_rows = None if a.g is None else (a.shift[:, None], a.g[:, None])
    of_columns = None if c.g is None else (c.shift[None, :], c.g[None, :])
    terms = [term for term in (of_rows, of_columns) if term is not None]
    if alike and of_rows and of_columns:
        terms = [(of_rows[0], of_rows[1] + of_columns[1])]
    s = jnp.where(mask, s, 0)
    return sum(jnp.where(mask, fn(s, shift, *constants), 0) * g for shift, g in terms)


def _are_negatives(a: Side, c: Side) -> jax.Array:
    return (a.ids[:, None] != c.ids[None, :]) & a.valid[:, None] & c.valid[None, :]


def scalars(constants: Constants) -> tuple[jax.Array, ...]:
    return tuple(x[None] for x in constants)


def call(kernel: Callable[..., None], shape: Shape, scalars: Any, a: Side, c: Side, out: Any) -> Any:
    """Run a kernel with a program for each block of rows; all of the columns are at hand in each."""
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import triton

    def block(x: jax.Array) -> Any:
        return pl.BlockSpec((shape.rows, *x.shape[1:]), lambda i: (i, *(0,) * (x.ndim - 1)))

    def whole(x: jax.Array) -> Any:
        return pl.BlockSpec(x.shape, lambda i: (0,) * x.ndim)

    leaves, structure = jax.tree.flatten((*scalars, a, c))
    arrays = jax.tree.unflatten(structure, spmd.vary_alike(leaves))
    return pl.pallas_call(
        kernel,
        grid=(len(a.ids) // shape.rows,),
        in_specs=[*jax.tree.map(whole, list(scalars)), jax.tree.map(block, a), jax.tree.map(whole, c)],
        out_specs=jax.tree.map(block, out),
        out_shape=jax.tree.map(lambda x: jax_versions.shape_varying_as(x.shape, x.dtype, arrays), out),
        compiler_params=triton.CompilerParams(num_warps=shape.warps, num_stages=shape.stages),
        interpret=interpret,
    )(*arrays)
