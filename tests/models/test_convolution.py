"""The convolution in both of its forms, and which of them is taken."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, Mesh, PartitionSpec
from jax.test_util import check_grads

from contrastive_jax.errors import UsageError
from contrastive_jax.models import convolve
from tests.mappings import AXIS, MAPPINGS

NUMBERS = ("NHWC", "HWIO", "NHWC")


def arrays(batch, size, kernel_size, channels=3, outputs=5):
    rng = np.random.default_rng(0)
    shapes = (batch, *size, channels), (kernel_size, kernel_size, channels, outputs)
    return tuple(rng.normal(size=shape).astype(np.float32) for shape in shapes)


def value_and_gradients(fn, images, kernel):
    value, pull = jax.vjp(fn, images, kernel)
    return value, *pull(jnp.cos(jnp.arange(value.size, dtype=jnp.float32)).reshape(value.shape))


@pytest.mark.parametrize("implementation", ["convolution", "product", "patches"])
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


def differentiate_in_float64(images, kernel, stride, padding, cotangent):
    """Value and gradients by the definition, in NumPy: one tap of the kernel after the other."""
    x, w, g = (np.asarray(a, np.float64) for a in (images, kernel, cotangent))
    x = np.pad(x, ((0, 0), *padding, (0, 0)))
    value, dx, dw = np.zeros(g.shape), np.zeros(x.shape), np.zeros(w.shape)
    for i, j in np.ndindex(w.shape[:2]):
        rows, columns = (slice(k, k + stride * (n - 1) + 1, stride) for k, n in zip((i, j), g.shape[1:3], strict=True))
        seen = np.s_[:, rows, columns]
        value += x[seen] @ w[i, j]
        dx[seen] += g @ w[i, j].T
        dw[i, j] = np.einsum("bhwc,bhwo->co", x[seen], g)
    (top, bottom), (left, right) = padding
    return value, dx[:, top : dx.shape[1] - bottom, left : dx.shape[2] - right], dw


@pytest.mark.parametrize("implementation", ["convolution", "patches"])
@pytest.mark.parametrize(
    ("batch", "size", "kernel_size", "stride"),
    [(6, (16, 16), 3, 1), (7, (8, 8), 3, 2), (64, (8, 8), 1, 2), (3, (40, 33), 7, 2), (5, (9, 12), 1, 1)],
)
def test_value_and_gradients_are_those_of_float64(batch, size, kernel_size, stride, implementation):
    images, kernel = arrays(batch, size, kernel_size)
    padding = [(kernel_size // 2, kernel_size // 2)] * 2
    fn = functools.partial(convolve, strides=(stride, stride), padding=padding, implementation=implementation)
    value, pull = jax.vjp(fn, images, kernel)
    cotangent = jax.random.normal(jax.random.key(2), value.shape)
    want = differentiate_in_float64(images, kernel, stride, padding, cotangent)
    for a, b in zip((value, *pull(cotangent)), want, strict=True):
        np.testing.assert_allclose(a, b, atol=3e-6 * np.abs(b).max())


def on_patches(images, kernel):
    return convolve(images, kernel, (1, 1), [(1, 1)] * 2, implementation="patches")


def test_patches_in_every_mode_of_differentiation():
    images, kernel = arrays(4, (4, 4), 3, channels=2, outputs=2)
    check_grads(on_patches, (images, kernel), order=2, modes=("fwd", "rev"), atol=1e-2, rtol=1e-2)
    curvature = [
        jax.hessian(lambda x, w, f=f: jnp.sin(f(x, w)).sum(), argnums=(0, 1))(images, kernel)
        for f in (on_patches, lambda x, w: convolve(x, w, (1, 1), [(1, 1)] * 2, implementation="convolution"))
    ]
    for a, b in zip(*map(jax.tree.leaves, curvature), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_patches_under_vmap():
    images = jax.random.normal(jax.random.key(0), (3, 4, 8, 8, 2))
    kernels = jax.random.normal(jax.random.key(1), (3, 3, 3, 2, 5))
    gradient = jax.grad(lambda w, x: (on_patches(x, w) ** 2).sum())
    got = jax.vmap(gradient)(kernels, images)
    np.testing.assert_allclose(got, jnp.stack([*map(gradient, kernels, images)]), rtol=1e-4, atol=1e-3)


def gradients_on_patches(images, kernel):
    return jax.grad(lambda x, w: (on_patches(x, w) ** 2).sum(), argnums=(0, 1))(images, kernel)


@pytest.mark.parametrize("mapping", MAPPINGS)
def test_patches_on_several_devices_each_with_its_kernel(mapping):
    images, _ = arrays(8, (8, 8), 3)
    kernels = jax.random.normal(jax.random.key(1), (4 * 3, 3, 3, 5))
    got = MAPPINGS[mapping](gradients_on_patches, 4)(images, kernels)
    shares = [gradients_on_patches(x, w) for x, w in zip(jnp.split(images, 4), jnp.split(kernels, 4), strict=True)]
    for a, *b in zip(got, *shares, strict=True):
        np.testing.assert_allclose(a, jnp.concatenate(b), rtol=1e-4, atol=1e-3)


def test_patches_on_several_devices_with_one_kernel():
    images, kernel = arrays(8, (8, 8), 3)
    mesh = Mesh(np.array(jax.devices()[:4]), (AXIS,))

    def local(images, kernel):
        return lax.psum((on_patches(images, kernel) ** 2).sum(), AXIS)

    fn = jax.shard_map(local, mesh=mesh, in_specs=(PartitionSpec(AXIS), PartitionSpec()), out_specs=PartitionSpec())
    for a, b in zip(jax.grad(fn, (0, 1))(images, kernel), gradients_on_patches(images, kernel), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3)


def lower_gradients(
    batch, size, kernel_size, stride, channels, outputs, implementation=None, dtype="float32", **options
):
    """The lowered value and gradients, of shapes only, as StableHLO for a platform."""
    images = jax.ShapeDtypeStruct((batch, size, size, channels), dtype)
    kernel = jax.ShapeDtypeStruct((kernel_size, kernel_size, channels, outputs), dtype)
    padding = options.pop("padding", [(kernel_size // 2, kernel_size // 2)] * 2)
    platform = options.pop("platform", "cpu")

    def loss(images, kernel):
        value = convolve(images, kernel, (stride, stride), padding, implementation=implementation, **options)
        return (value**2).sum()

    traced = jax.jit(jax.value_and_grad(loss, argnums=(0, 1))).trace(images, kernel)
    return traced.lower(lowering_platforms=(platform,)).as_text()


def chosen(batch, size, kernel_size, stride, channels=8, outputs=5, **options):
    text = lower_gradients(batch, size, kernel_size, stride, channels, outputs, **options)
    if "stablehlo.while" in text:
        return "patches"
    return "convolution" if "stablehlo.convolution" in text else "product"


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


@pytest.mark.parametrize(
    ("case", "form"),
    [
        # ResNet-18 on 32x32 images, 64 pairs: kernel, stride, channels.
        ((128, 32, 3, 1, 3, 64), "patches"),
        ((128, 32, 3, 1, 64, 64), "patches"),
        ((128, 32, 1, 2, 64, 128), "patches"),
        ((128, 8, 3, 2, 256, 512), "patches"),
        ((128, 4, 3, 1, 512, 512), "patches"),
        ((128, 3, 3, 1, 512, 512), "convolution"),
        # The digits job: too little work to compile a loop for.
        ((512, 8, 3, 1, 16, 16), "convolution"),
        ((512, 8, 1, 2, 16, 32), "convolution"),
    ],
)
def test_form_of_the_gradient_is_chosen_by_cost(case, form):
    assert chosen(*case) == form
    assert chosen(*case, dtype="bfloat16") == "convolution"


CASES = [(64, 2, 3, 1, 8, 5), (128, 32, 3, 1, 64, 64)]


def test_a_batch_on_an_explicit_axis_is_convolved():
    mesh = jax.make_mesh((4,), (AXIS,), axis_types=(AxisType.Explicit,))
    images, kernel = arrays(128, (16, 16), 3, channels=8, outputs=64)
    loss = jax.jit(jax.grad(lambda w, x: (convolve(x, w, (1, 1), [(1, 1)] * 2) ** 2).sum()))
    assert chosen(128, 16, 3, 1, 8, 64) == "patches"
    want = loss(kernel, images)
    with jax.set_mesh(mesh):
        got = loss(jax.device_put(kernel, PartitionSpec()), jax.device_put(images, PartitionSpec(AXIS)))
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5 * np.abs(want).max())


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
@pytest.mark.parametrize("case", CASES)
def test_what_a_cpu_lowers_for_accelerators_convolves(case, platform):
    assert chosen(*case) != "convolution"
    text = lower_gradients(*case, platform=platform)
    assert "while" not in text and "dot_general" not in text and "concatenate" not in text
    plain = lower_gradients(*case, platform=platform, implementation="convolution")
    assert text.count("stablehlo.convolution") == plain.count("stablehlo.convolution") == 3


def test_what_the_product_cannot_do_is_convolved():
    assert chosen(64, 2, 3, 1) == "product"
    assert chosen(64, 2, 3, 1, padding="SAME") == "convolution"
    assert chosen(64, 2, 3, 1, rhs_dilation=(2, 2), padding=[(2, 2)] * 2) == "convolution"
    images, kernel = jnp.ones((64, 2, 2, 4)), jnp.ones((3, 3, 2, 4))
    grouped = convolve(images, kernel, (1, 1), [(1, 1)] * 2, feature_group_count=2)
    np.testing.assert_allclose(grouped, 8.0)


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
@pytest.mark.parametrize("case", CASES)
def test_the_program_of_an_accelerator_is_the_plain_one(monkeypatch, case, platform):
    plain = lower_gradients(*case, platform=platform, implementation="convolution")
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert lower_gradients(*case, platform=platform) == plain


def test_unknown_implementation_is_refused():
    with pytest.raises(
        UsageError, match="expected implementation to be one of convolution, product, patches, got 'fft'"
    ):
        convolve(*arrays(2, (2, 2), 3), (1, 1), [(1, 1)] * 2, implementation="fft")
