"""Where the loss is dense, the similarity distribution forms no product that the loss has formed: XLA shares them."""

import re

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec

from contrastive_jax import losses, metrics
from tests.mappings import AXIS, MAPPINGS

M, D = 12, 5
OF_ALL_PAIRS_OF_VIEWS = [losses.simclr, losses.dcl, losses.dhel, losses.kcl, losses.info_nce, losses.siglip]
# Across devices u v^T and v u^T are of different rows: losses of both form both.
BOTH_WAYS = [losses.simclr, losses.dcl, losses.info_nce]


def count_products(loss, devices, with_loss=True):
    """The products [rows of a device, all rows] in the compiled text of a loss, its gradient and the distribution."""
    axis_name = None if devices is None else AXIS

    def local(u, v):
        ids = (0 if devices is None else jax.lax.axis_index(AXIS)) * len(u) + jnp.arange(len(u), dtype=jnp.int32)
        options = {"ids": ids, "axis_name": axis_name}
        both = metrics.similarity_distribution(u, v, implementation="dense", **options)
        if not with_loss:
            return both
        mean = lambda u, v: loss(u, v, implementation="dense", **options).mean()  # noqa: E731
        value, grads = jax.value_and_grad(mean, argnums=(0, 1))(u, v)
        summed = value + sum(jnp.sum(jnp.square(x)) for x in grads)
        return both, summed if axis_name is None else jax.lax.pmean(summed, axis_name)

    fn = local if devices is None else lambda u, v: MAPPINGS["shard_map"](local, devices)(u, v, out=PartitionSpec())
    shape = jax.ShapeDtypeStruct((M, D), jnp.float32)
    text = jax.jit(fn).lower(shape, shape).compile().as_text()
    return len(re.findall(rf"f32\[{M // (devices or 1)},{M}\]\S* dot\(", text))


@pytest.mark.parametrize("loss", OF_ALL_PAIRS_OF_VIEWS)
@pytest.mark.parametrize("devices", [None, 1])
def test_on_one_device(loss, devices):
    assert count_products(loss, devices) == 3  # u u^T, u v^T, v v^T


@pytest.mark.parametrize("loss", OF_ALL_PAIRS_OF_VIEWS)
def test_on_two_devices(loss):
    assert count_products(loss, 2) == (4 if loss in BOTH_WAYS else 3)


@pytest.mark.parametrize("devices", [None, 1, 2])
def test_the_distribution_alone(devices):
    assert count_products(None, devices, with_loss=False) == 3
