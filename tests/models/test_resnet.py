"""Residual networks: sizes as torchvision's, dtypes, and errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from contrastive_jax.errors import UsageError
from contrastive_jax.models import ENCODERS, BatchNorm, ResNet

SMALLER_STEM = (7 * 7 - 3 * 3) * 3 * 64


def parameter_count(model):
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))


@pytest.mark.parametrize(
    ("name", "stem", "count"),
    [
        ("resnet18", "plain", 11_176_512),
        ("resnet34", "plain", 21_284_672),
        ("resnet50", "plain", 23_508_032),
        ("resnet18", "small", 11_176_512 - SMALLER_STEM),
    ],
)
def test_parameter_count_is_torchvisions_without_the_classifier(name, stem, count):
    assert parameter_count(nnx.eval_shape(lambda: ENCODERS[name]((32, 32, 3), stem=stem, rngs=nnx.Rngs(0)))) == count


@pytest.mark.parametrize(("name", "features"), [("resnet18", 64), ("resnet34", 64), ("resnet50", 256)])
def test_feature_shape_and_dtype(name, features):
    model = nnx.eval_shape(lambda: ENCODERS[name]((8, 8, 1), width=8, rngs=nnx.Rngs(0)))
    assert model.num_features == features
    out = nnx.eval_shape(lambda m, x: m(x), model, jnp.zeros((3, 8, 8, 1)))
    assert (out.shape, out.dtype) == ((3, features), jnp.float32)


def test_bfloat16_keeps_float32_parameters_statistics_and_outputs(tiny):
    def build(dtype):
        return tiny(channels=1, stem="small", width=8, dtype=dtype, rngs=nnx.Rngs(0))

    half, full = build(jnp.bfloat16), build(jnp.float32)
    images = jax.random.uniform(jax.random.key(0), (16, 8, 8, 1))
    out, expected = half(images, train=True), full(images, train=True)
    assert out.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(half))} == {jnp.dtype(jnp.float32)}
    np.testing.assert_allclose(out, expected, atol=0.1 * float(expected.max()))
    assert half(images).dtype == jnp.float32


def test_zero_init_residual_starts_blocks_as_their_shortcuts(tiny):
    model = tiny(channels=1, stem="small", width=8, zero_init_residual=True, rngs=nnx.Rngs(0))
    x = jax.random.uniform(jax.random.key(0), (2, 8, 8, 8))
    np.testing.assert_array_equal(model.blocks[0](x, train=True), x)


def test_initial_weights_have_he_variance_by_fan_out(tiny):
    model = tiny(stem="small", width=64, rngs=nnx.Rngs(0))
    kernel = model.blocks[1].first[0].conv.kernel[...]
    assert kernel.shape == (3, 3, 64, 128)
    np.testing.assert_allclose(kernel.std(), np.sqrt(2 / (9 * 128)), rtol=0.01)


def test_batch_norm_statistics_survive_a_large_mean():
    norm = BatchNorm(1, rngs=nnx.Rngs(0))
    x = 1000 + jax.random.normal(jax.random.key(0), (4096, 1))
    np.testing.assert_allclose(norm(x, train=True).std(), 1, rtol=1e-3)
    np.testing.assert_allclose(norm.var[...], 0.9 + 0.1 * np.var(np.asarray(x, np.float64)), rtol=1e-4)


def test_batch_norm_evaluates_in_float32_whatever_the_input():
    norm = BatchNorm(1, rngs=nnx.Rngs(0))
    norm.mean[...] = jnp.array([1.001])
    out = norm(jnp.ones((1, 1), jnp.bfloat16), train=False)
    assert out.dtype == jnp.bfloat16
    np.testing.assert_allclose(out.astype(jnp.float32), -0.001, rtol=0.02)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"block": "wide"}, "expected block to be one of basic, bottleneck, got 'wide'"),
        ({"stem": "tiny"}, "expected stem to be one of small, plain, got 'tiny'"),
        ({"width": 0}, "expected width to be an integer of at least 1, got 0"),
        ({"dtype": "int8"}, "expected dtype to be a floating dtype such as .*, got 'int8'"),
        ({"dtype": "quarter"}, "expected dtype to be a floating dtype such as .*, got 'quarter'"),
    ],
)
def test_unknown_options_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        ResNet(**{"block": "basic", "stage_sizes": (1,), "rngs": nnx.Rngs(0)} | options)


@pytest.mark.parametrize("images", [np.zeros((2, 8, 8, 1), np.uint8), np.zeros((8, 8, 1)), np.zeros((2, 8, 8, 3))])
def test_other_images_are_refused(images):
    model = nnx.eval_shape(lambda: ENCODERS["resnet18"]((8, 8, 1), width=8, rngs=nnx.Rngs(0)))
    with pytest.raises(ValueError, match=r"expected images to be floats \[b, h, w, 1\], got"):
        model(images)
