"""The ring: what every device gets is what one device alone computes from all rows, and nothing is gathered."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from contrastive_jax import pairwise
from tests.mappings import AXIS, MAPPINGS
from tests.pairwise.test_blockwise import REDUCTIONS, unit

M, D = 12, 4


def of_parameters(name, axis_name, **options):
    """A scalar, the same on all devices, of embeddings computed from replicated parameters and a replicated scale."""

    def fn(parameters, anchors, candidates, ids, candidate_ids, weights):
        matrix, scale = parameters
        anchors, candidates = anchors @ matrix, jnp.tanh(candidates @ matrix)
        options.update(anchor_ids=ids, candidate_ids=candidate_ids, axis_name=axis_name)
        y = REDUCTIONS[name](anchors, candidates, scale, **options)
        value = jnp.mean(jnp.where(jnp.isneginf(y), 0, y) * weights)
        return value if axis_name is None else jax.lax.pmean(value, axis_name)

    return fn


def gradients(name, mapping=None, devices=4, scale=5.0, n=M, **options):
    """With respect to the parameters and the scale; without a mapping by dense on one device."""
    arrays = (
        unit((M, D)),
        unit((n, D), seed=1),
        jnp.arange(M) // 2,
        jnp.arange(n) // 3,
        jax.random.normal(jax.random.key(7), (M,)),
    )
    parameters = jax.random.normal(jax.random.key(2), (D, D)), jnp.float32(scale)
    if mapping is None:
        fn = of_parameters(name, None, implementation="dense")
        return jax.jit(jax.grad(fn))(parameters, *arrays)

    def per_device(*local):
        grads = jax.grad(of_parameters(name, AXIS, implementation="ring", **options))(parameters, *local)
        return jax.lax.pmean(grads, AXIS)

    return jax.jit(lambda *a: MAPPINGS[mapping](per_device, devices)(*a, out=PartitionSpec()))(*arrays)


def assert_same(got, want):
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5 * float(jnp.abs(y).max())), got, want
    )


@pytest.mark.parametrize(("name", "mapping"), [*(("logsumexp", x) for x in MAPPINGS), ("total", "shard_map")])
def test_equals_one_device_under_every_mapping(name, mapping):
    assert_same(gradients(name, mapping, block_size=2), gradients(name))


@pytest.mark.parametrize(
    "case",
    [{"devices": 1}, {"devices": 2, "n": 22, "block_size": 4}, {"devices": 6}, {"scale": 200.0, "block_size": 2}],
    ids=["one device", "more candidates, blocks that do not divide", "six devices", "a shift for each row"],
)
def test_equals_one_device(case):
    one_device = {name: value for name, value in case.items() if name in ("scale", "n")}
    assert_same(gradients("logsumexp", "shard_map", **case), gradients("logsumexp", **one_device))


def test_over_two_axes():
    mesh = jax.make_mesh((2, 2), ("replica", "data"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    both = ("replica", "data")
    x, ids = unit((M, D)), jnp.arange(M)
    options = {"anchor_ids": ids, "candidate_ids": ids}

    def local(x, ids):
        return pairwise.total(jnp.exp, x, x, anchor_ids=ids, candidate_ids=ids, axis_name=both, implementation="ring")

    ring = jax.shard_map(local, mesh=mesh, in_specs=PartitionSpec(both), out_specs=PartitionSpec(both))
    np.testing.assert_allclose(jax.jit(ring)(x, ids), pairwise.total(jnp.exp, x, x, **options), rtol=1e-5)


def test_second_derivatives_are_exact(x64):
    x, ids = unit((6, 3), dtype=jnp.float64), jnp.arange(6)
    direction = jax.random.normal(jax.random.key(3), x.shape, jnp.float64)

    def second(value):
        return jax.jit(jax.grad(lambda x: jnp.sum(jax.grad(value)(x) * direction)))(x)

    def alone(x):
        return jnp.sum(pairwise.logsumexp(x, x, scale=4.0, anchor_ids=ids, candidate_ids=ids) ** 2)

    def local(x, ids):
        options = {"axis_name": AXIS, "implementation": "ring"}
        y = pairwise.logsumexp(x, x, scale=4.0, anchor_ids=ids, candidate_ids=ids, **options)
        return jax.lax.psum(jnp.sum(y**2), AXIS)

    mapped = MAPPINGS["shard_map"](local, 2)
    got = second(lambda x: mapped(x, ids, out=PartitionSpec()))
    np.testing.assert_allclose(got, second(alone), rtol=1e-9, atol=1e-9)


def lowered(m, implementation, devices=8, d=128):
    """The gradient of the mean log-sum-exp of m rows over all devices."""

    def local(x, ids):
        options = {"axis_name": AXIS, "implementation": implementation}
        y = pairwise.logsumexp(x, x, scale=5.0, anchor_ids=ids, candidate_ids=ids, **options)
        return jax.lax.pmean(y.mean(), AXIS)

    mapped = MAPPINGS["shard_map"](local, devices)
    loss = jax.grad(lambda x, ids: mapped(x, ids, out=PartitionSpec()))
    return jax.jit(loss).lower(jnp.zeros((m, d)), jnp.arange(m))


def test_memory_is_linear_in_a_device_s_own_rows():
    at = {m: lowered(m, "ring").compile().memory_analysis().temp_size_in_bytes for m in (16_384, 65_536)}
    assert at[65_536] < 4.1 * at[16_384]
    assert at[65_536] < 60e6  # one device's [8192, 128] is 4 MB; all rows, gathered, and their gradient are 67 MB


@pytest.mark.parametrize(
    ("m", "implementation", "found"),
    [(64, "ring", "ring"), (8192, None, "ring"), (4096, None, "blockwise"), (1024, None, "dense")],
)
def test_which_implementation_runs(m, implementation, found):
    """Read from the lowered program: the ring permutes and gathers nothing, the others gather."""
    text = lowered(m, implementation, d=4).as_text()
    assert ("stablehlo.collective_permute" in text) == (found == "ring")
    assert ("stablehlo.all_gather" in text) == (found != "ring")
    assert ("stablehlo.while" in text) == (found != "dense")


def test_a_ring_wants_an_axis():
    with pytest.raises(ValueError, match="logsumexp: expected an axis_name for implementation 'ring', got None"):
        pairwise.logsumexp(jnp.eye(3), jnp.eye(3), implementation="ring")
