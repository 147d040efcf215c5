"""Every loss in every implementation is the same loss."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from contrastive_jax import losses, pairwise
from contrastive_jax.pairwise import shared
from tests.losses.table import ROWS
from tests.mappings import AXIS, MAPPINGS

M, D = 14, 6
MAIN = [name for name, row in ROWS.items() if not row.variant]


def weighted(row, implementation, axis_name=None):
    def fn(u, v, ids, weights, *arrays):
        arrays = dict(zip(row.arrays(M), arrays, strict=True))
        options = {"ids": ids, "implementation": implementation, "axis_name": axis_name}
        value = jnp.sum(row.fn(u, v, **options, **arrays, **row.kwargs, **row.form) * weights)
        return value if axis_name is None else jax.lax.psum(value, axis_name)

    return fn


def value_and_grads(name, fn):
    u, v = jax.random.normal(jax.random.key(0), (2, M, D))
    ids = jnp.arange(M, dtype=jnp.int32).at[7].set(2)
    weights = jax.random.normal(jax.random.key(1), (M,))
    arrays = [jnp.asarray(x) for x in ROWS[name].arrays(M).values()]
    return jax.jit(jax.value_and_grad(fn, argnums=(0, 1)))(u, v, ids, weights, *arrays)


@functools.cache
def dense(name):
    return value_and_grads(name, weighted(ROWS[name], "dense"))


@pytest.mark.parametrize("implementation", [x for x in pairwise.IMPLEMENTATIONS if x != "dense"])
@pytest.mark.parametrize("name", MAIN)
def test_every_implementation_gives_the_same_values_and_gradients(name, implementation, monkeypatch):
    monkeypatch.setattr(shared, "BLOCK_SIZE", 5)
    fn = weighted(ROWS[name], implementation, AXIS if implementation == "ring" else None)
    if implementation == "ring":
        fn = functools.partial(MAPPINGS["shard_map"](fn, 2), out=PartitionSpec())
    got, want = value_and_grads(name, fn), dense(name)
    np.testing.assert_allclose(got[0], want[0], rtol=1e-5)
    for x, y in zip(got[1], want[1], strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)


def general(form, **kinds):
    return functools.partial(form, phi=jnp.exp, psi=jnp.log1p, **kinds)


def supervised(ids):
    return lambda u, v, **options: losses.sup_con(
        u, v, jnp.arange(len(u)) % 10, ids=ids and jnp.arange(len(u)), **options
    )


@pytest.mark.parametrize(
    ("loss", "megabytes"),
    [
        (losses.simclr, 75),
        (losses.info_nce, 62),
        (losses.dhel, 62),
        (losses.siglip, 75),
        (supervised(ids=None), 75),
        (supervised(ids=True), 75),
        (general(losses.info_nce_based), 80),
        (general(losses.info_nce_based, within_view=True), 80),
        (general(losses.independently_additive, within_view=True), 75),
    ],
)
def test_memory_is_linear(loss, megabytes):
    """The temporaries of value and gradient; one array [m, d] is 17 MB here, and a matrix of similarities 4.3 GB."""

    def temporaries(m):
        shape = jax.ShapeDtypeStruct((m, 128), jnp.float32)
        value_and_grad = jax.value_and_grad(lambda u, v: loss(u, v).mean(), argnums=(0, 1))
        return jax.jit(value_and_grad).lower(shape, shape).compile().memory_analysis().temp_size_in_bytes

    assert temporaries(32_768) < megabytes * 1e6
    assert temporaries(65_536) < 2.05 * temporaries(32_768)


@pytest.mark.parametrize("d", [17, 32])
def test_sup_con_by_columns_is_the_dense_one(d):
    """Its sums over positives, 16 columns at a time or as many as divide d."""
    (u, v), labels = jax.random.normal(jax.random.key(0), (2, M, d)), jnp.arange(M) % 3

    def value_and_grads_of(implementation):
        fn = functools.partial(losses.sup_con, labels=labels, ids=jnp.arange(M) // 2, implementation=implementation)
        return jax.value_and_grad(lambda u, v: jnp.vdot(fn(u, v), jnp.arange(M, dtype=jnp.float32)), (0, 1))(u, v)

    for x, y in zip(*map(jax.tree.leaves, map(value_and_grads_of, ("blockwise", "dense"))), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)
