"""Sums over several pairs of views at once: what `total` gives for each, in one gradient for each view."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from contrastive_jax import pairwise
from contrastive_jax.pairwise import _kernels
from tests import work
from tests.mappings import AXIS, MAPPINGS
from tests.pairwise.test_blockwise import assert_same, unit

KINDS = {
    "one way": [(0, 1)],
    "both ways": [(0, 1), (1, 0)],
    "within": [(0, 0), (1, 1)],
    "a repeated one": [(1, 0), (0, 0), (1, 0)],
    "all": [(1, 1), (1, 0), (0, 1), (0, 0)],
}
every_kind = pytest.mark.parametrize("pairs", KINDS.values(), ids=KINDS)


def by_hand(views, slope, offset, *, pairs, ids):
    """The formula, on whole matrices."""
    mask = ids[:, None] != ids[None, :]
    exponents = [slope * (views[a] @ views[b].T + offset[:, None]) for a, b in pairs]
    return [jnp.sum(jnp.where(mask, jnp.exp(jnp.where(mask, x, 0)), 0), axis=1) for x in exponents]


def together(views, slope, offset, **options):
    return pairwise.totals(lambda s: jnp.exp(slope * s), views, offset=offset, **options)


def weighted(sums, device=0):
    """A sum with another weight for each value; of devices, the weights are those of their rows."""
    return sum(
        jnp.vdot(y, jnp.cos(k + jnp.arange(len(y)) + device * len(y)).astype(y.dtype)) for k, y in enumerate(sums)
    )


def value_and_grads(fn, *args, **options):
    return jax.jit(jax.value_and_grad(lambda *args: weighted(fn(*args, **options)), tuple(range(len(args)))))(*args)


def arguments(m, dtype=jnp.float32):
    return (
        [unit((m, 5), dtype=dtype), unit((m, 5), seed=1, dtype=dtype)],
        jnp.asarray(2.0, dtype),
        unit((1, m), seed=2, dtype=dtype)[0],
    )


@every_kind
@pytest.mark.parametrize(("m", "block"), [(6, 3), (7, 3), (5, 64)])
def test_equal_the_formula(pairs, m, block):
    args, options = arguments(m), {"pairs": pairs, "ids": jnp.arange(m) // 2}
    want = value_and_grads(by_hand, *args, **options)
    for own in ({"implementation": "dense"}, {"implementation": "blockwise", "block_size": block}):
        assert_same(value_and_grads(together, *args, **own, **options), want, 2e-5)


@every_kind
def test_without_an_offset_equal_one_of_zeros(pairs):
    (views, slope, _), options = arguments(7), {"pairs": pairs, "ids": jnp.arange(7) // 2}
    want = value_and_grads(functools.partial(by_hand, offset=jnp.zeros(7)), views, slope, **options)
    got = value_and_grads(
        functools.partial(together, offset=None, implementation="blockwise", block_size=3), views, slope, **options
    )
    assert_same(got, want, 2e-5)


@pytest.mark.parametrize(
    ("mapping", "implementation"),
    [
        *((mapping, "ring") for mapping in MAPPINGS),
        ("shard_map", "blockwise"),
        ("pmap", "blockwise"),
        ("vmap", "dense"),
    ],
)
def test_over_devices(mapping, implementation):
    """The whole gradient of replicated parameters, of which the offsets are made as well."""
    pairs, (arrays, slope, _) = KINDS["all"], arguments(8)

    def value(parameters, u, v, ids, fn, device=0, **options):
        matrix, slope = parameters
        views = [pairwise.normalize(u @ matrix), pairwise.normalize(jnp.tanh(v @ matrix))]
        return weighted(fn(views, slope, -pairwise.of_pairs(*views), pairs=pairs, ids=ids, **options), device)

    def local(*arrays):
        options = {"axis_name": AXIS, "implementation": implementation}
        options |= {} if implementation == "dense" else {"block_size": 3}

        def of_all(parameters):
            device = jax.lax.axis_index(AXIS)
            return jax.lax.psum(value(parameters, *arrays, fn=together, device=device, **options), AXIS)

        gradient = jax.grad(lambda p: of_all(p) / jax.lax.axis_size(AXIS))
        return jax.lax.psum(gradient(parameters), AXIS)

    parameters, arrays = (unit((5, 5), seed=3), slope), (*arrays, jnp.arange(8) // 2)
    got = jax.jit(lambda *arrays: MAPPINGS[mapping](local, 2)(*arrays, out=PartitionSpec()))(*arrays)
    assert_same(got, jax.grad(lambda p: value(p, *arrays, fn=by_hand))(parameters), 1e-4)


def test_under_vmap_and_with_a_second_derivative(x64):
    args, options = arguments(6, jnp.float64), {"pairs": KINDS["all"], "ids": jnp.arange(6) // 2}
    own = {"implementation": "blockwise", "block_size": 3}

    def second(fn, slope, **options):
        views, _, offset = args
        first = jax.grad(lambda views, offset: weighted(fn(views, slope, offset, **options)), (0, 1))
        return jax.grad(lambda *args: sum(jnp.sum(x**2) for x in jax.tree.leaves(first(*args))), (0, 1))(views, offset)

    slopes = jnp.array([1.0, 2.0])
    got = jax.jit(jax.vmap(lambda slope: second(together, slope, **own, **options)))(slopes)
    assert_same(got, jax.vmap(lambda slope: second(by_hand, slope, **options))(slopes), 1e-9)


def test_in_kernels(monkeypatch):
    monkeypatch.setattr(_kernels, "interpret", True)
    (views, _, offset), options = arguments(6), {"pairs": KINDS["all"], "ids": jnp.arange(6) // 2}

    def of(fn, **own):
        return value_and_grads(lambda views, offset: fn(views, 2.0, offset, **own, **options), views, offset)

    for precision, bound in (("highest", 1e-5), ("high", 1e-3)):
        assert_same(of(together, implementation="pallas", precision=precision), of(by_hand), bound)


def test_one_matrix_is_formed_for_both_ways():
    m, d = 2048, 4
    x = jax.ShapeDtypeStruct((m, d), jnp.float32)

    def products(pairs):
        def loss(u, v):
            offset = -pairwise.of_pairs(u, v)
            own = {"implementation": "blockwise", "ids": jnp.arange(m), "pairs": pairs}
            return weighted(together([u, v], 2.0, offset, **own))

        return work.of(jax.grad(loss, (0, 1)), x, x)[0]

    np.testing.assert_allclose(products([(0, 1), (1, 0)]), products([(0, 1)]), rtol=1e-2)


@pytest.mark.parametrize(
    ("views", "options", "message"),
    [
        ([jnp.eye(3), jnp.eye(2)], {"ids": np.arange(3)}, "totals: expected one or more views of the same shape"),
        ([jnp.eye(3)], {"ids": np.arange(2)}, r"ids.*\(3,\)"),
        (
            [jnp.eye(3)],
            {"ids": np.arange(3), "offset": jnp.zeros(2)},
            r"expected an offset of shape \(3,\), got \(2,\)",
        ),
        ([jnp.eye(3)], {"ids": np.arange(3), "implementation": "fast"}, "totals: expected implementation 'dense'"),
    ],
)
def test_bad_input(views, options, message):
    with pytest.raises(ValueError, match=message):
        pairwise.totals(jnp.exp, views, [(0, 0)], **options)
