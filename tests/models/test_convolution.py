"""The convolution in both of its forms, and which of them is taken."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from contrastive_jax.errors import UsageError
from contrastive_jax.models import convolve

NUMBERS = ("NHWC", "HWIO", "NHWC")


def arrays(batch, size, kernel_size, channels=3, outputs=5):
    rng = np.random.default_rng(0)
    shapes = (batch, *size, channels), (kernel_size, kernel_size, channels, outputs)
    return tuple(rng.normal(size=shape).astype(np.float32) for shape in shapes)


def value_and_gradients(fn, images, kernel):
    value, pull = jax.vjp(fn, images, kernel)
    return value, *pull(jnp.cos(jnp.arange(value.size, dtype=jnp.float32)).reshape(value.shape))


@pytest.mark.parametrize("implementation", ["convolution", "product"])
@pytest.mark.parametrize("size", [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (2, 3), (4, 1)])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel_size", [1, 3, 7])
def test_every_form_is_the_convolution_with_its_gradients(size, stride, kernel_size, implementation):
    images, kernel = arrays(8, size, kernel_size)
    options = (stride, stride), [(kernel_size // 2, kernel_size // 2)] * 2

    def form(x, w):
        return convolve(x, w, *options, implementation=implementation)

    def definition(x, w):
        return lax.conv_general_dilated(x, w, *options, dimension_numbers=NUMBERS)

    both = jax.jit(lambda x, w: [value_and_gradients(fn, x, w) for fn in (form, definition)])
    for a, b in zip(*both(images, kernel), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * np.abs(b).max() + 1e-6)


def chosen(batch, size, kernel_size, stride, channels=8, **options):
    images, kernel = arrays(batch, (size, size), kernel_size, channels)
    padding = options.pop("padding", [(kernel_size // 2, kernel_size // 2)] * 2)
    traced = jax.make_jaxpr(lambda x, w: convolve(x, w, (stride, stride), padding, **options))(images, kernel)
    return "convolution" if "conv_general_dilated" in str(traced) else "product"


@pytest.mark.parametrize(
    ("batch", "size", "kernel_size", "stride", "form"),
    [
        # ResNet-18 on 8x8 images, its last two stages.
        (64, 4, 3, 2, "product"),
        (64, 2, 3, 1, "product"),
        (64, 2, 3, 2, "product"),
        (64, 1, 3, 1, "product"),
        (64, 1, 1, 1, "product"),
        (64, 2, 1, 2, "convolution"),
        # ResNet-18 on 96x96 images with the plain stem, its last stage.
        (256, 6, 3, 2, "convolution"),
        (256, 3, 3, 1, "convolution"),
        (16, 3, 3, 1, "convolution"),
        # Too few images to pay for the dense kernel.
        (4, 4, 3, 2, "convolution"),
        (4, 2, 3, 1, "convolution"),
        (1, 1, 3, 1, "convolution"),
        # Every map that is larger.
        (256, 4, 3, 1, "convolution"),
        (256, 8, 3, 2, "convolution"),
        (256, 2, 1, 1, "convolution"),
    ],
)
def test_form_is_chosen_by_cost(batch, size, kernel_size, stride, form):
    assert chosen(batch, size, kernel_size, stride) == form


def test_what_the_product_cannot_do_is_convolved():
    assert chosen(64, 2, 3, 1) == "product"
    assert chosen(64, 2, 3, 1, padding="SAME") == "convolution"
    assert chosen(64, 2, 3, 1, rhs_dilation=(2, 2), padding=[(2, 2)] * 2) == "convolution"
    images, kernel = jnp.ones((64, 2, 2, 4)), jnp.ones((3, 3, 2, 4))
    grouped = convolve(images, kernel, (1, 1), [(1, 1)] * 2, feature_group_count=2)
    np.testing.assert_allclose(grouped, 8.0)


def test_accelerators_convolve(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert chosen(64, 2, 3, 1) == "convolution"


def test_unknown_implementation_is_refused():
    with pytest.raises(UsageError, match="expected implementation to be one of convolution, product, got 'fft'"):
        convolve(*arrays(2, (2, 2), 3), (1, 1), [(1, 1)] * 2, implementation="fft")
