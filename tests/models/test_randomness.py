"""What a module draws at random: by the keys of each image, and by the streams of the module."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from contrastive_jax import models
from contrastive_jax.errors import UsageError
from tests.models.test_functional import IMAGES, KEYS, ROWS, SHAPE, build


class Dropped(nnx.Module):
    def __init__(self, rngs):
        self.first, self.second = nnx.Dropout(0.25, rngs=rngs), nnx.Dropout(0.25, rngs=rngs)

    def __call__(self, images):
        x = images.reshape(len(images), -1)
        return jnp.concatenate([self.first(x), self.second(x)], axis=1)


@functools.cache
def drop(seed, start=0, stop=400):
    ones = np.ones((400, *SHAPE), np.float32)[start:stop]
    keys = jax.random.split(jax.random.key(seed), 400)[start:stop]
    return np.asarray(models.apply(*models.functional(Dropped(nnx.Rngs(0))), ones, train=True, keys=keys)[0])


def test_dropout_is_dropout_by_the_keys_alone():
    kept = drop(0)
    np.testing.assert_allclose(np.unique(kept), [0, 1 / 0.75], rtol=1e-6)
    np.testing.assert_allclose(kept.mean(), 1, atol=4 * np.sqrt(0.25 / 0.75 / kept.size))
    np.testing.assert_array_equal(kept, drop.__wrapped__(0))
    first, second = np.split(kept > 0, 2, axis=1)
    # Two independent masks agree at 1 - 2 * 0.75 * 0.25 of the places: layers, keys, and rows of one call.
    for one, other in ((first, second), (kept > 0, drop(1) > 0), (kept[:200] > 0, kept[200:] > 0)):
        np.testing.assert_allclose((one == other).mean(), 0.625, atol=0.03)


def test_numbers_of_an_image_do_not_depend_on_its_batch():
    np.testing.assert_array_equal(drop(0, 50, 60), drop(0)[50:60])


def test_streams_of_a_model_matter_besides_the_keys():
    ones, keys = np.ones((8, *SHAPE), np.float32), KEYS[:8]
    masks = [
        models.apply(*models.functional(Dropped(nnx.Rngs(seed))), ones, train=True, keys=keys)[0] for seed in (0, 1)
    ]
    assert (masks[0] != masks[1]).any()


def test_streams_stacked_for_many_layers_are_told_apart():
    class Stacked(nnx.Module):
        def __init__(self):
            self.streams = nnx.Rngs(0)["default"].split(3)

        def __call__(self, images):
            draws = jax.vmap(lambda key: jax.random.normal(key, (4,)))(self.streams.key[...])
            return images.sum((1, 2)) * 0 + draws.reshape(1, -1)

    form = models.functional(Stacked())
    draws = models.apply(*form, IMAGES, train=True, keys=KEYS)[0].reshape(ROWS * 3, 4)
    assert len(np.unique(draws, axis=0)) == ROWS * 3


def test_keys_are_asked_for_where_they_are_needed():
    form = build("dropout")
    with pytest.raises(UsageError, match=r"expected keys, because the model draws random numbers .*, got None"):
        models.apply(*form, IMAGES, train=True)
    with pytest.raises(UsageError, match=r"expected keys to be \[16\] typed random keys.*, got key<fry>\[3\]"):
        models.apply(*form, IMAGES, train=True, keys=KEYS[:3])
    with pytest.raises(UsageError, match=r"expected keys to be \[16\] typed random keys.*, got uint32\[16, 2\]"):
        models.apply(*form, IMAGES, train=True, keys=jax.random.key_data(KEYS))
    other = jax.random.split(jax.random.key(0, impl="rbg"), ROWS)
    with pytest.raises(UsageError, match="expected keys of threefry2x32, got rbg"):
        models.apply(*form, IMAGES, train=True, keys=other)
