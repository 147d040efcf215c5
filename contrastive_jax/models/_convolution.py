"""Convolution in the forms that are fast on a CPU: a matrix product on small maps, another gradient on large ones."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from contrastive_jax.models._checks import check_choice
from contrastive_jax.models._patches import convolve_with_patches

Form = Literal["convolution", "product", "patches"]
Numbers = Sequence[tuple[int, int]]
Padding = str | Numbers
# What making an entry of the dense kernel costs, and its gradient, in multiply-adds of XLA's slow convolutions on CPUs;
# measured by experiments/benchmarks/convolution.py.
_ENTRY_COST = 18
# Multiply-adds of a convolution from which the loop over images pays for compiling it, and the smallest map that XLA
# transposes slowly; measured by the same script with --gradient.
_LEAST_WORK, _LEAST_MAP = 2**27, 16


def convolve(
    images: jax.Array,
    kernel: jax.Array,
    strides: Sequence[int],
    padding: Padding,
    *,
    implementation: Form | None = None,
    **options: Any,
) -> jax.Array:
    """`lax.conv_general_dilated` for `nnx.Conv(conv_general_dilated=...)`, in the form that is fastest on a CPU.

    On CPUs, XLA's convolution and its gradient take 5 to 50 times longer for each multiply-add where the output is
    smaller than the kernel, as in the last stages of a ResNet on 8x8 images. There "product" takes the whole map as one
    vector, and the kernel as the matrix from it to the output. That matrix has height * width / k^2 times as many
    multiply-adds for an image, and has to be made, so that it pays from a certain batch on.

    On larger maps only the gradient of the kernel is slow: XLA first transposes the images, batch last, which costs as
    much as the product itself. "patches" computes the same convolution, and its kernel's gradient a few images at a
    time, without the transposition.

    The platform is known when the program is lowered: whatever is chosen here, other platforms than the CPU get the
    plain convolution.

    Args:
      images: [b, h, w, c].
      kernel: [k, k, c, o].
      strides, padding, options: as for `lax.conv_general_dilated`.
      implementation: "convolution", "product" or "patches" (for the last two the padding is given in numbers, and
        dilations and groups are 1), on every platform; None takes the fastest one.

    Returns:
      [b, h', w', o]; all implementations agree up to rounding.

    Raises:
      UsageError: an unknown implementation.

    Example:
      >>> images, kernel = jnp.ones((4, 2, 2, 1)), jnp.ones((3, 3, 1, 1))
      >>> convolve(images, kernel, (1, 1), ((1, 1), (1, 1)), implementation="product")[0, :, :, 0]
      Array([[4., 4.],
             [4., 4.]], dtype=float32)
    """
    options.setdefault("dimension_numbers", ("NHWC", "HWIO", "NHWC"))
    precision = options.get("precision")

    def plain(images: jax.Array, kernel: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(images, kernel, strides, padding, **options)

    forms: dict[str, Callable[..., jax.Array]] = {
        "convolution": plain,
        "product": lambda x, w: _multiply(x, w, strides, padding, precision),
        "patches": lambda x, w: convolve_with_patches(plain, x, w, strides, cast("Numbers", padding), precision),
    }
    if implementation is not None:
        check_choice("implementation", implementation, tuple(forms))
        return forms[implementation](images, kernel)
    fastest = _choose(images, kernel, strides, padding, options)
    if fastest == "convolution":
        return plain(images, kernel)
    return lax.platform_dependent(images, kernel, cpu=forms[fastest], default=plain)


def _choose(
    images: jax.Array, kernel: jax.Array, strides: Sequence[int], padding: Padding, options: dict[str, Any]
) -> Form:
    """The fastest form on a CPU."""
    if isinstance(padding, str) or not _is_plain(options) or jax.default_backend() != "cpu":
        return "convolution"
    window, sizes = kernel.shape[:2], images.shape[1:3]
    outputs = [_num_outputs(*axis) for axis in zip(sizes, window, strides, padding, strict=True)]
    is_slow = math.prod(sizes) == 1 or all(n < k for n, k in zip(outputs, window, strict=True))
    if is_slow and _ENTRY_COST * math.prod(sizes) <= len(images) * math.prod(window):
        return "product"
    work = len(images) * math.prod(outputs) * kernel.size
    pays = math.prod(sizes) >= _LEAST_MAP and work >= _LEAST_WORK
    # The loop sums the gradient in the dtype of the images, which float32 bears and bfloat16 does not; and it takes
    # slices of the batch, which an explicit axis of a mesh may hold in parts.
    can_loop = images.dtype == kernel.dtype == jnp.float32 and not any(jax.typeof(images).sharding.spec)
    return "patches" if pays and can_loop else "convolution"


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
