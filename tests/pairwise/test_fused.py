"""The GPU kernels, run as ordinary programs by Pallas's interpreter: what tiles of XLA give, at each precision."""

import contextlib
import inspect
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from contrastive_jax import losses, pairwise
from contrastive_jax.pairwise import _fused, _kernels, shared
from tests.mappings import AXIS, MAPPINGS
from tests.pairwise.test_blockwise import unit

# Of the norm of a gradient, or of a sum: what is left of float32 by one, two and three parts of 8 bits.
BOUNDS = {"BF16_BF16_F32": 1e-2, "high": 3e-5, "default": 3e-5, "highest": 2e-6}
FORMS = {
    "rows": lambda a, c, **options: [pairwise.logsumexp(a, c, **options)],
    "symmetric": lambda a, c, *, anchor_ids, candidate_ids, **options: [
        pairwise.logsumexp(a, a, anchor_ids=anchor_ids, candidate_ids=anchor_ids, **options)
    ],
    "both": pairwise.logsumexp_both_ways,
    "views": lambda a, c, *, anchor_ids, candidate_ids, **options: pairwise.logsumexp_over_views(
        [a, 2 * a], ids=anchor_ids, **options
    ),
    "total": lambda a, c, *, scale, **options: [pairwise.total(lambda s: jnp.exp(scale * s), a, c, **options)],
}


def mesh_of_a_gpu(sizes, names):
    """A mesh of a GPU that is not there, which JAX 0.12 lowers kernels for; None before."""
    device = getattr(jax.sharding, "AbstractDevice", None)
    if device is None or "platform" not in inspect.signature(device).parameters:
        return None
    card = device(device_kind="NVIDIA H100 80GB HBM3", num_cores=None, platform="cuda")
    types = (jax.sharding.AxisType.Auto,) * len(names)
    return jax.sharding.AbstractMesh(sizes, names, types, abstract_device=card)


