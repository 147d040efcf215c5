"""The vision transformer against its equations, written out in NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.special import erf

from contrastive_jax import models
from contrastive_jax.errors import UsageError
from contrastive_jax.models import ENCODERS, VisionTransformer

SHAPE, PATCH, DIM, HEADS = (8, 12, 2), 4, 12, 3
build = functools.partial(VisionTransformer, SHAPE, patch_size=PATCH, dim=DIM, depth=2, heads=HEADS)


def images(rows, shape=SHAPE):
    return np.random.default_rng(0).normal(size=(rows, *shape)).astype(np.float32)


def randomized(model):
    """Every parameter drawn anew, so that biases, scales and positions count."""
    graphdef, params, state = models.functional(model)
    leaves, treedef = jax.tree.flatten(params)
    rng = np.random.default_rng(1)
    leaves = [jnp.asarray(x + 0.3 * rng.normal(size=x.shape), jnp.float32) for x in leaves]
    return graphdef, jax.tree.unflatten(treedef, leaves), state


def layer_norm(x, layer):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    return x * layer["scale"] + layer["bias"]


def linear(x, layer):
    return x @ layer["kernel"] + layer["bias"]


def attend(x, layer):
    """One image: [n, d]; each head in turn, by the definition."""
    q, k, v = (linear(x, layer[name]) for name in ("query", "key", "value"))
    outputs, size = [], x.shape[1] // HEADS
    for head in range(HEADS):
        part = slice(head * size, (head + 1) * size)
        scores = np.exp(q[:, part] @ k[:, part].T / np.sqrt(size))
        outputs.append(scores / scores.sum(1, keepdims=True) @ v[:, part])
    return linear(np.concatenate(outputs, axis=1), layer["out"])


def oracle(params, image):
    """The features of one image in float64."""
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), nnx.to_pure_dict(params))
    patches = [
        image[i : i + PATCH, j : j + PATCH].reshape(-1)
        for i in range(0, image.shape[0], PATCH)
        for j in range(0, image.shape[1], PATCH)
    ]
    x = linear(np.array(patches, np.float64), p["embed"]) + p["positions"]
    for i in range(len(p["blocks"])):
        block = p["blocks"][i]
        x = x + attend(layer_norm(x, block["attention_norm"]), block["attention"])
        hidden = linear(layer_norm(x, block["mlp_norm"]), block["hidden"])
        x = x + linear(hidden * (1 + erf(hidden / np.sqrt(2))) / 2, block["out"])
    return layer_norm(x, p["norm"]).mean(0)


def test_forward_pass_is_that_of_the_equations():
    form = randomized(build(rngs=nnx.Rngs(0)))
    expected = [oracle(form[1], image) for image in images(3)]
    np.testing.assert_allclose(models.features(*form, images(3)), expected, atol=2e-5)
    np.testing.assert_allclose(models.apply(*form, images(3), train=True)[0], expected, atol=2e-5)


@pytest.mark.parametrize(("name", "count"), [("vit_tiny", 5_717_416), ("vit_small", 22_050_664)])
def test_parameter_count_is_deits_without_its_classifier_and_class_token(name, count):
    model = nnx.eval_shape(lambda: ENCODERS[name]((224, 224, 3), patch_size=16, rngs=nnx.Rngs(0)))
    features = {"vit_tiny": 192, "vit_small": 384}[name]
    classifier, class_token_and_its_position = 1000 * (features + 1), 2 * features
    parameters = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
    assert parameters == count - classifier - class_token_and_its_position


def test_bfloat16_keeps_float32_parameters_and_features():
    half, full = (models.functional(build(dtype=dtype, rngs=nnx.Rngs(0))) for dtype in ("bfloat16", "float32"))
    jax.tree.map(np.testing.assert_array_equal, half[1], full[1])
    out, expected = (models.features(*form, images(4)) for form in (half, full))
    assert out.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(half[1])} == {jnp.dtype(jnp.float32)}
    np.testing.assert_allclose(out, expected, atol=0.05)
    assert (np.asarray(out) != np.asarray(expected)).any()


def test_dropout_needs_keys_and_is_off_in_evaluation():
    plain, dropped = (models.functional(build(dropout=rate, rngs=nnx.Rngs(0))) for rate in (0.0, 0.5))
    assert not jax.tree.leaves(plain[2])
    params = plain[1]
    keys = jax.random.split(jax.random.key(0), 2)
    expected = models.features(plain[0], params, plain[2], images(2))
    np.testing.assert_array_equal(models.features(dropped[0], params, dropped[2], images(2)), expected)
    one = models.apply(dropped[0], params, dropped[2], images(2), train=True, keys=keys)[0]
    assert np.abs(np.asarray(one) - np.asarray(expected)).max() > 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patch_size": 5}, "expected images whose height and width are multiples of patch_size=5, got 8 x 12"),
        ({"patch_size": 8}, "multiples of patch_size=8, got 8 x 12. Choose a patch_size that divides both"),
        ({"patch_size": 0}, "expected patch_size to be an integer of at least 1, got 0"),
        ({"dim": 10}, "expected dim to be a multiple of heads=3, got 10"),
        ({"dropout": 1.0}, "expected dropout to be at least 0 and below 1, got 1.0"),
        ({"dtype": "int32"}, "expected dtype to be a floating dtype .*, got 'int32'"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        build(**options, rngs=nnx.Rngs(0))


def test_images_of_another_shape_are_refused():
    with pytest.raises(UsageError, match=r"expected images to be floats \[b, 8, 12, 2\], got float32\[2, 8, 8, 2\]"):
        build(rngs=nnx.Rngs(0))(images(2, (8, 8, 2)))
