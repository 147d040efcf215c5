"""Models by name and by function."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from contrastive_jax import models
from contrastive_jax.errors import UsageError

SHAPE = (8, 8, 1)


class Flat(nnx.Module):
    """A user's own encoder; the class itself is the function that builds it."""

    def __init__(self, image_shape, *, rngs, size=6):
        self.linear = nnx.Linear(int(np.prod(image_shape)), size, rngs=rngs)

    def __call__(self, images):
        return self.linear(images.reshape(len(images), -1))


class Maps(nnx.Module):
    """Forgets to pool."""

    def __init__(self, image_shape, *, rngs):
        pass

    def __call__(self, images):
        return images


def leaves(model):
    return dict(jax.tree_util.tree_leaves_with_path(models.functional(model)[1]))


def parameter(model, *path):
    value = models.functional(model)[1]
    for name in path:
        value = value[name]
    return np.asarray(value[...])


def test_the_parameters_of_a_seed_are_those_of_the_recorded_results():
    """Printed before the encoder became exchangeable; results in the repository were trained from these."""
    model = models.create("resnet18", image_shape=SHAPE, encoder_kwargs={"width": 8}, seed=3)
    sums = {jax.tree_util.keystr(path): np.abs(leaf).sum(dtype=np.float64) for path, leaf in leaves(model).items()}
    assert len(sums) == 65
    total = sum(sums.values())
    np.testing.assert_allclose(total, np.float64(11624.501013447896), rtol=1e-6)
    recorded = {
        ("encoder", "first", "conv", "kernel"): [0.12911933660507202, 0.005979803390800953, 0.40679678320884705],
        ("encoder", "blocks", 7, "last", "conv", "kernel"): [
            -0.03385983780026436,
            -0.01697399653494358,
            0.003125135786831379,
        ],
        ("head", "hidden", "kernel"): [0.0339365117251873, 0.11628923565149307, 0.056087881326675415],
        ("head", "out", "kernel"): [-0.24492235481739044, -0.011387700214982033, 0.10003678500652313],
    }
    for path, values in recorded.items():
        np.testing.assert_allclose(parameter(model, *path).reshape(-1)[:3], values, rtol=1e-6)


def test_seed_alone_decides_the_parameters():
    build = functools.partial(models.create, "resnet10", image_shape=SHAPE)
    first = leaves(build(encoder_kwargs={"width": 8}))
    other = leaves(build(encoder_kwargs={"width": 8, "dtype": "bfloat16"}))
    assert first.keys() == other.keys()
    for path, leaf in first.items():
        np.testing.assert_array_equal(leaf, other[path])
    seeded = build(encoder_kwargs={"width": 8}, seed=1)
    unseeded = build(encoder_kwargs={"width": 8})
    path = ("head", "out", "kernel")
    assert (parameter(seeded, *path) != parameter(unseeded, *path)).any()


def test_head_takes_the_size_of_the_features_unless_told_otherwise():
    assert parameter(models.create(Flat, image_shape=SHAPE), "head", "hidden", "kernel").shape == (6, 6)
    model = models.create(Flat, image_shape=SHAPE, encoder_kwargs={"size": 9}, head_kwargs={"hidden": 4, "out": 5})
    assert parameter(model, "head", "hidden", "kernel").shape == (9, 4)
    assert model(jnp.zeros((2, *SHAPE))).shape == (2, 5)


def test_own_functions_are_called_as_the_built_in_ones_are():
    def head(num_features, *, rngs, out):
        return nnx.Linear(num_features, out, rngs=rngs)

    model = models.create(Flat, image_shape=SHAPE, head=head, head_kwargs={"out": 3})
    assert isinstance(model.encoder, Flat) and isinstance(model.head, nnx.Linear)
    assert model(jnp.zeros((2, *SHAPE))).shape == (2, 3)


@pytest.mark.parametrize("head", [None, "none", lambda num_features, *, rngs: None])
def test_head_may_be_left_out(head):
    model = models.create(Flat, image_shape=SHAPE, head=head)
    assert model.head is None
    assert model(jnp.ones((2, *SHAPE))).shape == (2, 6)


def test_num_features_is_found_for_any_encoder():
    assert models.num_features(Flat(SHAPE, rngs=nnx.Rngs(0)), SHAPE) == 6
    assert models.num_features(models.ENCODERS["resnet50"](SHAPE, width=8, rngs=nnx.Rngs(0)), SHAPE) == 256


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(encoder="vitt"), "expected encoder to be one of resnet10, .*, or a function, got 'vitt'"),
        (dict(encoder="resnet19"), "got 'resnet19'. Did you mean 'resnet18'?"),
        (dict(head="linear"), "expected head to be one of none, projection, or a function, got 'linear'"),
        (dict(encoder=3), "expected encoder to be a name or a function that builds a module, got an instance of int"),
        (dict(encoder=Flat(SHAPE, rngs=nnx.Rngs(0))), r"got an instance of Flat. .* goes into ContrastiveModel\("),
        (dict(encoder=linen.Dense(3)), "got the Linen module Dense. Wrap it"),
        (dict(encoder=lambda shape, *, rngs: linen.Dense(3)), "to return an nnx.Module, got the Linen module Dense"),
        (dict(encoder=lambda shape, *, rngs: None), "to return an nnx.Module, got an instance of NoneType"),
        (dict(encoder=Flat, head=lambda size, *, rngs: 3), "to return an nnx.Module or None, got an instance of int"),
        (
            dict(encoder=Maps),
            r"expected an encoder that gives float features \[b, f\], got float32\[2, 8, 8, 1\] .*Pool",
        ),
        (
            dict(encoder="resnet18", encoder_kwargs={"depth": 3}),
            "arguments of encoder 'resnet18' among: stem, width, dtype, zero_init_residual; got depth",
        ),
        (dict(encoder=Flat, encoder_kwargs={"sise": 3}), "arguments of encoder Flat among: size; got sise"),
        (dict(encoder=Flat, head_kwargs={"size": 3}), "arguments of head 'projection' among: hidden, out; got size"),
        (dict(encoder=lambda shape, *, rngs, k: None), "to hold k, got {}"),
        (
            dict(image_shape=(8, 8)),
            r"expected image_shape to be \(height, width, channels\), all at least 1, got \(8, 8\)",
        ),
        (dict(image_shape=(8, 0, 1)), r"got \(8, 0, 1\)"),
    ],
)
def test_what_cannot_be_built_is_refused(arguments, message):
    with pytest.raises(UsageError, match=message):
        models.create(**{"image_shape": SHAPE} | arguments)
