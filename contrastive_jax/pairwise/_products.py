"""The products of the engine, and how exactly they are computed: the one place that knows what a precision stands for.

Names of the engine's precisions end here: all that lies below `resolve` takes what `lax.dot_general` takes.
"""

import jax
import jax.numpy as jnp
from jax import lax

from contrastive_jax import explicit_axes
from contrastive_jax.pairwise.shared import accumulation_dtype

Precision = str | lax.DotAlgorithmPreset
Algorithm = lax.Precision | lax.DotAlgorithmPreset

_OF_NAME = {"highest": lax.Precision.HIGHEST, "high": lax.Precision.HIGH, "default": lax.Precision.DEFAULT}


def _accumulates_in(preset: lax.DotAlgorithmPreset, dtype: jnp.dtype) -> bool:
    """Whether a preset takes operands of this dtype, in which sums are held, and sums in it."""
    accepted, summed = preset.supported_lhs_types, preset.accumulation_type
    return accepted is not None and summed is not None and any(dtype == x for x in accepted) and dtype == summed


def _presets(dtype: jnp.dtype) -> list[str]:
    return [preset.name for preset in lax.DotAlgorithmPreset if _accumulates_in(preset, dtype)]


PRECISIONS = (*_OF_NAME, *_presets(jnp.dtype(jnp.float32)))


def resolve(function: str, precision: Precision, *rows: jax.Array) -> Algorithm:
    """What `lax.dot_general` takes for a precision, refused if it is unknown or does not fit the dtype of the rows."""
    if isinstance(precision, str) and precision in _OF_NAME:
        return _OF_NAME[precision]
    dtype = accumulation_dtype(*(x.dtype for x in rows))
    preset = lax.DotAlgorithmPreset.__members__.get(precision) if isinstance(precision, str) else precision
    if isinstance(preset, lax.DotAlgorithmPreset) and _accumulates_in(preset, dtype):
        return preset
    known = ", ".join([*map(repr, _OF_NAME), *_presets(dtype)])
    raise ValueError(
        f"{function}: expected precision {known} (which accumulate in the {dtype} of the sums), got {precision!s}."
    )


@explicit_axes.accept(out_axis=0)
def similarities(anchors: jax.Array, candidates: jax.Array, *, precision: Precision = "highest") -> jax.Array:
    """Inner products [m, n] of [m, d] with [n, d], accumulated in at least float32.

    Args:
      anchors: [m, d], any float dtype; used as they are (see `normalize`).
      candidates: [n, d].
      precision: how exactly the product, and those of its gradient, are computed.

    Returns:
      [m, n] float32 (float64 for float64 input).

    Raises:
      ValueError: for an unknown precision, or one that does not accumulate in the dtype of the result.
    """
    return inner(anchors, candidates, resolve("pairwise.similarities", precision, anchors, candidates))


def inner(anchors: jax.Array, candidates: jax.Array, algorithm: Algorithm) -> jax.Array:
    """Inner products [m, n] of rows [m, d] with rows [n, d], accumulated in at least float32."""
    return lax.dot_general(
        anchors,
        candidates,
        dimension_numbers=(((1,), (1,)), ((), ())),
        precision=algorithm,
        preferred_element_type=accumulation_dtype(anchors.dtype, candidates.dtype),
    )


def times(ds: jax.Array, x: jax.Array, algorithm: Algorithm) -> jax.Array:
    """Cotangents of similarities times the rows on their other side."""
    return jnp.matmul(ds, x.astype(ds.dtype), precision=algorithm)


def transposed_times(ds: jax.Array, x: jax.Array, algorithm: Algorithm) -> jax.Array:
    """`times(ds.T, x)`, as the transpose of x.T @ ds, for which CPUs take half the time."""
    dimensions = (((0,), (0,)), ((), ()))
    product = lax.dot_general(x.astype(ds.dtype), ds, dimensions, precision=algorithm)
    return lax.optimization_barrier(product).T  # without the barrier XLA makes it ds.T @ x again


def split_exactly(x: jax.Array, precision: Precision) -> list[jax.Array]:
    """Arrays that sum to x and that no precision rounds: x itself for "highest", else three parts of 8 bits each."""
    if precision == "highest" or x.dtype == jnp.float64:
        return [x]
    parts, rest = [], lax.stop_gradient(x)
    for _ in range(3):
        parts.append(lax.reduce_precision(rest, exponent_bits=8, mantissa_bits=7))
        rest = rest - parts[-1]
    return [parts[0] + (x - lax.stop_gradient(x)), *parts[1:]]