@pytest.fixture
def lowered_for_a_gpu(monkeypatch):
    """A program for a GPU, on a CPU."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    mesh = mesh_of_a_gpu((), ())
    with contextlib.nullcontext() if mesh is None else jax.sharding.use_abstract_mesh(mesh):
        yield


@pytest.fixture
def interpreted(monkeypatch):
    """Kernels on the CPU; small ones, so that there are several tiles."""
    monkeypatch.setattr(_kernels, "interpret", True)
    small = (512, _kernels.Shape(8, 4, 4, 1), _kernels.Shape(4, 8, 4, 1))
    monkeypatch.setattr(_kernels, "LAYOUTS", {parts: (small,) for parts in (1, 2, 3)})


def value_and_grads(form, *args, **options):
    def weighted(a, c, scale):
        sums = FORMS[form](a, c, scale=scale, **options)
        finite = [jnp.where(jnp.isneginf(y), 0, y) for y in sums]
        return sum(jnp.vdot(y, 2 + jnp.cos(jnp.arange(len(y), dtype=y.dtype))) for y in finite)

    return jax.jit(jax.value_and_grad(weighted, (0, 1, 2)))(*args)


def assert_near(got, want, bound):
    for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert np.linalg.norm(x - np.asarray(y, np.float32)) <= bound * np.linalg.norm(y)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("precision", BOUNDS)
def test_kernels_give_the_sums_and_gradients_of_float64(form, precision, interpreted, x64):
    args = unit((13, 20)), unit((10, 20), seed=1), jnp.float32(5.0)
    exact = [x.astype(jnp.float64) for x in args]
    options = {"anchor_ids": jnp.arange(13) // 2, "candidate_ids": jnp.arange(10) // 3}
    want = value_and_grads(form, *exact, implementation="dense", **options)
    got = value_and_grads(form, *args, implementation="pallas", precision=precision, **options)
    assert_near(got, want, BOUNDS[precision])


@pytest.mark.parametrize("form", [form for form in FORMS if form != "total"])
def test_kernels_shift_the_exponents_where_they_would_overflow(form, interpreted, x64):
    args = unit((13, 20)), unit((10, 20), seed=1), jnp.float32(200.0)
    options = {"anchor_ids": jnp.arange(13) // 2, "candidate_ids": jnp.arange(10) // 3}
    want = value_and_grads(form, *[x.astype(jnp.float64) for x in args], implementation="dense", **options)
    got = value_and_grads(form, *args, implementation="pallas", precision="highest", **options)
    assert_near(got, want, 2e-5)  # of logarithms of exp(200 s), of which float32 holds s to 6e-8


# Pallas's interpreter is not made for shard_map's check of what differs between devices; the kernels are, below.
@pytest.mark.parametrize("mapping", [mapping for mapping in MAPPINGS if mapping != "shard_map"])
def test_kernels_on_devices_give_what_one_device_gives(mapping, interpreted):
    u, v = unit((16, 8)), unit((16, 8), seed=1)

    def of_device(u, v):
        return losses.simclr(u, v, temperature=0.5, axis_name=AXIS, implementation="pallas")

    mapped = MAPPINGS[mapping](of_device, 4)
    want = jax.value_and_grad(lambda u, v: losses.simclr(u, v, temperature=0.5).mean(), (0, 1))(u, v)
    got = jax.jit(jax.value_and_grad(lambda u, v: mapped(u, v).mean(), (0, 1)))(u, v)
    assert_near(got, want, 2e-6)


def test_kernels_under_vmap(interpreted):
    u, v = unit((3, 9, 8)), unit((3, 9, 8), seed=1)

    def mean(u, v, t, implementation):
        return losses.info_nce(u, v, temperature=t, implementation=implementation).mean()

    def mapped(implementation):
        grad = jax.value_and_grad(lambda *args: mean(*args, implementation), (0, 1, 2))
        return jax.vmap(grad)(u, v, jnp.array([0.2, 0.5, 0.01]))

    assert_near(mapped("pallas"), mapped("dense"), 2e-5)


@pytest.mark.parametrize("precision", BOUNDS)
@pytest.mark.parametrize("loss", ["info_nce", "simclr", "kcl"])
def test_kernels_lower_to_triton(loss, precision, lowered_for_a_gpu):
    def mean(u, v):
        return getattr(losses, loss)(u, v, implementation="pallas", precision=precision).mean()

    rows = jax.ShapeDtypeStruct((5000, 100), jnp.float32)
    text = jax.jit(jax.value_and_grad(mean, (0, 1))).trace(rows, rows).lower(lowering_platforms=("cuda",)).as_text()
    assert "triton" in text
    entries = [int(m) * int(n) for m, n in re.findall(r"tensor<(\d+)x(\d+)xf32>", text)]
    assert max(entries) < 5000 * 5000  # no matrix of similarities outside the kernels


def test_kernels_lower_under_the_checks_of_shard_map(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")

    def of_device(u, v):
        return losses.simclr(u, v, axis_name=AXIS, implementation="pallas")

    mesh = mesh_of_a_gpu((1,), (AXIS,)) or jax.sharding.Mesh(np.array(jax.devices()[:1]), (AXIS,))
    mapped = jax.shard_map(of_device, mesh=mesh, in_specs=PartitionSpec(AXIS), out_specs=PartitionSpec(AXIS))
    rows = jax.ShapeDtypeStruct((512, 64), jnp.float32)
    grad = jax.jit(jax.value_and_grad(lambda u, v: mapped(u, v).mean(), (0, 1)))
    assert "triton" in grad.trace(rows, rows).lower(lowering_platforms=("cuda",)).as_text()


def test_none_chooses_kernels_where_they_were_measured_to_pay(monkeypatch):
    class Card:
        device_kind = "NVIDIA H100 80GB HBM3"

    def chosen(m, precision, device_count=1, kind=Card.device_kind, d=128):
        monkeypatch.setattr(jax, "device_count", lambda: device_count)
        monkeypatch.setattr(jax, "devices", lambda: [type("Card", (), {"device_kind": kind})])
        monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
        rows = jax.ShapeDtypeStruct((m, d), jnp.float32)
        text = str(jax.make_jaxpr(lambda u, v: losses.info_nce(u, v, precision=precision))(rows, rows))
        monkeypatch.undo()
        return "pallas_call" in text

    assert chosen(2**14, "high") and chosen(2**14, "BF16_BF16_F32", d=512)
    assert not chosen(2**14 - 1, "high")
    assert not chosen(2**14, "highest")
    assert not chosen(2**14, "high", d=129)
    assert not chosen(2**14, "high", device_count=2)
    assert not chosen(2**14, "high", kind="NVIDIA A100-SXM4-40GB")
    assert not chosen(2**14, "TF32_TF32_F32")


def test_gpus_have_larger_tiles_and_dense_matrices(monkeypatch):
    assert (shared.block_size(), shared.choose_implementation(None, 4096, 4096, None)) == (1024, "blockwise")
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert (shared.block_size(), shared.choose_implementation(None, 4096, 4096, None)) == (4096, "dense")
    assert shared.choose_implementation(None, 4097, 4096, None) == "blockwise"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "TF32_TF32_F32"}, "expected precision 'default', 'high', 'highest', BF16_BF16_F32"),
        ({"d": 129}, "expected at most 128 dimensions .* got 129; BF16_BF16_F32 takes 512"),
        ({"d": 513, "precision": "BF16_BF16_F32"}, "expected at most 512 dimensions .* got 513"),
        ({"dtype": jnp.float64}, "expected float32 or less .* got float64"),
        ({"weight": (1, 1)}, r"closes over scalars alone .* over arrays of shape \(1, 1\)"),
        ({"block_size": 8}, "expected a block_size"),
    ],
)
def test_what_the_kernels_refuse(options, message, monkeypatch, x64):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    x = jnp.ones((8, options.pop("d", 16)), options.pop("dtype", jnp.float32))
    weight = jnp.ones(options.pop("weight", ()), jnp.float32)

    def total(x):
        return pairwise.total(lambda s: weight.astype(s.dtype) * s, x, x, implementation="pallas", **options)

    with pytest.raises(ValueError, match=message):
        jax.eval_shape(total, x)


def test_kernels_need_a_gpu():
    with pytest.raises(ValueError, match="expected a GPU for implementation 'pallas', got cpu"):
        pairwise.logsumexp(jnp.eye(3), jnp.eye(3), implementation="pallas")


def test_the_layouts_fit_the_dimensions_they_are_for():
    for layouts in _kernels.LAYOUTS.values():
        assert [most for most, *_ in layouts] == sorted(most for most, *_ in layouts)
    assert _fused._greatest_dimension(jax.lax.Precision.HIGHEST) == 128
