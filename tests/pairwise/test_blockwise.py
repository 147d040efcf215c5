"""The blockwise engine against the dense one: values, gradients, devices, memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from contrastive_jax import pairwise
from tests.mappings import AXIS, MAPPINGS


def unit(shape, seed=0, dtype=jnp.float32):
    return pairwise.normalize(jax.random.normal(jax.random.key(seed), shape)).astype(dtype)


def softplus(scale):
    return lambda s: jax.nn.softplus(scale * s + 1)


REDUCTIONS = {
    "logsumexp": lambda a, c, scale, **options: pairwise.logsumexp(a, c, scale=scale, **options),
    "total": lambda a, c, scale, **options: pairwise.total(softplus(scale), a, c, **options),
}
every_reduction = pytest.mark.parametrize("reduce", REDUCTIONS.values(), ids=REDUCTIONS.keys())


def value_and_grads(reduce, a, c, scale, **options):
    """Of a weighted sum, with respect to anchors, candidates and scale; c None: the anchors are the candidates."""
    weights = jax.random.normal(jax.random.key(7), a.shape[:1])

    def weighted(a, c, scale):
        y = reduce(a, a if c is None else c, scale, **options)
        return jnp.sum(jnp.where(jnp.isneginf(y), 0, y) * weights.astype(y.dtype))

    wrt = (0, 2) if c is None else (0, 1, 2)
    return jax.jit(jax.value_and_grad(weighted, argnums=wrt))(a, c, scale)


def assert_same(got, want, rtol):
    for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert x.dtype == y.dtype
        x, y = (np.asarray(z, np.float64) for z in (x, y))
        np.testing.assert_allclose(x, y, rtol=rtol, atol=rtol * max(1, np.abs(y).max()))


@every_reduction
@pytest.mark.parametrize(("m", "n", "block"), [(9, 9, 4), (8, 8, 4), (2, 2, 1), (10, 7, 3), (3, 10, 64)])
@pytest.mark.parametrize("scale", [5.0, 200.0], ids=["one shift", "a shift for each row"])
def test_equals_dense(reduce, m, n, block, scale):
    anchors = unit((m, 5))
    candidates = None if m == n else unit((n, 5), seed=1)
    ids = jnp.arange(m) // 2
    options = {"anchor_ids": ids, "candidate_ids": ids if m == n else jnp.arange(n) // 3}
    want = value_and_grads(reduce, anchors, candidates, scale, implementation="dense", **options)
    got = value_and_grads(reduce, anchors, candidates, scale, implementation="blockwise", block_size=block, **options)
    assert_same(got, want, 2e-5)


@every_reduction
def test_equals_dense_in_float64(reduce, x64):
    anchors, ids = unit((11, 5), dtype=jnp.float64), jnp.arange(11)
    options = {"anchor_ids": ids, "candidate_ids": ids}
    want = value_and_grads(reduce, anchors, None, 7.0, implementation="dense", **options)
    got = value_and_grads(reduce, anchors, None, 7.0, implementation="blockwise", block_size=4, **options)
    assert got[0].dtype == jnp.float64
    assert_same(got, want, 1e-12)


@every_reduction
def test_equals_dense_in_bfloat16(reduce):
    anchors, ids = unit((11, 5), dtype=jnp.bfloat16), jnp.arange(11)
    options = {"anchor_ids": ids, "candidate_ids": ids}
    want = value_and_grads(reduce, anchors, None, 7.0, implementation="dense", **options)
    got = value_and_grads(reduce, anchors, None, 7.0, implementation="blockwise", block_size=4, **options)
    assert_same(got, want, 1e-2)  # the gradients are rounded to bfloat16


@every_reduction
def test_without_ids_every_candidate_is_a_negative_the_anchor_itself_included(reduce):
    x = unit((7, 4))
    want = value_and_grads(reduce, x, None, 3.0, implementation="dense")
    assert_same(value_and_grads(reduce, x, None, 3.0, implementation="blockwise", block_size=3), want, 2e-5)


def test_an_anchor_without_negatives():
    x, ids = unit((4, 3)), jnp.zeros(4, jnp.int32)
    options = {"anchor_ids": ids, "candidate_ids": ids, "implementation": "blockwise", "block_size": 2}
    values, pullback = jax.vjp(lambda x: pairwise.logsumexp(x, x, scale=9.0, **options), x)
    assert np.isneginf(values).all()
    assert not pullback(jnp.ones(4))[0].any()


def test_the_function_never_sees_an_excluded_pair():
    x, ids = unit((5, 4)), jnp.arange(5)

    def energy(x, **options):
        return pairwise.total(lambda s: (2 - 2 * s) ** -0.5, x, x, anchor_ids=ids, candidate_ids=ids, **options).sum()

    got = jax.value_and_grad(energy)(x, implementation="blockwise", block_size=2)
    assert_same(got, jax.value_and_grad(energy)(x, implementation="dense"), 2e-5)


@every_reduction
def test_second_derivatives_are_exact(reduce, x64):
    x, ids = unit((6, 3), dtype=jnp.float64), jnp.arange(6)
    direction = jax.random.normal(jax.random.key(3), x.shape, jnp.float64)

    def second(**options):
        def first(x):
            def value(x):
                return jnp.sum(reduce(x, x, 4.0, anchor_ids=ids, candidate_ids=ids, **options) ** 2)

            return jnp.sum(jax.grad(value)(x) * direction)

        return jax.jit(jax.grad(first))(x)

    np.testing.assert_allclose(
        second(implementation="blockwise", block_size=4), second(implementation="dense"), rtol=1e-9, atol=1e-9
    )


def test_forward_mode_is_refused_and_not_wrong():
    x, ids = unit((6, 3)), jnp.arange(6)
    options = {"anchor_ids": ids, "candidate_ids": ids, "implementation": "blockwise"}
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(lambda x: pairwise.total(jnp.square, x, x, **options), (x,), (x,))


@pytest.mark.parametrize(("name", "mapping"), [*(("logsumexp", x) for x in MAPPINGS), ("total", "shard_map")])
def test_equals_one_device_under_every_mapping(name, mapping):
    reduce = REDUCTIONS[name]
    x, ids = unit((12, 4)), jnp.arange(12) // 2
    weights = jax.random.normal(jax.random.key(4), (4, 4))

    def local(x, ids, weights, axis_name, **options):
        y = pairwise.normalize(x @ weights)
        values = reduce(y, y, 5.0, anchor_ids=ids, candidate_ids=ids, axis_name=axis_name, **options)
        return values.mean() if axis_name is None else jax.lax.pmean(values.mean(), axis_name)

    def per_device(x, ids):
        grads = jax.grad(lambda w: local(x, ids, w, AXIS, implementation="blockwise", block_size=3))(weights)
        return jax.lax.pmean(grads, AXIS)

    got = jax.jit(lambda x, ids: MAPPINGS[mapping](per_device, 4)(x, ids, out=PartitionSpec()))(x, ids)
    want = jax.jit(jax.grad(lambda w: local(x, ids, w, None, implementation="dense")))(weights)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("m", "implementation", "whole"),
    [(1024, None, True), (1025, None, False), (64, "blockwise", False), (1025, "dense", True)],
)
def test_which_implementation_runs(m, implementation, whole):
    """Read from the lowered program: dense has no loop, blockwise nothing else."""
    text = jax.jit(lambda x: pairwise.logsumexp(x, x, implementation=implementation)).lower(jnp.ones((m, 4))).as_text()
    assert ("stablehlo.while" in text) != whole
    assert (f"tensor<{m}x{m}xf32>" in text) == (whole or m == 64)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"implementation": "blockwise", "block_size": 0}, "block_size of at least 1.*got 0"),
        (
            {"implementation": "dense", "block_size": 8},
            "for implementation 'blockwise' or 'ring', got 8 with 'dense'",
        ),
    ],
)
def test_bad_input(options, message):
    for reduce in REDUCTIONS.values():
        with pytest.raises(ValueError, match=message):
            reduce(jnp.eye(3), jnp.eye(3), 1.0, **options)
