"""Where plain code turns to NaN, inf, or a wrong number: the traps of the papers' and other public code."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from tests.losses.test_values import batch, every_loss, loss

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


@pytest.mark.parametrize("m", [2, M])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
@every_loss
def test_finite_and_right_at_the_edges(row, dtype, m):
    """Traps 1 and 2: exp before log overflows, and a maximum that includes the anchor itself leaves log 0."""
    batches = jnp.stack([x[:, :m] for x in EDGES.values()]).astype(dtype)
    options = {"temperature": 0.005} if "temperature" in row.kwargs else {}
    fn = loss(row, **options)

    @jax.jit
    @jax.vmap
    def value_and_grad(batch):
        values, pullback = jax.vjp(lambda batch: fn(*batch), batch)
        return values, *pullback(jnp.ones_like(values))

    for name, pair, values, grad in zip(EDGES, batches, *value_and_grad(batches), strict=True):
        want = row.oracle(*np.asarray(pair, np.float64), np.arange(m), **{**row.kwargs, **options})
        np.testing.assert_allclose(values, want, rtol=1e-5, atol=2e-4, err_msg=name)
        assert grad.dtype == dtype
        assert np.isfinite(np.asarray(grad, np.float32)).all(), name


@every_loss
def test_an_anchor_without_negatives_is_finite(row):
    """Trap 5: a label that leaves an anchor alone must not make the batch NaN."""
    u, v = batch(4, 3)
    ids = jnp.zeros(4, jnp.int32)
    values, pullback = jax.vjp(loss(row, ids=ids), u, v)
    assert all(np.isfinite(grad).all() for grad in pullback(jnp.ones(4)))
    np.testing.assert_allclose(values, row.oracle(u, v, np.zeros(4), **row.kwargs), rtol=1e-5, atol=1e-6)


@every_loss
def test_nan_stays_visible(row):
    u, v = batch(6, 4)
    assert np.isnan(loss(row)(u.at[2].set(jnp.nan), v)[2])


@every_loss
def test_nothing_larger_than_the_similarity_matrix_is_built(row):
    """Trap 5: optax's ntxent broadcasts to [N, N, D]; here no value of the forward and backward pass exceeds [2m, 2m]."""
    m, d = 64, 128
    u, v = batch(m, d)
    jaxpr = jax.make_jaxpr(jax.grad(lambda u, v: loss(row)(u, v).mean(), argnums=(0, 1)))(u, v)
    assert max(sizes(jaxpr.jaxpr)) <= (2 * m) ** 2


def sizes(jaxpr):
    for equation in jaxpr.eqns:
        yield from (v.aval.size for v in equation.outvars)
        for inner in jaxprs_in_params(equation.params):
            yield from sizes(inner)


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
