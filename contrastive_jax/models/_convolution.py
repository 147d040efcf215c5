"""Convolution that is a matrix product where the map is no larger than the kernel."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


@functools.cache
def _taps(size: int, kernel: int, stride: int, padding: tuple[int, int]) -> np.ndarray:
    """[size, outputs, kernel] of 0 and 1: along one axis, which input reaches which output through which weight."""
    outputs = (size + sum(padding) - kernel) // stride + 1
    offset = np.arange(size)[:, None] + padding[0] - stride * np.arange(outputs)
    return (offset[..., None] == np.arange(kernel)).astype(np.float32)


def convolve(images: jax.Array, kernel: jax.Array, strides, padding, **options) -> jax.Array:
    """`lax.conv_general_dilated` for `nnx.Conv(conv_general_dilated=...)`, by a matrix product on very small maps.

    Where every output can see every input, a convolution multiplies mostly padding, and XLA is some ten times slower at
    it on a CPU than at the equal dense product. The last stages of a ResNet on 8x8 images are such maps.

    Args:
      images: [b, h, w, c].
      kernel: [k, k, c, o].
      strides, padding, options: as for `lax.conv_general_dilated`.

    Returns:
      [b, h', w', o], equal to the convolution up to rounding.
    """
    _, height, width, _ = images.shape
    if height * width > math.prod(kernel.shape[:2]):
        return lax.conv_general_dilated(images, kernel, strides, padding, **options)
    rows = _taps(height, kernel.shape[0], strides[0], tuple(padding[0])).astype(kernel.dtype)
    columns = _taps(width, kernel.shape[1], strides[1], tuple(padding[1])).astype(kernel.dtype)
    dense = jnp.einsum("hyk,wxl,klco->hwcyxo", rows, columns, kernel, precision="highest")
    return jnp.einsum("bhwc,hwcyxo->byxo", images, dense)
