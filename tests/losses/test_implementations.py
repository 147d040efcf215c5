"""Every loss in every implementation is the same loss; `info_nce_based` has the dense one alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax import pairwise
from contrastive_jax.pairwise import _blockwise
from tests.losses.table import ROWS

M, D = 13, 6


@pytest.mark.parametrize("implementation", [x for x in pairwise.IMPLEMENTATIONS if x != "dense"])
@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if not row.variant and name != "info_nce_based"])
def test_every_implementation_gives_the_same_values_and_gradients(name, implementation, monkeypatch):
    monkeypatch.setattr(_blockwise, "BLOCK_SIZE", 5)
    row = ROWS[name]
    u, v = jax.random.normal(jax.random.key(0), (2, M, D))
    ids = jnp.arange(M, dtype=jnp.int32).at[7].set(2)
    weights = jax.random.normal(jax.random.key(1), (M,))

    def weighted(u, v, implementation):
        values = row.fn(u, v, ids=ids, implementation=implementation, **row.arrays(M), **row.kwargs, **row.form)
        return jnp.sum(values * weights)

    value_and_grad = jax.jit(jax.value_and_grad(weighted, argnums=(0, 1)), static_argnums=2)
    got, want = value_and_grad(u, v, implementation), value_and_grad(u, v, "dense")
    np.testing.assert_allclose(got[0], want[0], rtol=1e-5)
    for x, y in zip(got[1], want[1], strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)
