"""Weights under torchvision's names: the names and shapes of its own classes, out and in, and its features."""

import json
import re
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from contrastive_jax import models
from contrastive_jax.errors import UsageError

# Of torchvision 0.28: {network: {name: [dtype, shape]}}.
NAMES = json.loads((Path(__file__).parent / "torchvision_names.json").read_text())


def make(name="resnet10", seed=0, *, channels=1, width=4, **options):
    return models.ENCODERS[name]((8, 8, channels), width=width, rngs=nnx.Rngs(seed), **options)


@pytest.fixture(scope="module")
def arrays():
    """The weights of a small ResNet whose statistics are not those of its start."""
    encoder = make()
    rng = np.random.default_rng(0)
    found = models.to_torchvision(encoder)
    return {
        name: x if x.dtype != np.float32 else (x + rng.uniform(0, 0.2, x.shape)).astype(np.float32)
        for name, x in found.items()
    }


@pytest.mark.parametrize("name", NAMES)
def test_names_shapes_and_dtypes_are_torchvisions(name):
    encoder = models.ENCODERS[name]((32, 32, 3), stem="plain", rngs=nnx.Rngs(0))
    found = {key: [x.dtype.name, list(x.shape)] for key, x in models.to_torchvision(encoder).items()}
    expected = {key: x for key, x in NAMES[name].items() if not key.startswith("fc.")}
    assert found == expected and list(found) == list(expected)
    assert models.describe_difference(encoder) is None


@pytest.mark.parametrize("name", ["resnet10", "resnet50"])
@pytest.mark.parametrize("stem", ["small", "plain"])
def test_out_and_in_again_is_the_same_network(name, stem):
    one, other = (make(name, seed, stem=stem) for seed in (0, 1))
    images = jnp.asarray(np.random.default_rng(0).normal(size=(2, 8, 8, 1)), jnp.float32)
    assert not np.array_equal(one(images), other(images))
    assert models.load_torchvision(other, models.to_torchvision(one)) == []
    np.testing.assert_array_equal(one(images), other(images))


def test_statistics_come_along(arrays):
    encoder = make()
    models.load_torchvision(encoder, arrays)
    np.testing.assert_array_equal(encoder.first.norm.var[...], arrays["bn1.running_var"])
    np.testing.assert_array_equal(
        encoder.blocks[1].shortcut.norm.mean[...], arrays["layer2.0.downsample.1.running_mean"]
    )
    kernel = np.asarray(encoder.blocks[3].last.conv.kernel[...])
    np.testing.assert_array_equal(kernel.transpose(3, 2, 0, 1), arrays["layer4.0.conv2.weight"])


def test_a_classifier_is_left_out_and_counts_may_be_missing(arrays):
    given = {name: x for name, x in arrays.items() if "num_batches" not in name}
    given |= {"fc.weight": np.zeros((10, 32), np.float32), "fc.bias": np.zeros(10, np.float32)}
    encoder = make()
    assert models.load_torchvision(encoder, given) == ["fc.bias", "fc.weight"]
    np.testing.assert_array_equal(encoder.first.norm.bias[...], arrays["bn1.bias"])


def without(name):
    return lambda arrays: {key: x for key, x in arrays.items() if key != name}


def with_array(name, x):
    return lambda arrays: arrays | {name: x}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("bn1.weight"), r"got 1 missing \(bn1.weight\)\. Give the file"),
        (with_array("layer9.w", np.zeros(2, np.float32)), r"got 1 too many \(layer9.w\)"),
        (
            lambda arrays: {f"module.{key}": x for key, x in arrays.items()},
            r"got 60 missing \(.*and 55 more\) and 60 too many \(module.*and 55 more\)",
        ),
        (
            with_array("conv1.weight", np.zeros((4, 1, 7, 7), np.float32)),
            r"expected \[4, 1, 3, 3\], got \[4, 1, 7, 7\]. .*7x7: build the ResNet with stem='plain'",
        ),
        (with_array("conv1.weight", np.zeros((4, 3, 3, 3), np.float32)), "images of 3 channels: give such images"),
        (with_array("conv1.weight", np.zeros((8, 1, 3, 3), np.float32)), "width of 8: build the ResNet with width=8"),
        (with_array("bn1.bias", np.zeros(9, np.float32)), r"bn1.bias: expected \[4\], got \[9\]"),
        (with_array("bn1.bias", np.zeros(4)), "bn1.bias: expected float32, got float64"),
        (with_array("bn1.bias", np.full(4, np.nan, np.float32)), "bn1.bias: expected finite numbers"),
    ],
)
def test_weights_that_do_not_fit_change_nothing(change, message, arrays):
    encoder = make()
    before = models.to_torchvision(encoder)
    with pytest.raises(UsageError, match=message):
        models.load_torchvision(encoder, change(arrays))
    after = models.to_torchvision(encoder)
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_the_plain_stem_does_not_take_the_small_one():
    with pytest.raises(UsageError, match="3x3: build the ResNet with stem='small'"):
        models.load_torchvision(make(stem="plain"), models.to_torchvision(make()))


def test_what_has_no_such_names_is_refused():
    encoder = models.ENCODERS["mlp"]((8, 8, 1), hidden=(4,), rngs=nnx.Rngs(0))
    for call in (models.to_torchvision, models.describe_difference, lambda x: models.load_torchvision(x, {})):
        with pytest.raises(UsageError, match=r"expected a ResNet of this package.*got an instance of MLP"):
            call(encoder)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "resnet18",
            {"width": 64, "channels": 3},
            r"^set conv1 to Conv2d\(3, 64, 3, padding=1, bias=False\) and maxpool",
        ),
        ("resnet18", {"width": 64, "stem": "plain"}, r"^set conv1 to Conv2d\(1, 64, 7, stride=2, padding=3"),
        ("resnet34", {"width": 8, "channels": 3, "stem": "plain"}, "^make all layers 8/64 as wide"),
        ("resnet10", {"width": 64, "channels": 3, "stem": "plain"}, r"ResNet\(BasicBlock, \[1, 1, 1, 1\]\)$"),
    ],
)
def test_what_to_change_in_torchvisions_class(name, options, message):
    assert re.search(message, models.describe_difference(make(name, **options)))


def test_torchvision_gives_the_same_features(arrays, tmp_path):
    torchvision, torch = pytest.importorskip("torchvision"), pytest.importorskip("torch")
    encoder = models.ENCODERS["resnet18"]((64, 64, 3), stem="plain", rngs=nnx.Rngs(0))
    theirs = torchvision.models.resnet18()
    theirs.fc = torch.nn.Identity()
    given = {name: torch.from_numpy(np.array(x)) for name, x in models.to_torchvision(encoder).items()}
    theirs.load_state_dict(given, strict=True)
    images = np.random.default_rng(0).normal(size=(2, 64, 64, 3)).astype(np.float32)
    with torch.no_grad():
        features = theirs.eval()(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()
    np.testing.assert_allclose(encoder(jnp.asarray(images)), features, rtol=0, atol=1e-4 * np.abs(features).max())
