"""Under vmap, copies cost what they compute, and each is right, in every order of transformations."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from contrastive_jax import losses, sequential
from tests import work
from tests.mappings import AXIS, MAPPINGS

SETS, M, D = 3, 6, 4
LOSSES = {
    "rows alone": losses.siglip,
    "both ways": losses.info_nce,
    "one view": losses.dhel,
    "views": losses.simclr,
}
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())


def sets(k=SETS, m=M):
    return jax.random.normal(jax.random.key(0), (2, k, m, D))


def value_and_grads(loss, **options):
    return jax.value_and_grad(lambda u, v: loss(u, v, **options).mean(), argnums=(0, 1))


@pytest.mark.parametrize("implementation", ["dense", "blockwise"])
@pytest.mark.parametrize(("k", "m"), [(4, 1024), (2, 2048), (4, 512), (64, 8)])
@every_loss
def test_sets_cost_what_they_compare(loss, k, m, implementation):
    fn = value_and_grads(loss, implementation=implementation)
    u, v = (jax.ShapeDtypeStruct((k, m, D), jnp.float32) for _ in "uv")
    one = work.of(fn, *(jax.ShapeDtypeStruct((m, D), jnp.float32) for _ in "uv"))
    assert work.of(jax.vmap(fn), u, v) <= tuple(1.01 * k * x for x in one)


def test_temperatures_cost_what_they_compute():
    """On a ring as well, where all copies have to take the same branch."""
    u, v = sets(m=8)[:, 0]

    def sweep(implementation, axis_name, temperatures):
        def local(u, v):
            def of(t):
                value = losses.simclr(u, v, temperature=t, implementation=implementation, axis_name=axis_name).mean()
                return value if axis_name is None else jax.lax.pmean(value, AXIS)

            return jax.vmap(jax.grad(of))(temperatures)

        return local if axis_name is None else lambda u, v: MAPPINGS["shard_map"](local, 2)(u, v, out=PartitionSpec())

    for case in (("blockwise", None), ("ring", AXIS)):
        many = work.of(sweep(*case, jnp.array([0.1, 0.2, 0.5])), u, v)
        assert many <= tuple(3.01 * x for x in work.of(sweep(*case, jnp.array([0.2])), u, v))


def sequentially(fn, *args):
    return jax.tree.map(lambda *x: jnp.stack(x), *(fn(*arguments) for arguments in zip(*args, strict=True)))


def assert_same(got, want, rtol=1e-4):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=1e-5), got, want)


ORDERS = {
    "vmap of grad": lambda fn: jax.jit(jax.vmap(jax.value_and_grad(fn, argnums=(0, 1, 2)))),
    "grad of vmap": lambda fn: jax.jit(_grad_of_vmap(fn)),
    "checkpoint": lambda fn: jax.jit(_grad_of_vmap(jax.checkpoint(fn))),
    "scan": lambda fn: jax.jit(_in_scan(jax.vmap(jax.value_and_grad(fn, argnums=(0, 1, 2))))),
}


def _grad_of_vmap(fn):
    def summed(*args):
        values = jax.vmap(fn)(*args)
        return values.sum(), values

    def call(*args):
        (_, values), grads = jax.value_and_grad(summed, argnums=(0, 1, 2), has_aux=True)(*args)
        return values, grads

    return call


def _in_scan(fn):
    def call(*args):
        last = jax.lax.scan(lambda carry, _: (carry, fn(*args)), 0, length=2)[1]
        return jax.tree.map(lambda x: x[1], last)

    return call


@pytest.mark.parametrize(
    ("loss", "order", "entries"),
    [
        *((losses.info_nce, order, 1) for order in ORDERS),
        (losses.info_nce, "grad of vmap", 50),
        (losses.info_nce, "vmap of grad", 2**20),
        *((loss, "vmap of grad", 1) for loss in LOSSES.values() if loss is not losses.info_nce),
    ],
)
def test_each_copy_is_right(loss, order, entries, monkeypatch):
    """Of temperatures on both sides of the one below which rows need shifts of their own; in groups of 1, 2 and all."""
    monkeypatch.setattr(sequential, "ENTRIES", entries)

    def fn(u, v, t):
        name = "scale" if loss is losses.siglip else "temperature"
        t = 1 / t if name == "scale" else t
        return loss(u, v, **{name: t}, implementation="blockwise").mean()

    u, v = sets()
    args = (u, v, jnp.array([0.2, 0.004, 1.0]))
    with monkeypatch.context() as small:
        small.setattr("contrastive_jax.pairwise.shared.BLOCK_SIZE", 5)
        got = ORDERS[order](fn)(*args)
    assert_same(got, sequentially(jax.jit(jax.value_and_grad(fn, argnums=(0, 1, 2))), *args))


@pytest.mark.parametrize("mapping", ["shard_map", "vmap"])
def test_inside_a_mapped_program(mapping, monkeypatch):
    monkeypatch.setattr(sequential, "ENTRIES", 1)
    u, v = sets(m=8)

    def local(u, v, implementation="blockwise", axis_name=AXIS):
        u, v = (jnp.swapaxes(x, 0, 1) for x in (u, v))
        loss = functools.partial(losses.info_nce, implementation=implementation, axis_name=axis_name)
        values, pull = jax.vjp(lambda u, v: jax.vmap(loss)(u, v).T, u, v)
        return values, *(jnp.swapaxes(x, 0, 1) for x in pull(values))

    by_instance = [jnp.swapaxes(x, 0, 1) for x in (u, v)]
    got = jax.jit(MAPPINGS[mapping](local, 2))(*by_instance)
    assert_same(got, local(*by_instance, "dense", None))


def test_second_derivatives(x64, monkeypatch):
    monkeypatch.setattr(sequential, "ENTRIES", 1)
    u, v = sets(2).astype(jnp.float64)

    def derivatives(implementation):
        def gradient(u, v):
            return jax.grad(lambda u: jnp.sum(losses.info_nce(u, v, implementation=implementation) ** 2))(u)

        def second(u, v):
            return jax.jvp(lambda u: gradient(u, v), (u,), (v,))[1], jax.grad(lambda u: jnp.vdot(gradient(u, v), v))(u)

        return jax.jit(jax.vmap(second))(u, v)

    assert_same(derivatives("blockwise"), derivatives("dense"), 1e-8)


def test_groups(monkeypatch):
    """Every axis of nested vmaps is mapped in groups, whatever is mapped of the arguments."""
    monkeypatch.setattr(sequential, "ENTRIES", 8)

    def fn(x, tree):
        return {"sum": jnp.sin(x).sum() * tree["y"]}

    x, y = jnp.arange(70.0).reshape(5, 7, 2), jnp.arange(7.0)
    mapped = jax.vmap(jax.vmap(sequential.in_groups(fn, 3)), in_axes=(0, None))
    assert_same(mapped(x, {"y": y}), {"sum": jnp.sin(x).sum(-1) * y[None]})
    assert str(jax.make_jaxpr(mapped)(x, {"y": y})).count(" scan[") >= 2
    one_group = jax.vmap(sequential.in_groups(fn, 1), in_axes=(0, None))
    assert_same(one_group(x[0], {"y": 2.0}), {"sum": jnp.sin(x[0]).sum(-1) * 2})
    assert " scan[" not in str(jax.make_jaxpr(one_group)(x[0], {"y": 2.0}))
