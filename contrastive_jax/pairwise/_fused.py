"""The walk over the tiles as GPU kernels: similarities are formed, used and forgotten on the chip.

One kernel sums each row's values, another forms each row's gradient; neither writes a tile to memory. Matrix units
multiply bfloat16: every operand is split into parts of 8 bits each, and products of parts are summed in float32, as
many as the precision asks for. Walks in both directions are two walks, so that no sum depends on the order of threads.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from contrastive_jax import jax_versions
from contrastive_jax.pairwise import _tiles
from contrastive_jax.pairwise._products import Algorithm
from contrastive_jax.pairwise._tiles import Function

Constants = tuple[jax.Array, ...]
# Who is summed: the rows over the columns, the rows and the columns, or rows that are the columns too.
Kind = Literal["rows", "both", "symmetric"]
Sums = tuple[jax.Array, ...]  # [m], or [m] and [n] for "both"

GREATEST_DIMENSION = 512
_PRESETS = lax.DotAlgorithmPreset
_PARTS = {
    lax.Precision.DEFAULT: 1,
    lax.Precision.HIGH: 2,
    lax.Precision.HIGHEST: 3,
    _PRESETS.BF16_BF16_F32: 1,
    _PRESETS.BF16_BF16_F32_X3: 2,
    _PRESETS.BF16_BF16_F32_X6: 3,
}
interpret = False  # on a CPU, for tests: Pallas runs the kernels as ordinary JAX programs


class Shape(NamedTuple):
    """How a kernel is laid out on the chip."""

    rows: int  # of a program
    columns: int  # of a tile
    warps: int
    stages: int  # tiles in flight


def shapes(parts: int, dimensions: int) -> tuple[Shape, Shape]:
    """The layouts of the kernels of values and of gradients that an H100 runs fastest."""
    if dimensions > 256:
        return Shape(64, 32, 4, 2), Shape(64, 32, 8, 1)
    if parts == 1:
        return Shape(128, 64, 4, 3), Shape(64, 64, 4, 3)
    return Shape(64, 64, 4, 2), Shape(64, 32, 4, 2)


class Fixed(NamedTuple):
    """What is not differentiated. Of the columns nothing, where the rows are the columns."""

    row_ids: jax.Array  # [m]
    row_valid: jax.Array  # [m]
    row_shift: jax.Array  # [m]
    column_ids: jax.Array | None = None
    column_valid: jax.Array | None = None
    column_shift: jax.Array | None = None  # only where columns are summed too
    alike: jax.Array | None = None  # whether all shifts are; None: they are known to be


class Options(NamedTuple):
    """What is known when a walk is traced."""

    kind: Kind
    algorithm: Algorithm


class _Side(NamedTuple):
    """One side of the tiles, or references to it."""

    x: tuple[Any, ...]  # bfloat16 parts that sum to the rows, [rows, d] each
    ids: Any
    valid: Any  # int32
    shift: Any  # None where its rows are not summed
    g: Any  # cotangents of the sums; None likewise


def check(algorithm: Algorithm, rows: jax.Array, arrays: Sequence[jax.Array]) -> None:
    """Refuse what the kernels cannot compute; `arrays` are what the function takes beside the similarities."""
    if jax.default_backend() != "gpu" and not interpret:
        raise ValueError(
            f"pairwise: expected a GPU for implementation 'pallas', got {jax.default_backend()}; "
            "None chooses what the device has."
        )
    if algorithm not in _PARTS:
        known = "'default', 'high', 'highest', BF16_BF16_F32, BF16_BF16_F32_X3 or BF16_BF16_F32_X6"
        raise ValueError(f"pairwise: expected precision {known} for implementation 'pallas', got {algorithm}.")
    if rows.dtype == jnp.float64 or rows.shape[1] > GREATEST_DIMENSION:
        raise ValueError(
            f"pairwise: expected at most {GREATEST_DIMENSION} dimensions, not of float64, for implementation "
            f"'pallas', got {rows.shape[1]} of {rows.dtype}; 'blockwise' takes any."
        )
    if odd := [x.shape for x in arrays if x.ndim]:
        raise ValueError(
            f"pairwise: expected a function that closes over scalars alone for implementation 'pallas', got one that "
            f"closes over arrays of shape {', '.join(map(str, odd))}; 'blockwise' takes any."
        )


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def sum_tiles(
    fn: Function, options: Options, rows: jax.Array, columns: jax.Array | None, fixed: Fixed, constants: Constants
) -> Sums:
    """The sums of each row's values fn(s_ij, shift_i, *constants) over its negatives, and of each column's for "both".

    Args:
      fn: as `_tiles.values` takes it.
      options: the kind of the sums, and the precision of the products.
      rows: [m, d].
      columns: [n, d]; None where the rows are the columns.
      fixed: ids, validity and shifts.
      constants: scalars, which are differentiated.

    Returns:
      ([m],), or ([m], [n]) for "both".
    """
    return _forward(fn, options, rows, columns, fixed, constants)[0]


def _forward(
    fn: Function, options: Options, rows: jax.Array, columns: jax.Array | None, fixed: Fixed, constants: Constants
) -> tuple[Sums, Any]:
    a, c = _sides(options, rows, columns, fixed, (None, None))
    sums = [_sum_rows(fn, options, a, c, constants)[: len(rows)]]
    if options.kind == "both" and columns is not None:
        sums.append(_sum_rows(fn, options, c, a, constants)[: len(columns)])
    return tuple(sums), (rows, columns, fixed, constants)


def _backward(fn: Function, options: Options, residuals: Any, g: Sums) -> tuple[Any, Any, Any, Constants]:
    rows, columns, fixed, constants = residuals
    # A symmetric pair of values counts for both of its rows, so that a row's gradient has the cotangents of both.
    of_columns = {"rows": None, "both": g[-1], "symmetric": g[0]}[options.kind]
    a, c = _sides(options, rows, columns, fixed, (g[0], of_columns))
    pull = partial(_pull, fn, options)

    def all_gradients(a: _Side, c: _Side, constants: Constants, *, alike: bool) -> tuple[Any, Any, Constants]:
        da, dk = pull(a, c, constants, alike=alike)
        # The rows of a symmetric walk meet every pair in both orders, but it is summed in one.
        if columns is None:
            return _like(da, rows), None, dk
        return _like(da, rows), _like(pull(c, a, (), alike=alike, frozen=constants)[0], columns), dk

    da, dc, dk = _tiles.choose(all_gradients, fixed.alike if options.kind != "rows" else None, a, c, constants)
    if options.kind == "symmetric":
        dk = tuple(k / 2 for k in dk)
    return da, dc, _tiles.no_gradient(fixed), dk


sum_tiles.defvjp(_forward, _backward)


def _like(filled: jax.Array, x: jax.Array) -> jax.Array:
    """A gradient without what its array was filled up with."""
    return filled[: x.shape[0], : x.shape[1]].astype(x.dtype)


def _sides(
    options: Options,
    rows: jax.Array,
    columns: jax.Array | None,
    fixed: Fixed,
    g: tuple[jax.Array | None, jax.Array | None],
) -> tuple[_Side, _Side]:
    """Both sides, filled up to whole tiles and to a power of two of dimensions."""
    parts = _PARTS[options.algorithm]
    a = _side(parts, rows, fixed.row_ids, fixed.row_valid, fixed.row_shift, g[0])
    if columns is None:
        return a, a._replace(g=None if g[1] is None else a.g)
    return a, _side(parts, columns, fixed.column_ids, fixed.column_valid, fixed.column_shift, g[1])


def _side(parts: int, x: jax.Array, ids: Any, valid: Any, shift: jax.Array | None, g: jax.Array | None) -> _Side:
    """Rows filled up with some that are not valid, and to a power of two of dimensions with zeros."""
    multiple = max(size for shape in shapes(parts, x.shape[1]) for size in shape[:2])
    dimensions = max(16, 2 ** math.ceil(math.log2(x.shape[1])))
    missing = -len(x) % multiple
    x = jnp.pad(x.astype(jnp.float32), ((0, missing), (0, dimensions - x.shape[1])))

    def fill(y: jax.Array | None) -> jax.Array | None:
        return None if y is None else jnp.pad(y, (0, missing))

    return _Side(_split(x, parts, lax.reduce_precision), fill(ids), fill(valid.astype(jnp.int32)), fill(shift), fill(g))


def _split(x: jax.Array, parts: int, round_to: Callable[..., jax.Array]) -> tuple[jax.Array, ...]:
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


def _load(side: _Side, start: Any = None, size: int | None = None) -> _Side:
    """A side of one tile, from references."""
    part = (lambda ref: ref[...]) if size is None else (lambda ref: ref[_slice(start, size)])
    loaded = jax.tree.map(part, side)
    return loaded._replace(valid=loaded.valid != 0)


def _slice(start: Any, size: int) -> Any:
    from jax.experimental import pallas as pl

    return pl.ds(start, size)


def _values_kernel(fn: Function, columns: int, constants: Any, a_ref: _Side, c_ref: _Side, out: Any) -> None:
    a, constants = _load(a_ref), tuple(x[0] for x in constants)

    def body(j: jax.Array, y: jax.Array) -> jax.Array:
        c = _load(c_ref, j * columns, columns)
        s = _multiply(a.x, c.x, (1, 1))
        mask = _are_negatives(a, c)
        return y + jnp.sum(jnp.where(mask, fn(jnp.where(mask, s, 0), a.shift[:, None], *constants), 0), axis=1)

    out[...] = lax.fori_loop(0, c_ref.ids.shape[0] // columns, body, jnp.zeros(a.ids.shape, jnp.float32))


def _gradients_kernel(
    fn: Function,
    columns: int,
    alike: bool,
    constants: Any,
    frozen: Any,
    a_ref: _Side,
    c_ref: _Side,
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
        dx = dx + _multiply(_split(ds, len(c.x), _round_on_chip), c.x, (1, 0))
        return dx, tuple(k + jnp.sum(part, axis=1) for k, part in zip(dk, more, strict=True))

    start = jnp.zeros(a.x[0].shape, jnp.float32), tuple(jnp.zeros(a.ids.shape, jnp.float32) for _ in constants)
    dx_out[...], dk = lax.fori_loop(0, c_ref.ids.shape[0] // columns, body, start)
    for out, k in zip(dk_out, dk, strict=True):
        out[...] = k


def _weighted_values(
    fn: Function, a: _Side, c: _Side, alike: bool, frozen: Constants, s: jax.Array, constants: Constants
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


def _are_negatives(a: _Side, c: _Side) -> jax.Array:
    return (a.ids[:, None] != c.ids[None, :]) & a.valid[:, None] & c.valid[None, :]


def _sum_rows(fn: Function, options: Options, a: _Side, c: _Side, constants: Constants) -> jax.Array:
    shape = shapes(_PARTS[options.algorithm], a.x[0].shape[1])[0]
    kernel = partial(_values_kernel, fn, shape.columns)
    return _call(kernel, shape, (_scalars(constants),), a, c._replace(shift=None, g=None), jnp.zeros(a.ids.shape))


def _pull(
    fn: Function,
    options: Options,
    a: _Side,
    c: _Side,
    constants: Constants,
    *,
    alike: bool,
    frozen: Constants = (),
) -> tuple[jax.Array, Constants]:
    """Cotangents of the rows, filled up as they are, and of the constants."""
    shape = shapes(_PARTS[options.algorithm], a.x[0].shape[1])[1]
    kernel = partial(_gradients_kernel, fn, shape.columns, alike)
    out = jnp.zeros(a.x[0].shape), tuple(jnp.zeros(a.ids.shape) for _ in constants)
    dx, dk = _call(kernel, shape, (_scalars(constants), _scalars(frozen)), a, c, out)
    return dx, tuple(jnp.sum(k) for k in dk)


def _scalars(constants: Constants) -> tuple[jax.Array, ...]:
    return tuple(x[None] for x in constants)


def _call(kernel: Callable[..., None], shape: Shape, scalars: Any, a: _Side, c: _Side, out: Any) -> Any:
    """Run a kernel with a program for each block of rows; all of the columns are at hand in each."""
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import triton

    def block(x: jax.Array) -> Any:
        return pl.BlockSpec((shape.rows, *x.shape[1:]), lambda i: (i, *(0,) * (x.ndim - 1)))

    def whole(x: jax.Array) -> Any:
        return pl.BlockSpec(x.shape, lambda i: (0,) * x.ndim)

    arrays = *scalars, a, c
    return pl.pallas_call(
        kernel,
        grid=(len(a.ids) // shape.rows,),
        in_specs=[*jax.tree.map(whole, list(scalars)), jax.tree.map(block, a), jax.tree.map(whole, c)],
        out_specs=jax.tree.map(block, out),
        out_shape=jax.tree.map(lambda x: jax_versions.shape_varying_as(x.shape, x.dtype, arrays), out),
        compiler_params=triton.CompilerParams(num_warps=shape.warps, num_stages=shape.stages),
        interpret=interpret,
    )(*arrays)
