"""The perceptron against its formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from contrastive_jax import models
from contrastive_jax.errors import UsageError
from contrastive_jax.models import MLP

IMAGES = np.random.default_rng(0).normal(size=(32, 4, 4, 2)).astype(np.float32)


def test_layers_are_linear_batch_norm_relu():
    model = MLP((4, 4, 2), hidden=(8, 6), rngs=nnx.Rngs(0))
    expected = IMAGES.reshape(32, -1).astype(np.float64)
    for linear in model.linears:
        x = expected @ np.asarray(linear.kernel[...], np.float64)
        expected = np.maximum((x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5), 0)
    np.testing.assert_allclose(model(IMAGES, train=True), expected, atol=1e-5)


def test_named_encoder_has_512_features_and_no_biases():
    model = models.create("mlp", image_shape=(4, 4, 2))
    assert model.features(IMAGES).shape == (32, 512)
    count = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model.encoder, nnx.Param)))
    assert count == 32 * 512 + 512 * 512 + 4 * 512


def test_bfloat16_keeps_float32_parameters_statistics_and_features():
    half, full = (MLP((4, 4, 2), hidden=(8, 6), dtype=dtype, rngs=nnx.Rngs(0)) for dtype in ("bfloat16", "float32"))
    out = half(IMAGES, train=True)
    assert out.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(half))} == {jnp.dtype(jnp.float32)}
    np.testing.assert_allclose(out, full(IMAGES, train=True), atol=0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden": ()}, "expected layers to be an integer of at least 1, got 0"),
        ({"hidden": (3, 0)}, r"expected hidden\[1\] to be an integer of at least 1, got 0"),
        ({"dtype": "int32"}, "expected dtype to be a floating dtype"),
    ],
)
def test_what_cannot_be_built_is_refused(options, message):
    with pytest.raises(UsageError, match=message):
        MLP((4, 4, 2), **options, rngs=nnx.Rngs(0))


def test_images_of_another_shape_are_refused():
    with pytest.raises(UsageError, match=r"expected images to be floats \[b, 4, 4, 2\], got float32\[32, 32\]"):
        MLP((4, 4, 2), rngs=nnx.Rngs(0))(IMAGES.reshape(32, -1))
