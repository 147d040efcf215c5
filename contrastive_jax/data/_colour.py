"""Colour jitter and blur of one image, float32 [c, h, w] in [0, 1], with the formulas of torchvision.

Channels come first because vector units are inefficient on an innermost dimension of three.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

BRIGHTNESS, CONTRAST, SATURATION = range(3)


def grey(image: jax.Array) -> jax.Array:
    """The luma of an image, [1, h, w]; for an image of one channel, the image itself."""
    if image.shape[0] == 1:
        return image
    red, green, blue = image
    return (0.2989 * red + 0.587 * green + 0.114 * blue)[None]


def blend(image: jax.Array, op: jax.Array | int, factor: jax.Array | float) -> jax.Array:
    """Change brightness, contrast or saturation: factor x image + (1 - factor) x target, clipped to [0, 1].

    The target is black for brightness, the mean luma for contrast, and the luma for saturation. A factor of 1 returns
    the image.

    Args:
        image: [c, h, w].
        op: BRIGHTNESS, CONTRAST or SATURATION; may be traced.
        factor: a scalar >= 0.
    """
    luma = grey(image)
    target = jnp.where(op == CONTRAST, luma.mean(), jnp.where(op == SATURATION, luma, 0.0))
    return jnp.clip(factor * image + (1 - factor) * target, 0, 1)


def shift_hue(image: jax.Array, turns: jax.Array | float) -> jax.Array:
    """Shift the hue of an RGB image, in HSV, by a fraction `turns` of the circle."""
    red, green, blue = image
    value = image.max(axis=0)
    chroma = value - image.min(axis=0)
    divisor = jnp.where(chroma > 0, chroma, 1.0)
    # Do not test `value == red`: compiled code may round the maximum differently from its channel.
    from_green = jnp.where(green >= blue, 2 + (blue - red) / divisor, 4 + (red - green) / divisor)
    is_red = (red >= green) & (red >= blue)
    sextant = jnp.where(is_red, (green - blue) / divisor, from_green) + 6 * turns

    def channel(offset: int) -> jax.Array:
        k = offset + sextant
        k = k - 6 * jnp.floor(k / 6)  # jnp.mod is several times slower on CPU
        return value - chroma * jnp.clip(jnp.minimum(k, 4 - k), 0, 1)

    return jnp.stack([channel(5), channel(3), channel(1)])


def jitter(
    image: jax.Array,
    factors: jax.Array,
    turns: jax.Array | None,
    ranks: jax.Array,
    *,
    ops: tuple[int, ...],
) -> jax.Array:
    """Apply the blends `ops` and the hue shift, in the order of their `ranks`.

    All blends have the same form. So each is computed in a slot before and in a slot after the hue shift, and one of
    the two has a factor of 1. This way the costly hue shift is computed once, not once for each position.

    Args:
        image: [c, h, w].
        factors: [n], the factors of the n `ops`.
        turns: the hue shift as a fraction of the circle; None leaves it out.
        ranks: [n + 1], the ranks of the `ops` and, last, of the hue shift; lower ranks are applied first.
        ops: the blends to apply, out of BRIGHTNESS, CONTRAST and SATURATION.
    """
    order = jnp.argsort(ranks[:-1])
    due = [(jnp.array(ops)[place], factors[place], ranks[place] < ranks[-1]) for place in order]
    if turns is None:
        for op, factor, _ in due:
            image = blend(image, op, factor)
        return image
    for op, factor, early in due:
        image = blend(image, op, jnp.where(early, factor, 1.0))
    image = shift_hue(image, turns)
    for op, factor, early in due:
        image = blend(image, op, jnp.where(early, 1.0, factor))
    return image


def blur(image: jax.Array, sigma: jax.Array | float, *, radius: int) -> jax.Array:
    """Gaussian blur with a kernel of 2 radius + 1 pixels; the image is reflected at its borders.

    The blur is two matrix products, because a convolution with a different kernel for each image is ten times slower.

    Args:
        image: [c, h, w].
        sigma: the standard deviation in pixels.
        radius: the radius of the kernel in pixels.
    """
    rows, columns = (_blur_matrix(size, sigma, radius) for size in image.shape[1:])
    return jnp.einsum("yh,chw,xw->cyx", rows, image, columns, precision=jax.lax.Precision.HIGHEST)


def _blur_matrix(size: int, sigma: jax.Array | float, radius: int) -> jax.Array:
    """[size, size], the weights of each source pixel (column) and its reflections in each blurred pixel (row)."""
    blurred, source = np.arange(size)[:, None], np.arange(size)[None]
    mirrors = [
        source,
        np.where(source > 0, -source, np.inf),
        np.where(source < size - 1, 2 * (size - 1) - source, np.inf),
    ]
    distance = np.stack([np.abs(mirror - blurred) for mirror in mirrors])
    reached = distance <= radius
    squared = jnp.asarray(np.where(reached, distance, 0) ** 2, jnp.float32)
    weights = jnp.where(reached, jnp.exp(-squared / (2 * sigma**2)), 0.0).sum(axis=0)
    return weights / weights.sum(axis=1, keepdims=True)
