"""The walk over the tiles as GPU kernels: similarities are formed, used and forgotten on the chip.

One kernel sums each row's values, another forms each row's gradient; neither writes a tile to memory. Matrix units
multiply bfloat16: every operand is split into parts of 8 bits each, and products of parts are summed in float32, as
many as the precision asks for. Walks in both directions are two walks, so that no sum depends on the order of threads.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from contrastive_jax.pairwise import _kernels, _tiles
from contrastive_jax.pairwise._kernels import Constants, Side
from contrastive_jax.pairwise._products import Algorithm
from contrastive_jax.pairwise._tiles import Function, Rows

# Who is summed: the rows over the columns, the rows and the columns, or rows that are the columns too.
Kind = Literal["rows", "both", "symmetric"]
Sums = tuple[jax.Array, ...]  # [m], or [m] and [n] for "both"

_PRESETS = lax.DotAlgorithmPreset
_PARTS = {  # of 8 bits each; TensorFloat-32, which "high" and "default" are elsewhere on a GPU, has 11 in all
    lax.Precision.DEFAULT: 2,
    lax.Precision.HIGH: 2,
    lax.Precision.HIGHEST: 3,
    _PRESETS.BF16_BF16_F32: 1,
    _PRESETS.BF16_BF16_F32_X3: 2,
    _PRESETS.BF16_BF16_F32_X6: 3,
}
# Cards on which the kernels have been measured, and from how many similarities they were faster there than tiles of
# XLA's at "high", "default" or less (docs/benchmarks.md).
_MEASURED = ("NVIDIA H100", "NVIDIA H200")
_LEAST_ENTRIES = 2**28


def pays(algorithm: Algorithm, m: int, n: int, rows: Sequence[jax.Array]) -> bool:
    """Whether the kernels are known to be faster on this one card than what None chose, and at least as exact.

    "highest" stays with XLA's float32, which has a second derivative. Where XLA divides arrays over several devices it
    could not divide a kernel.
    """
    if jax.default_backend() != "gpu" or jax.device_count() > 1 or algorithm == lax.Precision.HIGHEST:
        return False
    if algorithm not in _PARTS or any(x.dtype == jnp.float64 for x in rows):
        return False
    large = m * n >= _LEAST_ENTRIES and rows[0].shape[1] <= _greatest_dimension(algorithm)
    return large and jax.devices()[0].device_kind.startswith(_MEASURED)


def _greatest_dimension(algorithm: Algorithm) -> int:
    return _kernels.LAYOUTS[_PARTS[algorithm]][-1][0]


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


def check(algorithm: Algorithm, rows: Sequence[jax.Array], arrays: Sequence[jax.Array]) -> None:
    """Refuse what the kernels cannot compute; `arrays` are what the function takes beside the similarities."""
    if jax.default_backend() != "gpu" and not _kernels.interpret:
        raise ValueError(
            f"pairwise: expected a GPU for implementation 'pallas', got {jax.default_backend()}; "
            "None chooses what the device has."
        )
    if algorithm not in _PARTS:
        known = "'default', 'high', 'highest', BF16_BF16_F32, BF16_BF16_F32_X3 or BF16_BF16_F32_X6"
        raise ValueError(f"pairwise: expected precision {known} for implementation 'pallas', got {algorithm}.")
    if any(x.dtype == jnp.float64 for x in rows):
        raise ValueError("pairwise: expected float32 or less for implementation 'pallas', got float64: use 'blockwise'")
    most, dimensions = _greatest_dimension(algorithm), rows[0].shape[1]
    if dimensions > most:
        raise ValueError(
            f"pairwise: expected at most {most} dimensions for implementation 'pallas' at this precision, got "
            f"{dimensions}; BF16_BF16_F32 takes {_greatest_dimension(_PRESETS.BF16_BF16_F32)}, and 'blockwise' any."
        )
    if odd := [x.shape for x in arrays if x.ndim]:
        raise ValueError(
            f"pairwise: expected a function that closes over scalars alone for implementation 'pallas', got one that "
            f"closes over arrays of shape {', '.join(map(str, odd))}; 'blockwise' takes any."
        )


def sum_rows(
    fn: _tiles.Function,
    constants: tuple[jax.Array, ...],
    a: Rows,
    c: Rows,
    shift: jax.Array,
    alike: jax.Array | None,
    algorithm: Algorithm,
    symmetric: bool,
) -> jax.Array:
    """y_i of `_blockwise`, for all rows in blocks."""
    if symmetric:
        fixed, options = Fixed(*flat(a, shift), alike=alike), Options("symmetric", algorithm)
        return sum_tiles(fn, options, a.x, None, fixed, constants)[0]
    fixed, options = Fixed(*flat(a, shift), *flat(c, None)), Options("rows", algorithm)
    return sum_tiles(fn, options, a.x, c.x, fixed, constants)[0]


def flat(rows: Rows, shift: jax.Array | None) -> tuple[Any, Any, Any]:
    """Ids, validity and shifts of rows in blocks, each in one row."""
    return rows.ids.reshape(-1), rows.valid.reshape(-1), None if shift is None else shift.reshape(-1)


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

    def all_gradients(a: Side, c: Side, constants: Constants, *, alike: bool) -> tuple[Any, Any, Constants]:
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
) -> tuple[Side, Side]:
    """Both sides, filled up to whole tiles and to a power of two of dimensions."""
    parts = _PARTS[options.algorithm]
    a = _side(parts, rows, fixed.row_ids, fixed.row_valid, fixed.row_shift, g[0])
    if columns is None:
        return a, a._replace(g=None if g[1] is None else a.g)
    return a, _side(parts, columns, fixed.column_ids, fixed.column_valid, fixed.column_shift, g[1])


def _side(parts: int, x: jax.Array, ids: Any, valid: Any, shift: jax.Array | None, g: jax.Array | None) -> Side:
    """Rows filled up with some that are not valid, and to a power of two of dimensions with zeros."""
    multiple = max(size for shape in _kernels.layouts(parts, x.shape[1]) for size in shape[:2])
    dimensions = max(16, 2 ** math.ceil(math.log2(x.shape[1])))
    missing = -len(x) % multiple
    x = jnp.pad(x.astype(jnp.float32), ((0, missing), (0, dimensions - x.shape[1])))

    def fill(y: jax.Array | None) -> jax.Array | None:
        return None if y is None else jnp.pad(y, (0, missing))

    return Side(
        _kernels.split(x, parts, lax.reduce_precision), fill(ids), fill(valid.astype(jnp.int32)), fill(shift), fill(g)
    )


def _sum_rows(fn: Function, options: Options, a: Side, c: Side, constants: Constants) -> jax.Array:
    shape = _kernels.layouts(_PARTS[options.algorithm], a.x[0].shape[1])[0]
    kernel = partial(_kernels.sum_values, fn, shape.columns)
    columns, out = c._replace(shift=None, g=None), jnp.zeros(a.ids.shape, jnp.float32)
    return _kernels.call(kernel, shape, (_kernels.scalars(constants),), a, columns, out)


def _pull(
    fn: Function,
    options: Options,
    a: Side,
    c: Side,
    constants: Constants,
    *,
    alike: bool,
    frozen: Constants = (),
) -> tuple[jax.Array, Constants]:
    """Cotangents of the rows, filled up as they are, and of the constants."""
    shape = _kernels.layouts(_PARTS[options.algorithm], a.x[0].shape[1])[1]
    kernel = partial(_kernels.form_gradients, fn, shape.columns, alike)
    out = jnp.zeros(a.x[0].shape, jnp.float32), tuple(jnp.zeros(a.ids.shape, jnp.float32) for _ in constants)
    dx, dk = _kernels.call(kernel, shape, (_kernels.scalars(constants), _kernels.scalars(frozen)), a, c, out)
    return dx, tuple(jnp.sum(k) for k in dk)
