"""Arrays sharded over explicit axes, without an axis name: the value and gradient of the whole batch."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from contrastive_jax import losses, metrics, pairwise, theory
from tests.losses.table import ROWS
from tests.mappings import AXIS

M, D, DEVICES = 16, 6, 4
U, V = jax.random.normal(jax.random.key(0), (2, M, D))
IDS = jnp.arange(M, dtype=jnp.int32).at[7].set(2)


use_mesh = jax.set_mesh if hasattr(jax, "set_mesh") else jax.sharding.use_mesh


def explicit_mesh():
    return jax.make_mesh((DEVICES,), (AXIS,), axis_types=(AxisType.Explicit,), devices=jax.devices()[:DEVICES])


def sharded(*arrays, axis=0):
    spec = PartitionSpec(*[None] * axis, AXIS)
    return [jax.device_put(x, NamedSharding(explicit_mesh(), spec)) for x in arrays]


def value_and_grads(fn):
    """Of fn's values and of a weighted mean of them, with respect to the first two arrays and the last."""

    def weighted(u, v, *rest):
        values = fn(u, v, *rest)
        return jnp.mean(values * jnp.square(values)), values

    return jax.jit(lambda *arrays: jax.value_and_grad(weighted, argnums=(0, 1), has_aux=True)(*arrays))


def check(fn, *arrays):
    (value, values), grads = value_and_grads(fn)(*sharded(*arrays))
    (want, wanted), want_grads = value_and_grads(fn)(*arrays)
    np.testing.assert_allclose(value, want, rtol=1e-5)
    np.testing.assert_allclose(values, wanted, rtol=1e-5, atol=1e-6)
    for got, expected in zip(grads, want_grads, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
        assert got.sharding.spec[0] == AXIS
    assert values.sharding.spec[0] == AXIS


# Forms that reduce as the row of another does: in one implementation. Of the kernels of `kcl` one will do.
FORMS = ("dcl_weighted", "dhel_sum", "dhel_one_sided")
SHOWN = {name: row for name, row in ROWS.items() if not (row.variant and name.startswith("kcl_") and name != "kcl_own")}


@pytest.mark.parametrize(
    ("name", "implementation"),
    [pytest.param(name, "dense", marks=pytest.mark.slow if row.variant else ()) for name, row in SHOWN.items()]
    + [
        pytest.param(name, "blockwise", marks=pytest.mark.slow)
        for name, row in SHOWN.items()
        if not row.variant and name not in FORMS
    ],
)
def test_every_loss(name, implementation):
    row = ROWS[name]

    def fn(u, v, ids, *arrays):
        arrays = dict(zip(row.arrays(M), arrays, strict=True))
        return row.fn(u, v, ids=ids, implementation=implementation, **arrays, **row.kwargs, **row.form)

    check(fn, U, V, IDS, *(jnp.asarray(x) for x in row.arrays(M).values()))


@pytest.mark.parametrize("name", ["simclr", "kcl_gaussian"])
def test_under_a_mesh_that_is_set(name):
    row = ROWS[name]
    with use_mesh(explicit_mesh()):
        check(lambda u, v: row.fn(u, v, **row.kwargs, **row.form), U, V)


def test_eagerly():
    got = losses.simclr(*sharded(U, V))
    np.testing.assert_allclose(got, losses.simclr(U, V), rtol=1e-5)
    assert got.sharding.spec == PartitionSpec(AXIS)
    found, right = (metrics.similarity_distribution(*x) for x in (sharded(U, V), (U, V)))
    np.testing.assert_array_equal(found.cross_view.count, right.cross_view.count)
    np.testing.assert_allclose(found.cross_view.mean, right.cross_view.mean, atol=1e-6)


def test_views_in_one_array():
    (views,) = sharded(jnp.stack([U, V, U + V]), axis=1)
    for loss in (losses.multi_view_info_nce, losses.multi_view_dhel):
        got = jax.jit(loss)(views)
        np.testing.assert_allclose(got, loss(jnp.stack([U, V, U + V])), rtol=1e-5)
        assert got.sharding.spec == PartitionSpec(AXIS)


@pytest.mark.parametrize("set_mesh", [False, True], ids=["no mesh set", "mesh set"])
@pytest.mark.parametrize("implementation", ["dense", "blockwise"])
@pytest.mark.parametrize("closed_over", [jnp.float32(0.7), jnp.linspace(0.5, 0.8, M)], ids=["scalar", "sharded"])
def test_a_function_that_closes_over_arrays_of_the_mesh(closed_over, implementation, set_mesh):
    def value(w, step, u, v):
        w = (w if w.ndim == 0 else jnp.sum(w)) * jnp.where(step < 5, 1, 0.5)
        functions = {"phi": lambda x: jnp.exp(w * x), "psi": lambda x: jnp.log1p(jnp.square(w * x))}
        return losses.independently_additive(u, v, **functions, implementation=implementation).mean()

    gradient = jax.jit(jax.grad(value))
    want = gradient(closed_over, jnp.int32(7), U, V)
    with use_mesh(explicit_mesh()) if set_mesh else contextlib.nullcontext():
        (w,) = sharded(closed_over) if closed_over.ndim else (closed_over,)
        np.testing.assert_allclose(gradient(w, jnp.int32(7), *sharded(U, V)), want, rtol=1e-4)


def test_the_new_averages_of_sogclr():
    log_average = jnp.asarray(ROWS["sogclr"].arrays(M)["log_average"], jnp.float32)
    for got, want in zip(
        jax.jit(losses.sogclr)(*sharded(U, V, log_average)), losses.sogclr(U, V, log_average), strict=True
    ):
        np.testing.assert_allclose(got, want, rtol=1e-5)
        assert got.sharding.spec == PartitionSpec(AXIS)


@pytest.mark.parametrize("implementation", ["dense", "blockwise"])
def test_the_distribution(implementation):
    def distribution(u, v, ids):
        return metrics.similarity_distribution(u, v, ids=ids, implementation=implementation)

    got, want = (jax.jit(distribution)(*x) for x in (sharded(U, V, IDS), (U, V, IDS)))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), got, want)
    assert all(x.sharding.is_fully_replicated for x in jax.tree.leaves(got))


