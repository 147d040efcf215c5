"""Where plain code turns to NaN, inf, or a wrong number: the traps of the papers' and other public code."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import ClosedJaxpr, Jaxpr

from contrastive_jax import losses, pairwise
from tests.losses.table import ROWS
from tests.losses.test_values import batch, every_loss, loss, oracle

M = 8
PAIRS = batch(M, M)
EDGES = {  # each [2, M, M]: the two views
    "random": PAIRS,
    "aligned": PAIRS[jnp.array([0, 0])],
    "all_equal": jnp.ones((2, M, M)),
    "antipodes": PAIRS[jnp.array([0, 0])] * jnp.array([1.0, -1.0])[:, None, None],
    "duplicates": jnp.repeat(PAIRS[:, : M // 2], 2, axis=1),
    "zero_rows": PAIRS.at[:, :2].set(0),
    "all_zero": jnp.zeros((2, M, M)),
    "orthogonal": jnp.stack([jnp.eye(M)] * 2),
}


def forms():
    """Every row in float32, and in the other dtypes all but variants, which take the same way from them to float32."""
    for m, dtype in ((2, jnp.float32), (M, jnp.float32), (M, jnp.bfloat16), (M, jnp.float16)):
        for name, row in ROWS.items():
            if dtype == jnp.float32 or not row.variant:
                yield pytest.param(row, m, dtype, id=f"{name}-{m}-{jnp.dtype(dtype).name}")


@pytest.mark.parametrize(("row", "m", "dtype"), forms())
def test_finite_and_right_at_the_edges(row, m, dtype):
    """Traps 1 and 2: exp before log overflows, and a maximum that includes the anchor itself leaves log 0."""
    batches = jnp.stack([x[:, :m] for x in EDGES.values()]).astype(dtype)
    options = {"temperature": 0.005} if "temperature" in row.kwargs else {}

    @jax.jit
    @jax.vmap
    def value_and_grad(batch):
        values, pullback = jax.vjp(lambda batch: loss(row)(*batch, **options), batch)
        return values, *pullback(jnp.ones_like(values))

    for name, pair, values, grad in zip(EDGES, batches, *value_and_grad(batches), strict=True):
        want = oracle(row, *pair, **options)
        np.testing.assert_allclose(values, want, rtol=1e-5, atol=2e-4, err_msg=name)
        assert grad.dtype == dtype
        assert np.isfinite(np.asarray(grad, np.float32)).all(), name


@every_loss
def test_an_anchor_without_negatives_is_finite(row):
    """Trap 5: a label that leaves an anchor alone must not make the batch NaN."""
    u, v = batch(4, 3)
    ids = jnp.zeros(4, jnp.int32)

    @jax.jit
    def values_and_grads(u, v):
        values, pullback = jax.vjp(lambda u, v: loss(row)(u, v, ids=ids), u, v)
        return values, *pullback(jnp.ones(4))

    values, *grads = values_and_grads(u, v)
    assert all(np.isfinite(grad).all() for grad in grads)
    np.testing.assert_allclose(values, oracle(row, u, v, np.zeros(4)), rtol=1e-5, atol=1e-6)


@every_loss
def test_nan_stays_visible(row):
    u, v = batch(5, 2)
    assert np.isnan(loss(row)(u.at[2].set(jnp.nan), v)[2])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rows_next_to_the_largest_and_smallest_floats_are_normalized(dtype, x64):
    limits = np.finfo(dtype)
    scales = np.array([limits.max, limits.max / 4, 1, limits.tiny * 4], dtype)
    got = jax.jit(pairwise.normalize)(jnp.asarray(scales[:, None] * np.array([1, -0.75, 0.5], dtype)))
    want = np.array([1, -0.75, 0.5]) / np.sqrt(1.8125)
    np.testing.assert_allclose(got, np.tile(want, (4, 1)), rtol=4 * limits.eps)


@pytest.mark.parametrize("m", [2, 8, 48])
def test_nan_in_a_row_of_zeros_is_not_taken_for_a_zero_row(m):
    """XLA's maximum on CPUs passes over a NaN where it is vectorised, here with 48 rows."""
    x = jnp.zeros((m, 127)).at[1, 60].set(jnp.nan)
    assert np.isnan(jax.jit(pairwise.normalize)(x)[1]).all()


@every_loss
def test_nothing_larger_than_the_similarity_matrix_is_built(row):
    """Trap 5: optax's ntxent broadcasts to [N, N, D]; here nothing, forward or backward, exceeds [Vm, Vm]."""
    m, d = 64, 128
    u, v = batch(m, d)
    jaxpr = jax.make_jaxpr(jax.grad(lambda u, v: loss(row)(u, v).mean(), argnums=(0, 1)))(u, v)
    assert max(sizes(jaxpr.jaxpr)) <= (row.views * m) ** 2


def sizes(jaxpr):
    for equation in jaxpr.eqns:
        yield from (v.aval.size for v in equation.outvars)
        for inner in jax.tree.leaves(list(equation.params.values())):
            if isinstance(inner, Jaxpr | ClosedJaxpr):
                yield from sizes(inner)


def test_sizes_are_found_inside_loops_and_branches():
    def fn(x):
        scanned = jax.lax.scan(lambda c, _: (c + jnp.ones((7, 9)).sum(), None), x, length=3)[0]
        return jax.lax.cond(x > 0, lambda x: jnp.ones((11, 13)).sum() + x, lambda x: x, scanned)

    assert {7 * 9, 11 * 13} <= set(sizes(jax.make_jaxpr(fn)(1.0)))


@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_alignment_of_pairs_that_coincide_has_no_gradient(alpha):
    u, _ = batch(6, 4)

    @jax.jit
    def values_and_grad(u):
        values, pullback = jax.vjp(lambda v: losses.align_uniform(u, v, alpha=alpha, weight=0.0), u)
        return values, *pullback(jnp.ones(6))

    values, grad = values_and_grad(u)
    np.testing.assert_array_equal(values, 0)
    np.testing.assert_array_equal(grad, 0)


@pytest.mark.parametrize("t", [2.0, -1.0])
def test_riesz_stops_at_the_distance_it_cannot_tell_from_zero(t):
    u, v = batch(6, 4)

    @jax.jit
    def values_and_grad(u, v):
        values, pullback = jax.vjp(lambda v: losses.kcl(u, v, kernel="riesz", t=t, gamma=0.0), v)
        return values, *pullback(jnp.ones(6))

    floor = 4 * np.sqrt(np.finfo(np.float32).eps)
    for positive in (u, u * (1 + 1e-4), u + 1e-4 * jnp.linalg.norm(u, axis=-1, keepdims=True) * v / 10):
        values, grad = values_and_grad(u, positive)
        np.testing.assert_allclose(values, -2 * np.sign(t) * floor**-t, rtol=1e-5)
        np.testing.assert_array_equal(grad, 0)
    values, grad = values_and_grad(u, v)
    assert np.all(np.linalg.norm(grad, axis=-1) > 1e-3)


IMPORT_PROBE = """
import sys, time
import jax
start = time.perf_counter()
import contrastive_jax.losses, contrastive_jax.metrics, contrastive_jax.theory
loaded = [m for m in ("flax", "optax", "orbax", "grain", "tensorflow", "tensorflow_datasets", "ml_collections",
                      "matplotlib", "sklearn") if m in sys.modules]
assert not loaded, loaded
"""


def test_importing_a_loss_loads_jax_alone():
    subprocess.run([sys.executable, "-c", IMPORT_PROBE], check=True)
