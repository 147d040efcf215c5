"""An encoder with a head, as a user calls it."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from contrastive_jax import models
from contrastive_jax.errors import UsageError
from contrastive_jax.models import ContrastiveModel, ProjectionHead

IMAGES = np.random.default_rng(0).uniform(size=(16, 4, 4, 1)).astype(np.float32)


class Flat(nnx.Module):
    def __init__(self, rngs, rate=0.0):
        self.linear = nnx.Linear(16, 6, rngs=rngs)
        self.dropout = nnx.Dropout(rate, rngs=rngs)

    def __call__(self, images):
        return self.dropout(self.linear(images.reshape(len(images), -1)))


def test_model_and_functional_form_agree(tiny):
    encoder = tiny(channels=1, stem="small", width=8, rngs=nnx.Rngs(0))
    model = ContrastiveModel(encoder, ProjectionHead(16, 16, 5, rngs=nnx.Rngs(1)))
    form = models.functional(model)
    assert model(IMAGES).shape == (16, 5)
    np.testing.assert_array_equal(model(IMAGES), models.apply(*form, IMAGES, train=False)[0])
    np.testing.assert_array_equal(model.features(IMAGES), models.features(*form, IMAGES))
    trained = models.apply(*form, IMAGES, train=True)[0]
    np.testing.assert_allclose(model(IMAGES, train=True), trained, rtol=1e-5, atol=1e-6)


def test_without_a_head_the_features_are_the_projections():
    model = ContrastiveModel(Flat(nnx.Rngs(0)))
    form = models.functional(model)
    np.testing.assert_array_equal(model(IMAGES), model.encoder(IMAGES))
    np.testing.assert_array_equal(models.apply(*form, IMAGES, train=False)[0], models.features(*form, IMAGES))


def test_the_mode_reaches_parts_that_take_no_argument():
    model = ContrastiveModel(Flat(nnx.Rngs(0), rate=0.5), Head(nnx.Rngs(1)))
    plain = model.encoder.linear(IMAGES.reshape(16, -1))
    np.testing.assert_allclose(model(IMAGES), plain, rtol=1e-6)
    np.testing.assert_allclose(model.features(IMAGES), plain, rtol=1e-6)
    features = model.features(IMAGES, train=True)
    dropped = np.asarray(features) == 0
    assert 0.3 < dropped.mean() < 0.7
    np.testing.assert_allclose(np.asarray(features)[~dropped], 2 * np.asarray(plain)[~dropped], rtol=1e-6)
    np.testing.assert_array_equal(model.head(features, deterministic=False), -np.asarray(features))


class Head(nnx.Module):
    """A head whose mode is an argument of another name."""

    def __init__(self, rngs):
        self.scale = nnx.Param(jnp.ones([]))

    def __call__(self, features, *, deterministic):
        return features * self.scale if deterministic else -features * self.scale


def test_features_and_projections_are_float32_whatever_the_parts_compute_in():
    class Half(nnx.Module):
        def __call__(self, x):
            return x.reshape(len(x), -1).astype(jnp.bfloat16)

    model = ContrastiveModel(Half(), Half())
    assert model(IMAGES).dtype == model.features(IMAGES).dtype == jnp.float32
    np.testing.assert_array_equal(model(IMAGES), IMAGES.reshape(16, -1).astype(jnp.bfloat16).astype(np.float32))


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ((None,), "expected the encoder to be an nnx.Module, got an instance of NoneType"),
        ((Flat,), "expected the encoder to be an nnx.Module, got <class '.*Flat'>"),
        ((linen.Dense(3),), r"got the Linen module Dense. Wrap it: `nnx.bridge.ToNNX\("),
        ((Flat(nnx.Rngs(0)), len), "expected the head to be an nnx.Module, got an instance of builtin"),
    ],
)
def test_what_is_no_module_is_refused(parts, message):
    with pytest.raises(UsageError, match=message):
        ContrastiveModel(*parts)