@pytest.mark.parametrize(
    "fn",
    [
        pairwise.similarities,
        pairwise.logsumexp,
        lambda u, v: pairwise.total(jnp.exp, u, v),
        lambda u, v: pairwise.logsumexp(u, v, implementation="blockwise", block_size=5),
        lambda u, v: theory.asymptotic_info_nce(u, v, temperature=0.5),
    ],
    ids=["similarities", "logsumexp", "total", "logsumexp blockwise", "asymptotic_info_nce"],
)
def test_the_engine_and_the_theory(fn):
    np.testing.assert_allclose(jax.jit(fn)(*sharded(U, V)), fn(U, V), rtol=1e-4, atol=1e-5)


def test_negative_gradient():
    (s,) = sharded(jax.random.uniform(jax.random.key(1), (8, 8)))
    want = theory.info_nce_negative_gradient(np.asarray(s))
    np.testing.assert_allclose(jax.jit(theory.info_nce_negative_gradient)(s), want, rtol=1e-5)


def test_over_one_of_two_axes():
    mesh = jax.make_mesh(
        (2, 2), ("data", "model"), axis_types=(AxisType.Explicit, AxisType.Auto), devices=jax.devices()[:4]
    )
    u, v = (jax.device_put(x, NamedSharding(mesh, PartitionSpec("data"))) for x in (U, V))
    got = jax.jit(losses.dhel)(u, v)
    np.testing.assert_allclose(got, losses.dhel(U, V), rtol=1e-5)
    assert got.sharding.spec[0] == "data"


def test_under_a_shard_map_over_the_other_axis():
    kinds = (AxisType.Explicit, AxisType.Explicit)
    mesh = jax.make_mesh((2, 2), ("data", "model"), axis_types=kinds, devices=jax.devices()[:4])
    u, v = (jax.device_put(x, NamedSharding(mesh, PartitionSpec("data"))) for x in (U, V))
    local = jax.shard_map(
        lambda u, v: losses.simclr(u, v, axis_name="data"),
        mesh=mesh,
        in_specs=PartitionSpec("data"),
        out_specs=PartitionSpec("data"),
        axis_names={"data"},
    )
    np.testing.assert_allclose(jax.jit(local)(u, v), losses.simclr(U, V), rtol=1e-5)
