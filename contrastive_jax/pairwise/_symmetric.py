"""Sums over all tiles where the anchors are the candidates and one shift serves all rows.

Only the tiles on and above the diagonal are computed: each serves its rows and, turned over, its columns.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from contrastive_jax.pairwise import _tiles
from contrastive_jax.pairwise._tiles import Rows


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def total(fn, x, fixed, constants):
    """Sums [blocks, size] for rows x in blocks; `fixed` are their ids, their validity, and shifts, all alike."""
    return _forward(fn, x, fixed, constants)[0]


def _forward(fn, x, fixed, constants):
    ids, valid, shift = fixed
    rows = Rows(x, ids, valid)

    def body(y, pair):
        i, j = pair
        a, c = _block(rows, i), _block(rows, j)
        of_tile = lax.optimization_barrier(
            _tiles.values(fn, a, c, shift[0], constants)(_tiles.similarities(a, c), constants)
        )
        y = y.at[i].add(jnp.sum(of_tile, axis=1))
        return y.at[j].add(jnp.where(i == j, 0, jnp.sum(of_tile, axis=0))), None

    y, _ = lax.scan(body, jnp.zeros_like(shift), _upper_triangle(len(x)))
    return y, (x, fixed, constants)


def _backward(fn, residuals, g):
    x, fixed, constants = residuals
    ids, valid, shift = fixed
    rows = Rows(x, ids, valid)

    def body(carry, pair):
        dx, dk = carry
        i, j = pair
        a, c = _block(rows, i), _block(rows, j)
        # Each entry stands for (i, j) and (j, i); a tile on the diagonal holds both of them itself.
        both = g[i][:, None] + g[j][None, :]
        ds, more = _tiles.pull(fn, a, c, shift[0], constants, _tiles.similarities(a, c), both)
        half = jnp.where(i == j, 0.5, 1.0).astype(ds.dtype)
        dx = dx.at[i].add(_tiles.times(ds, c.x))
        dx = dx.at[j].add(jnp.where(i == j, 0, _tiles.times(ds.T, a.x)))
        return (dx, _tiles.add(dk, tuple(half * k for k in more))), None

    start = (_tiles.zeros(x, g), tuple(jnp.zeros_like(k) for k in constants))
    (dx, dk), _ = lax.scan(body, start, _upper_triangle(len(x)))
    return dx.astype(x.dtype), _tiles.no_gradient(fixed), dk


total.defvjp(_forward, _backward)


def _block(rows, i):
    return jax.tree.map(lambda x: x[i], rows)


def _upper_triangle(blocks):
    return tuple(jnp.asarray(index, jnp.int32) for index in np.triu_indices(blocks))
