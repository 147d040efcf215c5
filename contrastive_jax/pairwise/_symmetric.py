"""Sums over all tiles where the anchors are the candidates.

Only the tiles on and above the diagonal are computed: each serves its rows and, transposed, its columns.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from contrastive_jax.pairwise import _tiles
from contrastive_jax.pairwise._tiles import Function, Rows

# Ids, validity, shifts, what a function takes first, and whether all shifts are alike (None: they are known to be).
Fixed = tuple[jax.Array, jax.Array, jax.Array, tuple[jax.Array, ...], jax.Array | None]
Constants = tuple[jax.Array, ...]
Residuals = tuple[jax.Array, Fixed, Constants]


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def sum_tiles(fn: Function, x: jax.Array, fixed: Fixed, constants: Constants) -> jax.Array:
    """Sums [blocks, size] for rows x in blocks."""
    return _forward(fn, x, fixed, constants)[0]


def _forward(fn: Function, x: jax.Array, fixed: Fixed, constants: Constants) -> tuple[jax.Array, Residuals]:
    # The branch is inside the custom rule, so that either way only the rows themselves are stored.
    y = _tiles.map_copies(partial(_choose, partial(_sum, fn)), None, x, x)(x, fixed, constants)
    return y, (x, fixed, constants)


def _backward(fn: Function, residuals: Residuals, g: jax.Array) -> tuple[jax.Array, Any, Constants]:
    x, fixed, constants = residuals
    dx, dk = _tiles.map_copies(partial(_choose, partial(_pull, fn)), None, x, x)(x, fixed, constants, g)
    return dx, _tiles.no_gradient(fixed), dk


sum_tiles.defvjp(_forward, _backward)


def _choose(fn: Callable[..., Any], x: jax.Array, fixed: Fixed, *arrays: Any) -> Any:
    return _tiles.choose(fn, fixed[-1], x, fixed, *arrays)


def _sum(fn: Function, x: jax.Array, fixed: Fixed, constants: Constants, *, alike: bool) -> jax.Array:
    ids, valid, shift, others, _ = fixed
    fn = partial(fn, others)
    rows = Rows(x, ids, valid)
    if len(shift) == 1:
        a = _tiles.block(rows, 0)
        return jnp.sum(_tiles.values(fn, a, a, shift[0])(_tiles.similarities(a, a), constants), axis=1)[None]

    def body(y: jax.Array, pair: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        i, j = pair
        a, c = _tiles.block(rows, i), _tiles.block(rows, j)
        s = _tiles.similarities(a, c)
        of_rows = lax.optimization_barrier(_tiles.values(fn, a, c, shift[i])(s, constants))
        of_columns = of_rows.T if alike else _tiles.values(fn, c, a, shift[j])(s.T, constants)
        y = y.at[i].add(jnp.sum(of_rows, axis=1))
        return y.at[j].add(jnp.where(i == j, 0, jnp.sum(of_columns, axis=1))), None

    return lax.scan(body, jnp.zeros_like(shift), _upper_triangle(len(shift)))[0]


def _pull(
    fn: Function, x: jax.Array, fixed: Fixed, constants: Constants, g: jax.Array, *, alike: bool
) -> tuple[jax.Array, Constants]:
    ids, valid, shift, others, _ = fixed
    fn = partial(fn, others)
    rows = Rows(x, ids, valid)

    def of_tile(i: jax.Array | int, j: jax.Array | int) -> tuple[jax.Array, Constants]:
        """Cotangents for the entries (i, j) and (j, i) together; a tile on the diagonal holds both itself."""
        a, c = _tiles.block(rows, i), _tiles.block(rows, j)
        s = _tiles.similarities(a, c)
        if alike:
            return _tiles.pull(fn, a, c, shift[i], constants, s, g[i][:, None] + g[j][None, :])
        ds, more = _tiles.pull(fn, a, c, shift[i], constants, s, g[i][:, None])
        turned, also = _tiles.pull(fn, c, a, shift[j], constants, s.T, g[j][:, None])
        return ds + turned.T, _tiles.add(more, also)

    def body(carry: Any, pair: tuple[jax.Array, jax.Array]) -> tuple[Any, None]:
        dx, dk = carry
        i, j = pair
        ds, more = of_tile(i, j)
        half = jnp.where(i == j, 0.5, 1.0).astype(ds.dtype)
        dx = dx.at[i].add(_tiles.times(ds, x[j]))
        dx = dx.at[j].add(jnp.where(i == j, 0, _tiles.transposed_times(ds, x[i])))
        return (dx, _tiles.add(dk, tuple(half * k for k in more))), None

    if len(g) == 1:
        ds, dk = of_tile(0, 0)
        return _tiles.times(ds, x[0])[None].astype(x.dtype), tuple(k / 2 for k in dk)
    start: Any = (_tiles.zeros(x, g), tuple(jnp.zeros_like(k) for k in constants))
    (dx, dk), _ = lax.scan(body, start, _upper_triangle(len(g)))
    return dx.astype(x.dtype), dk


def _upper_triangle(blocks: int) -> tuple[jax.Array, jax.Array]:
    rows, columns = np.triu_indices(blocks)
    return jnp.asarray(rows, jnp.int32), jnp.asarray(columns, jnp.int32)
