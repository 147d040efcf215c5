"""A convolution whose kernel's gradient is formed from patches, a few images at a time."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

# Rows of patches that are multiplied at a time: as few as keep the product fast, so that they stay in the cache.
_ROWS = 512


def convolve_with_patches(
    convolution: Callable[[jax.Array, jax.Array], jax.Array],
    images: jax.Array,
    kernel: jax.Array,
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    precision: Any,
) -> jax.Array:
    """`convolution(images, kernel)`, of which only the derivative by the kernel is another computation.

    The derivative is a product with patches. JAX transposes it into the gradient: for a few images at a time, the
    transposed cotangent times the patches, which are formed again. Every mode of differentiation goes through it.

    Args:
      convolution: the convolution with these strides and this padding.
      images: [b, h, w, c].
      kernel: [k, k, c, o].
      strides, padding: two each, of the rows and the columns.
      precision: of the products.

    Returns:
      [b, h', w', o].
    """

    @jax.custom_jvp
    def run(images: jax.Array, kernel: jax.Array) -> jax.Array:
        return convolution(images, kernel)

    @functools.partial(run.defjvp, symbolic_zeros=True)
    def differentiate(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
        images, kernel = primals
        value, tangent = convolution(images, kernel), None
        if not isinstance(tangents[0], SymbolicZero):
            tangent = convolution(tangents[0], kernel)
        if not isinstance(tangents[1], SymbolicZero):
            product = _multiply_patches(images, tangents[1], strides, padding, value.shape[1:3], precision)
            tangent = product if tangent is None else tangent + product
        return value, jnp.zeros_like(value) if tangent is None else tangent

    return run(images, kernel)


def _multiply_patches(
    images: jax.Array,
    kernel: jax.Array,
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    outputs: tuple[int, ...],
    precision: Any,
) -> jax.Array:
    """The convolution as a loop over a few images at a time: their patches [rows, k k c] times the kernel."""
    share = _largest_divisor(len(images), at_most=max(1, _ROWS // math.prod(outputs)))
    matrix = kernel.reshape(-1, kernel.shape[-1]).T

    @jax.checkpoint  # Patches take k^2 times the memory of the images; they are formed again for the gradient.
    def multiply(images: jax.Array, matrix: jax.Array, i: jax.Array) -> jax.Array:
        part = lax.dynamic_slice_in_dim(images, i * share, share)
        part = jnp.pad(part, ((0, 0), *padding, (0, 0)))
        patches = _form_patches(part, kernel.shape[:2], strides, outputs)
        product = lax.dot_general(matrix, patches, (((1,), (1,)), ((), ())), precision=precision)
        # The barrier keeps XLA from folding the transposition of the cotangent into a slower product.
        return lax.optimization_barrier(product).T

    _, rows = lax.scan(lambda _, i: (None, multiply(images, matrix, i)), None, jnp.arange(len(images) // share))
    return rows.reshape(len(images), *outputs, -1)


def _form_patches(
    images: jax.Array, window: Sequence[int], strides: Sequence[int], outputs: Sequence[int]
) -> jax.Array:
    """[b, h, w, c] to [b h' w', k k c]: what each output sees."""
    last = [stride * (n - 1) + 1 for stride, n in zip(strides, outputs, strict=True)]
    taps = [
        images[:, y : y + last[0] : strides[0], x : x + last[1] : strides[1]]
        for y in range(window[0])
        for x in range(window[1])
    ]
    return jnp.concatenate(taps, axis=-1).reshape(-1, len(taps) * images.shape[-1])


def _largest_divisor(number: int, *, at_most: int) -> int:
    return max(d for d in range(1, at_most + 1) if number % d == 0)
