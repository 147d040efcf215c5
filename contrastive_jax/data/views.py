"""Random views of images, made on the accelerator. A view depends only on (seed, epoch, instance id, view, image)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from contrastive_jax.data import _colour

__all__ = ["EVALUATION_EPOCH", "ViewConfig", "plain_view", "random_views"]

EVALUATION_EPOCH = 2**31
"""An epoch of views that training never uses: training epochs are int32, and this is the first number beyond."""

_CROP_ATTEMPTS = 10
_EVALUATION_CROP = 7 / 8


@dataclasses.dataclass(frozen=True)
class ViewConfig:
    """How views are made. The class is hashable, so it can be a static argument.

    The defaults are those of Lee 2025. An operation with probability or strength 0 is not compiled. Neither are
    saturation, hue and greyscale for images of one channel, nor blur for views below 20 pixels, where a kernel of a
    tenth of the side is too small.

    Args:
        size: side of the square views in pixels.
        crop_scale: smallest and greatest area of the crop, as a fraction of the area of the image.
        crop_ratio: smallest and greatest ratio of width to height of the crop.
        flip: probability of a horizontal flip.
        jitter: probability of changing brightness, contrast, saturation and hue, in random order.
        brightness, contrast, saturation: strengths; the factor is uniform in [max(0, 1 - strength), 1 + strength].
        hue: strength, at most 0.5; the shift is uniform in [-hue, hue], as a fraction of the circle.
        greyscale: probability of dropping the colours.
        blur: probability of a Gaussian blur.
        blur_sigma: smallest and greatest standard deviation of the blur in pixels.
        mean, std: of the pixels in [0, 1], one number or one for each channel; the last step is (pixel - mean) / std.

    Raises:
        ValueError: if a probability, range or strength is out of bounds. The message names all faults.
    """

    size: int
    crop_scale: tuple[float, float] = (0.08, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    jitter: float = 0.8
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.1
    greyscale: float = 0.2
    blur: float = 0.5
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    mean: float | tuple[float, ...] = 0.5
    std: float | tuple[float, ...] = 0.5

    def __post_init__(self) -> None:
        if faults := list(_faults(self)):
            raise ValueError("; ".join(faults))


def _faults(config: ViewConfig) -> Iterator[str]:
    if config.size < 1:
        yield f"size: expected at least 1 pixel, got {config.size}"
    for name in ("flip", "jitter", "greyscale", "blur"):
        if not 0 <= getattr(config, name) <= 1:
            yield f"{name}: expected a probability in [0, 1], got {getattr(config, name)}"
    for name in ("brightness", "contrast", "saturation", "hue"):
        most = 0.5 if name == "hue" else float("inf")
        if not 0 <= getattr(config, name) <= most:
            yield f"{name}: expected a strength in [0, {most}], got {getattr(config, name)}"
    for name, most in (("crop_scale", 1.0), ("crop_ratio", float("inf")), ("blur_sigma", float("inf"))):
        low, high = getattr(config, name)
        if not 0 < low <= high <= most:
            yield f"{name}: expected 0 < least <= greatest <= {most}, got {(low, high)}"
    if not np.isfinite(config.mean).all():
        yield f"mean: expected finite numbers, got {config.mean}"
    if not (np.min(config.std) > 0 and np.isfinite(config.std).all()):
        yield f"std: expected positive numbers, got {config.std}"


def random_views(
    images: jax.Array,
    ids: jax.Array,
    *,
    seed: jax.Array | int,
    epoch: jax.Array | int,
    num_views: int = 2,
    config: ViewConfig,
) -> jax.Array:
    """Make random views of every image: crop, flip, colour jitter, greyscale, blur, normalisation.

    View v of instance i in an epoch depends only on (seed, epoch, i, v) and the image. It does not depend on the batch,
    the position of the instance there, the number of devices, or the step at which a run was resumed. The operations,
    their order and their formulas are those of torchvision. One detail follows Pillow: at the border of the crop,
    resampling also uses the pixels outside it.

    Args:
        images: uint8 [b, h, w, c].
        ids: int32 [b], the instance ids.
        seed: the seed of all views; may be traced.
        epoch: the epoch, from 0; may be traced.
        num_views: how many views to make of each image.
        config: how views are made.

    Returns:
        float32 [num_views, b, size, size, c].

    Raises:
        ValueError: if images is not uint8 [b, h, w, 1 or 3], ids is not [b], or the mean or std of config has another
            number of channels.

    Example:
        >>> images, ids = np.zeros((4, 8, 8, 1), np.uint8), np.arange(4, dtype=np.int32)
        >>> random_views(images, ids, seed=0, epoch=0, config=ViewConfig(size=8)).shape
        (2, 4, 8, 8, 1)
    """
    _check_images(images, config)
    if ids.shape != images.shape[:1]:
        raise ValueError(f"ids: expected one for each of the {len(images)} images, got shape {ids.shape}")
    # Name the generator: with some others of JAX, the numbers under vmap depend on the batch.
    key = jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), epoch)

    def view_of(image: jax.Array, instance: jax.Array, view: jax.Array) -> jax.Array:
        return _view(_draw(jax.random.fold_in(jax.random.fold_in(key, instance), view)), image, config)

    over_instances = jax.vmap(view_of, in_axes=(0, 0, None))
    return jax.vmap(over_instances, in_axes=(None, None, 0))(images, ids, jnp.arange(num_views, dtype=jnp.int32))


def plain_view(images: jax.Array, *, config: ViewConfig) -> jax.Array:
    """Make the un-augmented view for evaluation: the central square of every image, resized and normalised.

    The side of the square is 7/8 of the shorter side of the image, or all of it if that is at most `config.size`.

    Args:
        images: uint8 [b, h, w, c], or floats in [0, 1] of the same shape.
        config: gives size, mean and std.

    Returns:
        float32 [b, size, size, c].
    """
    _check_images(images, config, floats=True)
    height, width = images.shape[1:3]
    shorter = min(height, width)
    side = shorter * _EVALUATION_CROP if shorter > config.size else shorter
    corner, extent = jnp.array([height - side, width - side], jnp.float32) / 2, jnp.full(2, side, jnp.float32)
    return jax.vmap(lambda image: _to_output(_crop(_to_unit(image), corner, extent, config.size), config))(images)


class _Draws(NamedTuple):
    """The random numbers of a view, uniform in [0, 1). One call draws all, because each call costs compile time."""

    crop_area: jax.Array
    crop_ratio: jax.Array
    crop_corner: jax.Array
    flip: jax.Array
    jitter: jax.Array
    jitter_factors: jax.Array
    jitter_turns: jax.Array
    jitter_ranks: jax.Array
    greyscale: jax.Array
    blur: jax.Array
    blur_sigma: jax.Array


_SHAPED_DRAWS: dict[str, tuple[int, ...]] = {
    "crop_area": (_CROP_ATTEMPTS,),
    "crop_ratio": (_CROP_ATTEMPTS,),
    "crop_corner": (2,),
    "jitter_factors": (3,),
    "jitter_ranks": (4,),
}


def _draw(key: jax.Array) -> _Draws:
    shapes = [_SHAPED_DRAWS.get(name, ()) for name in _Draws._fields]
    ends = np.cumsum([math.prod(shape) for shape in shapes])
    parts = jnp.split(jax.random.uniform(key, (ends[-1],), jnp.float32), ends[:-1])
    return _Draws(*(part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)))


def _between(draw: jax.Array, low: float | jax.Array, high: float | jax.Array) -> jax.Array:
    return low + (high - low) * draw


def _check_images(images: jax.Array, config: ViewConfig, *, floats: bool = False) -> None:
    of_right_dtype = images.dtype == jnp.uint8 or (floats and jnp.issubdtype(images.dtype, jnp.floating))
    if images.ndim != 4 or images.shape[-1] not in (1, 3) or not of_right_dtype:
        expected = "uint8 or floats" if floats else "uint8"
        raise ValueError(
            f"images: expected {expected} [b, h, w, c] with c 1 or 3, got {images.dtype} {list(images.shape)}"
        )
    for name in ("mean", "std"):
        count = np.size(getattr(config, name))
        if count not in (1, images.shape[-1]):
            raise ValueError(f"{name}: expected 1 number or one for each of {images.shape[-1]} channels, got {count}")


def _view(draws: _Draws, image: jax.Array, config: ViewConfig) -> jax.Array:
    image = _to_unit(image)
    is_colour = image.shape[0] == 3
    image = _crop(image, *_random_box(draws, image.shape[1], image.shape[2], config), config.size)
    if config.flip > 0:
        image = jnp.where(draws.flip < config.flip, image[:, :, ::-1], image)
    image = _random_jitter(draws, image, config)
    if config.greyscale > 0 and is_colour:
        image = jnp.where(draws.greyscale < config.greyscale, _colour.grey(image), image)
    radius = config.size // 20
    if config.blur > 0 and radius > 0:
        blurred = _colour.blur(image, _between(draws.blur_sigma, *config.blur_sigma), radius=radius)
        image = jnp.where(draws.blur < config.blur, blurred, image)
    return _to_output(image, config)


def _to_unit(image: jax.Array) -> jax.Array:
    """uint8 [h, w, c], or floats in [0, 1], as float32 [c, h, w] in [0, 1]."""
    unit = jnp.moveaxis(image, -1, 0).astype(jnp.float32)
    return unit / 255 if image.dtype == jnp.uint8 else unit


def _to_output(image: jax.Array, config: ViewConfig) -> jax.Array:
    """Clip to [0, 1], move the channels last again, and normalise."""
    image = jnp.moveaxis(jnp.clip(image, 0, 1), 0, -1)
    mean, std = (jnp.broadcast_to(jnp.float32(value), (1, 1, image.shape[-1])) for value in (config.mean, config.std))
    return (image - mean) / std


def _random_box(draws: _Draws, height: int, width: int, config: ViewConfig) -> tuple[jax.Array, jax.Array]:
    """Corner (top, left) and extent (height, width) of the first of ten random boxes that fits into the image.

    If none fits, this is the largest central box of an allowed ratio. Boxes have whole pixels, as in torchvision.
    """
    side = jnp.sqrt(height * width * _between(draws.crop_area, *config.crop_scale))
    root = jnp.exp(_between(draws.crop_ratio, *np.log(config.crop_ratio).tolist()) / 2)
    extents = jnp.round(jnp.stack([side / root, side * root], axis=-1))
    limit = jnp.array([[height, width]], jnp.float32)
    fits = ((extents >= 1) & (extents <= limit)).all(axis=-1)
    least, greatest = config.crop_ratio
    fallback = jnp.array([min(height, round(width / least)), min(width, round(height * greatest))], jnp.float32)
    extent = jnp.minimum(jnp.where(fits.any(), extents[jnp.argmax(fits)], fallback), limit[0])
    free = limit[0] - extent
    corner = jnp.where(fits.any(), jnp.floor(draws.crop_corner * (free + 1)), jnp.floor(free / 2))
    return jnp.minimum(corner, free), extent


def _crop(image: jax.Array, corner: jax.Array, extent: jax.Array, size: int) -> jax.Array:
    scale = size / extent
    shape = (image.shape[0], size, size)
    return jax.image.scale_and_translate(image, shape, (1, 2), scale, -scale * corner, method="linear", antialias=True)


def _random_jitter(draws: _Draws, image: jax.Array, config: ViewConfig) -> jax.Array:
    is_colour = image.shape[0] == 3
    strengths = (config.brightness, config.contrast, config.saturation if is_colour else 0.0)
    ops = tuple(op for op in (_colour.BRIGHTNESS, _colour.CONTRAST, _colour.SATURATION) if strengths[op] > 0)
    has_hue = is_colour and config.hue > 0
    if config.jitter == 0 or not (ops or has_hue):
        return image
    factors = jnp.array(
        [_between(draws.jitter_factors[op], max(0, 1 - strengths[op]), 1 + strengths[op]) for op in ops]
    )
    turns = _between(draws.jitter_turns, -config.hue, config.hue) if has_hue else None
    ranks = draws.jitter_ranks[np.array([*ops, -1])]
    return jnp.where(draws.jitter < config.jitter, _colour.jitter(image, factors, turns, ranks, ops=ops), image)
