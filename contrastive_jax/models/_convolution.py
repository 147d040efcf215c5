"""Convolution that is a matrix product on the small maps where XLA convolves slowly."""

import functools
import math
from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from contrastive_jax.models._checks import check_choice

Padding = str | Sequence[tuple[int, int]]
# What making an entry of the dense kernel costs, and its gradient, in multiply-adds of XLA's slow convolutions on CPUs;
# measured by experiments/benchmarks/convolution.py.
_ENTRY_COST = 18


def convolve(
    images: jax.Array,
    kernel: jax.Array,
    strides: Sequence[int],
    padding: Padding,
    *,
    implementation: Literal["convolution", "product"] | None = None,
    **options: Any,
) -> jax.Array:
    """`lax.conv_general_dilated` for `nnx.Conv(conv_general_dilated=...)`, by a matrix product on very small maps.

    On CPUs, XLA's convolution and its gradient take 5 to 50 times longer for each multiply-add where the output is
    smaller than the kernel, as in the last stages of a ResNet on 8x8 images. There the whole map is one vector, and the
    kernel the matrix from it to the output. That matrix has height * width / k^2 times as many multiply-adds for an
    image, and has to be made, so that it pays from a certain batch on.

    Args:
      images: [b, h, w, c].
      kernel: [k, k, c, o].
      strides, padding, options: as for `lax.conv_general_dilated`.
      implementation: "convolution", or "product" (for which the padding is given in numbers, and dilations and groups
        are 1); None takes the faster one.

    Returns:
      [b, h', w', o]; both implementations agree up to rounding.

    Raises:
      UsageError: an unknown implementation.

    Example:
      >>> images, kernel = jnp.ones((4, 2, 2, 1)), jnp.ones((3, 3, 1, 1))
      >>> convolve(images, kernel, (1, 1), ((1, 1), (1, 1)), implementation="product")[0, :, :, 0]
      Array([[4., 4.],
             [4., 4.]], dtype=float32)
    """
    if implementation is None:
        implementation = _choose(images.shape, kernel.shape, strides, padding, options)
    check_choice("implementation", implementation, ("convolution", "product"))
    if implementation == "product":
        return _multiply(images, kernel, strides, padding, options.get("precision"))
    options.setdefault("dimension_numbers", ("NHWC", "HWIO", "NHWC"))
    return lax.conv_general_dilated(images, kernel, strides, padding, **options)


def _choose(
    images: tuple[int, ...], kernel: tuple[int, ...], strides: Sequence[int], padding: Padding, options: dict[str, Any]
) -> Literal["convolution", "product"]:
    if isinstance(padding, str) or not _is_plain(options) or jax.default_backend() != "cpu":
        return "convolution"
    window, sizes = kernel[:2], images[1:3]
    outputs = [_num_outputs(*axis) for axis in zip(sizes, window, strides, padding, strict=True)]
    is_slow = math.prod(sizes) == 1 or all(n < k for n, k in zip(outputs, window, strict=True))
    pays = _ENTRY_COST * math.prod(sizes) <= images[0] * math.prod(window)
    return "product" if is_slow and pays else "convolution"


def _is_plain(options: dict[str, Any]) -> bool:
    dilations = (*(options.get("lhs_dilation") or ()), *(options.get("rhs_dilation") or ()))
    groups = (options.get("feature_group_count", 1), options.get("batch_group_count", 1))
    return all(factor == 1 for factor in (*dilations, *groups))


def _num_outputs(size: int, kernel: int, stride: int, padding: tuple[int, int]) -> int:
    return (size + sum(padding) - kernel) // stride + 1


@functools.cache
def _taps(size: int, kernel: int, stride: int, padding: tuple[int, int]) -> np.ndarray:
    """[size, outputs, kernel] of 0 and 1: along one axis, which input reaches which output through which weight."""
    offset = np.arange(size)[:, None] + padding[0] - stride * np.arange(_num_outputs(size, kernel, stride, padding))
    return (offset[..., None] == np.arange(kernel)).astype(np.float32)


def _multiply(
    images: jax.Array, kernel: jax.Array, strides: Sequence[int], padding: Padding, precision: Any
) -> jax.Array:
    """The convolution as the product of images [b, h w c] with a dense kernel [h w c, h' w' o]."""
    rows, columns = (
        _taps(images.shape[1 + axis], kernel.shape[axis], strides[axis], tuple(padding[axis])).astype(kernel.dtype)
        for axis in (0, 1)
    )
    dense = jnp.einsum("hyk,wxl,klco->hwcyxo", rows, columns, kernel, precision="highest")
    return jnp.einsum("bhwc,hwcyxo->byxo", images, dense, precision=precision)
