"""Rows and columns of one matrix, and the rows of several views: what separate reductions give, for fewer products."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from contrastive_jax import pairwise
from tests import work
from tests.mappings import AXIS, MAPPINGS
from tests.pairwise.test_blockwise import assert_same, unit

every_implementation = pytest.mark.parametrize("implementation", pairwise.IMPLEMENTATIONS)
SCALES = pytest.mark.parametrize("scale", [5.0, 200.0], ids=["no shift", "a shift for each row and column"])


def separately(a, c, *, anchor_ids=None, candidate_ids=None, **options):
    return (
        pairwise.logsumexp(a, c, anchor_ids=anchor_ids, candidate_ids=candidate_ids, **options),
        pairwise.logsumexp(c, a, anchor_ids=candidate_ids, candidate_ids=anchor_ids, **options),
    )


def weighted(reduced, offset=0):
    """A weighted sum of what is finite; of devices, the weights are those of their rows."""
    weigh = [jnp.cos(jnp.arange(len(y)) + offset * len(y)).astype(y.dtype) for y in reduced]
    return sum(jnp.vdot(jnp.where(jnp.isneginf(y), 0, y), w) for y, w in zip(reduced, weigh, strict=True))


def value_and_grads(reduce, *args, **options):
    return jax.jit(
        jax.value_and_grad(lambda *args: weighted(reduce(*args[:-1], scale=args[-1], **options)), (0, 1, 2))
    )(*args)


@SCALES
@pytest.mark.parametrize(("m", "n", "block"), [(9, 9, 4), (10, 7, 3), (3, 10, 64)])
def test_both_ways_equal_two_reductions(m, n, block, scale):
    options = {"anchor_ids": jnp.arange(m) // 2, "candidate_ids": jnp.arange(n) // 3}
    args = unit((m, 5)), unit((n, 5), seed=1), jnp.float32(scale)
    want = value_and_grads(separately, *args, implementation="dense", **options)
    for own in ({"implementation": "dense"}, {"implementation": "blockwise", "block_size": block}):
        assert_same(value_and_grads(pairwise.logsumexp_both_ways, *args, **own, **options), want, 2e-5)


@pytest.mark.parametrize(("dtype", "rtol"), [(jnp.float64, 1e-12), (jnp.bfloat16, 1e-2), (jnp.float16, 1e-2)])
def test_both_ways_in_every_dtype(dtype, rtol, x64):
    args = unit((8, 5), dtype=dtype), unit((7, 5), seed=1, dtype=dtype), 7.0
    want = value_and_grads(separately, *args, implementation="dense")
    got = value_and_grads(pairwise.logsumexp_both_ways, *args, implementation="blockwise", block_size=3)
    assert_same(got, want, rtol)


def test_rows_and_columns_without_a_negative():
    x, ids = unit((4, 3)), jnp.zeros(4, jnp.int32)
    options = {"anchor_ids": ids, "candidate_ids": ids, "implementation": "blockwise", "block_size": 2}
    for scale in (9.0, 200.0):
        values, pullback = jax.vjp(lambda x, scale=scale: pairwise.logsumexp_both_ways(x, x, scale=scale, **options), x)
        assert np.isneginf(values).all()
        assert not pullback((jnp.ones(4), jnp.ones(4)))[0].any()


# Both scales where devices are checked, one of them under each other mapping.
@pytest.mark.parametrize(
    ("mapping", "implementation", "scale"),
    [
        ("shard_map", "ring", 5.0),
        ("shard_map", "ring", 200.0),
        ("shard_map_unchecked", "ring", 200.0),
        ("pmap", "ring", 5.0),
        ("vmap", "ring", 200.0),
        ("shard_map", "blockwise", 5.0),
        ("shard_map", "blockwise", 200.0),
        ("pmap", "blockwise", 200.0),
        ("vmap", "dense", 5.0),
    ],
)
def test_both_ways_over_devices(mapping, implementation, scale):
    """Each device gets its own rows and its own columns, and the whole gradient of replicated parameters."""
    arrays = unit((8, 4)), unit((12, 4), seed=1), jnp.arange(8) // 2, jnp.arange(12) // 3
    parameters = unit((4, 4), seed=2), jnp.float32(scale)

    def value(parameters, a, c, a_ids, c_ids, axis_name=None, **options):
        matrix, scale = parameters
        a, c = pairwise.normalize(a @ matrix), pairwise.normalize(jnp.tanh(c @ matrix))
        options |= {"anchor_ids": a_ids, "candidate_ids": c_ids, "axis_name": axis_name, "scale": scale}
        if axis_name is None:
            return weighted(separately(a, c, **options))
        offset = jax.lax.axis_index(axis_name)
        return jax.lax.psum(weighted(pairwise.logsumexp_both_ways(a, c, **options), offset), axis_name)

    def local(*arrays):
        options = {"axis_name": AXIS, "implementation": implementation}
        options |= {} if implementation == "dense" else {"block_size": 2}
        of_device = jax.grad(lambda p: value(p, *arrays, **options) / jax.lax.axis_size(AXIS))
        return jax.lax.psum(of_device(parameters), AXIS)

    def whole(parameters):
        return value(parameters, *arrays, implementation="dense")

    got = jax.jit(lambda *arrays: MAPPINGS[mapping](local, 2)(*arrays, out=PartitionSpec()))(*arrays)
    assert_same(got, jax.grad(whole)(parameters), 1e-4)


def test_second_derivatives_on_a_ring(x64):
    a, c = unit((6, 3), dtype=jnp.float64), unit((6, 3), seed=1, dtype=jnp.float64)

    def second(value):
        return jax.jit(jax.grad(lambda a: jnp.vdot(jax.grad(lambda a: value(a, c))(a), c)))(a)

    def local(a, c):
        options = {"axis_name": AXIS, "implementation": "ring"}
        return jax.lax.psum(sum(jnp.sum(y**2) for y in pairwise.logsumexp_both_ways(a, c, scale=4.0, **options)), AXIS)

    got = second(lambda a, c: MAPPINGS["shard_map"](local, 2)(a, c, out=PartitionSpec()))
    want = second(lambda a, c: sum(jnp.sum(y**2) for y in separately(a, c, scale=4.0)))
    np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-9)


def test_one_matrix_is_formed_for_both_ways():
    """Blockwise forms a tile twice and multiplies it twice: four products, of which two reductions take eight."""
    m, d = 2048, 4
    x = jax.ShapeDtypeStruct((m, d), jnp.float32)

    def of(reduce):
        options = {"implementation": "blockwise", "scale": 5.0}
        return work.of(jax.grad(lambda a, c: weighted(reduce(a, c, **options)), (0, 1)), x, x)

    products, exponentials = of(pairwise.logsumexp_both_ways)
    twice, twice_exponentials = of(separately)
    # Below a certain temperature there are more: the branch that counts is the dearer one, with maxima and exp twice.
    np.testing.assert_allclose((products, twice), (5 * m * m * d, 10 * m * m * d), rtol=1e-3)
    assert exponentials <= twice_exponentials


@SCALES
@pytest.mark.parametrize(("views", "m", "block"), [(1, 7, 3), (2, 6, 3), (2, 7, 4), (3, 5, 64)])
def test_views_equal_their_rows_in_one_array(views, m, block, scale):
    x, ids = unit((views * m, 4)), jnp.arange(m) // 2

    def joined(x, scale):
        all_ids = jnp.tile(ids, views)
        return [pairwise.logsumexp(x, x, scale=scale, anchor_ids=all_ids, candidate_ids=all_ids)]

    def apart(x, scale):
        options = {"ids": ids, "implementation": "blockwise", "block_size": block}
        return [jnp.concatenate(pairwise.logsumexp_over_views(jnp.split(x, views), scale=scale, **options))]

    got, want = (
        jax.jit(jax.value_and_grad(lambda *args, fn=fn: weighted(fn(*args)), (0, 1)))(x, jnp.float32(scale))
        for fn in (apart, joined)
    )
    assert_same(got, want, 2e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            functools.partial(pairwise.logsumexp_both_ways, jnp.eye(3), jnp.eye(2)),
            r"logsumexp_both_ways: expected anchors \[m, d\].*\(3, 3\) and \(2, 2\)",
        ),
        (
            functools.partial(pairwise.logsumexp_over_views, [jnp.eye(3), jnp.eye(2)], ids=np.arange(3)),
            r"logsumexp_over_views: expected one or more views of the same shape.*\(3, 3\), float32 of \(2, 2\)",
        ),
        (functools.partial(pairwise.logsumexp_over_views, [], ids=np.arange(3)), "got none"),
        (functools.partial(pairwise.logsumexp_over_views, [jnp.eye(3)], ids=np.arange(2)), r"ids.*\(3,\)"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
