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
    r"""Inner products [m, n] of [m, d] with [n, d], accumulated in at least float32.

    Every product of the engine and of its gradients is computed at one `precision`:

    ===============================  =========================================================  =======  ========
    precision                        operands                                                   value    gradient
    ===============================  =========================================================  =======  ========
    `"highest"`                      float32 (six bfloat16 products on a TPU)                   5e-06    1e-04
    `"high"` on a TPU                three bfloat16 products of their parts, BF16_BF16_F32_X3   5e-05    2e-04
    `"high"`, `"default"` on a GPU   TensorFloat-32 where it has that, TF32_TF32_F32            2e-03    1e-02
    `"default"` on a TPU             bfloat16, BF16_BF16_F32                                    2e-02    5e-02
    ===============================  =========================================================  =======  ========

    The last columns bound the relative errors of a loss's mean, and of its gradient in norm, from this rounding: of
    `info_nce`, `simclr`, `siglip`, `kcl` and `vrns` at temperatures from 0.05 to 0.5, on unit vectors that are random,
    clustered or nearly collapsed (mean similarities 0, 0.99, 0.9999), for m >= 64 and d >= 32. One case is not bounded:
    TensorFloat-32 and bfloat16 can take the distance 2 - 2 s of `kcl` below 0 where all similarities are within 1e-3
    of 1, and then lose half of the gradient. `python -m experiments.studies.precision` measures them; at m = 1,024 and
    d = 128 they are 10 to 100 times smaller.

    CPUs compute float32 whatever the precision. Similarities of positive pairs are no products of the engine: they are
    exact, and so are float64 inputs at any of the three names.

    Args:
      anchors: [m, d], any float dtype; used as they are (see `normalize`).
      candidates: [n, d].
      precision: `"highest"`, `"high"`, `"default"`, or a `jax.lax.DotAlgorithmPreset` or its name, which must
        accumulate in the dtype of the result. JAX refuses a preset that the device lacks, as it lowers or compiles.

    Returns:
      [m, n] float32 (float64 for float64 input).

    Raises:
      ValueError: for an unknown precision, or a preset that does not take and accumulate the dtype of the result.

    Example:
      >>> pairwise.similarities(jnp.eye(2), jnp.ones((3, 2)), precision="high").shape
      (2, 3)
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


def with_offset(
    anchors: jax.Array, candidates: jax.Array, offset: jax.Array, algorithm: Algorithm
) -> tuple[jax.Array, jax.Array]:
    """Rows whose similarities are those of the given ones, with each anchor's offset [m] added: more coordinates."""
    parts = _split_exactly(offset, algorithm)
    ones = jnp.ones((len(candidates), len(parts)), candidates.dtype)
    return jnp.column_stack([anchors, *parts]), jnp.column_stack([candidates, ones])


def _split_exactly(x: jax.Array, algorithm: Algorithm) -> list[jax.Array]:
    """Arrays that sum to x and that no precision rounds: x itself for the highest, else three parts of 8 bits each."""
    if algorithm == lax.Precision.HIGHEST or x.dtype == jnp.float64:
        return [x]
    parts, rest = [], lax.stop_gradient(x)
    for _ in range(3):
        parts.append(lax.reduce_precision(rest, exponent_bits=8, mantissa_bits=7))
        rest = rest - parts[-1]
    return [parts[0] + (x - lax.stop_gradient(x)), *parts[1:]]
