"""Functions that close over traced arrays of any dtype: dense's gradient, in every order of transformations."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from contrastive_jax import pairwise
from tests.mappings import AXIS, MAPPINGS

M, N, D = 6, 8, 3
ANCHORS, CANDIDATES = (pairwise.normalize(jax.random.normal(jax.random.key(i), (n, D))) for i, n in ((0, M), (1, N)))
IDS = np.array([0, 0, 1, 2, 3, 4, 4, 5], np.int32)


def closing_over_an_integer(x):
    return lambda s: jnp.exp(s * jnp.where(x < 5, 2.0, 5.0))


def closing_over_a_bool(x):
    return lambda s: jnp.where(x, jnp.square(s), jnp.exp(s))


def closing_over_a_key(x):
    return lambda s: s * jax.random.uniform(x, (), jnp.float32)


def closing_over_raw_key_data(x):
    return lambda s: s * jax.random.uniform(jax.random.wrap_key_data(x), (), jnp.float32)


def closing_over_a_float(x):
    return lambda s: jax.nn.softplus(x * s)


def closing_over_a_weak_float(x):
    return closing_over_a_float(2 * x.astype(float))


def closing_over_a_table_and_an_index(x):
    table = jnp.arange(8.0)
    return lambda s: jnp.tanh(table[x] * s)


CLOSURES = {
    "integer": (closing_over_an_integer, jnp.int32(3)),
    "unsigned": (closing_over_an_integer, jnp.uint8(7)),
    "bool": (closing_over_a_bool, jnp.bool_(True)),
    "key": (closing_over_a_key, jax.random.key(3)),
    "key data": (closing_over_raw_key_data, jax.random.key_data(jax.random.key(3))),
    "float": (closing_over_a_float, jnp.float32(3)),
    "bfloat16": (lambda x: closing_over_a_float(x.astype(jnp.float32)), jnp.bfloat16(3)),
    "table and index": (closing_over_a_table_and_an_index, jnp.int32(3)),
}


def differentiate(fn):
    """Value and gradients of fn(anchors, candidates, w, x), x being what is closed over, by the first three."""
    return jax.value_and_grad(fn, argnums=(0, 1, 2))


def jit_last(fn):
    return jax.jit(differentiate(fn))


def jit_first(fn):
    return differentiate(jax.jit(fn))


def no_jit(fn):
    return differentiate(fn)


def checkpointed(fn):
    return jax.jit(differentiate(jax.checkpoint(fn)))


def vmapped_last(fn):
    """Over copies of all arguments, of which one is kept."""

    def call(*arguments):
        copies = jax.tree.map(lambda x: jnp.stack([x, x]), arguments)
        return jax.tree.map(lambda x: x[1], jax.jit(jax.vmap(differentiate(fn)))(*copies))

    return call


def vmapped_first(fn):
    def call(a, c, w, x):
        def mean(a, c, w, xs):
            return jax.vmap(lambda x: fn(a, c, w, x))(xs).mean()

        return jax.jit(differentiate(mean))(a, c, w, jnp.stack([x, x]))

    return call


def scanned_last(fn):
    def call(*arguments):
        def body(x, _):
            return x, differentiate(fn)(*arguments[:3], x)

        return jax.tree.map(lambda x: x[1], jax.jit(lambda x: jax.lax.scan(body, x, length=2)[1])(arguments[3]))

    return call


def scanned_first(fn):
    def call(a, c, w, x):
        def mean(a, c, w, x):
            def body(total, x):
                return total + fn(a, c, w, x) / 2, None

            return jax.lax.scan(body, 0.0, jnp.stack([x, x]))[0]

        return jax.jit(differentiate(mean))(a, c, w, x)

    return call


ORDERS = [jit_last, jit_first, no_jit, checkpointed, vmapped_last, vmapped_first, scanned_last, scanned_first]


def summed(make, *, symmetric=False, axis_name=None, **options):
    """A weighted sum of `pairwise.total`: of the function made of x, times a float w that it closes over as well."""

    def fn(a, c, w, x):
        made = make(x)
        anchor_ids = jnp.asarray(IDS[:M]) + (0 if axis_name is None else jax.lax.axis_index(axis_name) * M)
        ids = {"anchor_ids": anchor_ids, "candidate_ids": anchor_ids if symmetric else jnp.asarray(IDS)}
        y = pairwise.total(lambda s: made(w * s), a, a if symmetric else c, axis_name=axis_name, **ids, **options)
        return jnp.vdot(y, jnp.arange(1.0, M + 1))

    return fn


@functools.cache
def by_dense(name, symmetric):
    make, x = CLOSURES[name]
    fn = summed(make, symmetric=symmetric, implementation="dense")
    return jax.jit(lambda *arrays: differentiate(lambda *a: fn(*a, x))(*arrays))(ANCHORS, CANDIDATES, jnp.float32(0.7))


def assert_same(got, want):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5), got, want)


def slow_beside(*kept):
    """What is kept with all others; of the other pairs of a closure and an order a third, in turn, which are slow."""
    for k, name in enumerate(CLOSURES):
        for i, order in enumerate(ORDERS):
            is_kept = name in kept or order in kept
            if not is_kept and (i + k) % 3:
                continue
            marks = () if is_kept else pytest.mark.slow
            yield pytest.param(name, order, marks=marks, id=f"{name}-{order.__name__}")


@pytest.mark.parametrize(("name", "order"), slow_beside("integer", jit_first))
def test_blockwise_equals_dense(name, order):
    make, x = CLOSURES[name]
    fn = summed(make, implementation="blockwise", block_size=3)
    assert_same(order(fn)(ANCHORS, CANDIDATES, jnp.float32(0.7), x), by_dense(name, False))


@pytest.mark.parametrize("order", ORDERS)
def test_anchors_that_are_the_candidates(order):
    make, x = CLOSURES["integer"]
    fn = summed(make, symmetric=True, implementation="blockwise", block_size=4)
    assert_same(order(fn)(ANCHORS, CANDIDATES, jnp.float32(0.7), x), by_dense("integer", True))


@pytest.mark.parametrize(
    ("name", "mapping"),
    [*((name, "shard_map") for name in CLOSURES), *(("integer", mapping) for mapping in MAPPINGS), ("key", "pmap")],
)
def test_ring_equals_dense(name, mapping):
    make, x = CLOSURES[name]

    def value(w, x, implementation, axis_name, a, c):
        made = make(x)
        options = {"axis_name": axis_name, "implementation": implementation}
        return pairwise.total(lambda s: made(w * s), a, c, **options).mean()

    def local(a, c):
        def of_device(w):
            return jax.lax.pmean(value(w, x, "ring", AXIS, a, c), AXIS)

        return jax.lax.pmean(jax.grad(of_device)(jnp.float32(0.7)), AXIS)

    got = jax.jit(lambda a, c: MAPPINGS[mapping](local, 2)(a, c, out=PartitionSpec()))(ANCHORS, CANDIDATES)
    want = jax.grad(lambda w: value(w, x, "dense", None, ANCHORS, CANDIDATES))(jnp.float32(0.7))
    assert_same(got, want)


def test_a_traced_integer_inside_a_ring_and_outside_it():
    """The gradient of a mapped function by what it closes over, x an argument of the outermost jit."""

    def value(mapping, a, c, w, x):
        def local(a, c):
            options = {"axis_name": AXIS, "implementation": "ring"} if mapping else {"implementation": "dense"}
            y = pairwise.total(lambda s: jnp.exp(w * s * jnp.where(x < 5, 2.0, 5.0)), a, c, **options).mean()
            return jax.lax.pmean(y, AXIS) if mapping else y

        return MAPPINGS[mapping](local, 2)(a, c, out=PartitionSpec()) if mapping else local(a, c)

    arguments = (ANCHORS, CANDIDATES, jnp.float32(0.7), jnp.int32(3))
    want = jit_last(functools.partial(value, None))(*arguments)
    for order in (jit_last, jit_first):
        for mapping in ("shard_map", "shard_map_unchecked"):
            assert_same(order(functools.partial(value, mapping))(*arguments), want)


def test_second_derivatives_of_what_is_closed_over(x64):
    def value(w, x, **options):
        table = jnp.linspace(0.5, 2, 4)
        a, c = ANCHORS.astype(jnp.float64), CANDIDATES.astype(jnp.float64)
        return pairwise.total(lambda s: jnp.exp(w * table[x] * s), a, c, **options).sum()

    def second(**options):
        return jax.jit(jax.grad(jax.grad(functools.partial(value, **options))))(jnp.float64(0.7), jnp.int32(2))

    got = second(implementation="blockwise", block_size=3)
    np.testing.assert_allclose(got, second(implementation="dense"), rtol=1e-12)
