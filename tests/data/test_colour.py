"""The changes of colour: torchvision's formulas, against Pillow, colorsys and SciPy."""

import colorsys
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from PIL import Image, ImageEnhance

from contrastive_jax.data import _colour
from tests.data.test_views import images_of

blend = jax.jit(_colour.blend)
shift_hue = jax.jit(_colour.shift_hue)
blur = jax.jit(_colour.blur, static_argnames="radius")


@pytest.mark.parametrize("factor", [0.0, 0.6, 1.0, 1.4])
@pytest.mark.parametrize(
    ("op", "enhance"),
    [
        (_colour.BRIGHTNESS, ImageEnhance.Brightness),
        (_colour.CONTRAST, ImageEnhance.Contrast),
        (_colour.SATURATION, ImageEnhance.Color),
    ],
)
def test_blends_are_pillows(op, enhance, factor):
    image = images_of(9, 11, 3)
    found = blend(jnp.moveaxis(jnp.float32(image) / 255, -1, 0), op, factor)
    expected = np.asarray(enhance(Image.fromarray(image)).enhance(factor)) / 255
    np.testing.assert_allclose(np.moveaxis(found, 0, -1), expected, atol=2 / 255)  # Pillow rounds to bytes


@pytest.mark.parametrize("turns", [-0.5, -0.1, 0.0, 0.07, 0.5])
def test_hue_is_colorsys(turns):
    pixels = np.concatenate([images_of(60, 3) / 255, [[0, 0, 0], [1, 1, 1], [0.5, 0.5, 0.2], [1, 0, 0], [0, 1, 1]]])
    expected = []
    for pixel in pixels:
        hue, saturation, value = colorsys.rgb_to_hsv(*pixel)
        expected.append(colorsys.hsv_to_rgb((hue + turns) % 1, saturation, value))
    found = shift_hue(jnp.float32(pixels.T[..., None]), turns)
    np.testing.assert_allclose(found[..., 0].T, expected, atol=2e-6)


def test_jitter_applies_its_parts_in_the_order_of_their_ranks():
    image = jnp.moveaxis(jnp.float32(images_of(6, 5, 3)) / 255, -1, 0)
    ops, factors, turns = (0, 1, 2), jnp.array([1.4, 0.6, 1.3]), 0.1
    orders = np.array(list(itertools.permutations(range(4))))
    ranks = np.argsort(orders, axis=1).astype(np.float32)
    found = jax.jit(jax.vmap(lambda ranks: _colour.jitter(image, factors, turns, ranks, ops=ops)))(ranks)
    for order, changed in zip(orders, found, strict=True):
        expected = image
        for part in order:
            expected = shift_hue(expected, turns) if part == 3 else blend(expected, part, factors[part])
        np.testing.assert_allclose(changed, expected, atol=1e-5)
    assert len(np.unique(np.round(found, 4).reshape(24, -1), axis=0)) > 12


@pytest.mark.parametrize(("radius", "sigma"), [(1, 0.1), (1, 2.0), (3, 1.3)])
def test_blur_is_a_reflected_gaussian(radius, sigma):
    image = images_of(2, 9, 7).astype(np.float64) / 255
    expected = image
    for axis in (1, 2):
        expected = scipy.ndimage.gaussian_filter1d(expected, sigma, axis=axis, mode="mirror", radius=radius)
    np.testing.assert_allclose(blur(jnp.float32(image), sigma, radius=radius), expected, atol=1e-6)
