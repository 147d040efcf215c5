"""Sums over all tiles where the anchors are the candidates.

Only the tiles on and above the diagonal are computed: each serves its rows and, transposed, its columns. The rows may
be those of several views, which are never joined into one array: that would be a copy of all of them.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from contrastive_jax.pairwise import _products, _tiles
from contrastive_jax.pairwise._products import Algorithm
from contrastive_jax.pairwise._tiles import Function, Rows

# Ids, validity, shifts, what a function takes first, and whether all shifts are alike (None: they are known to be).
Fixed = tuple[jax.Array, jax.Array, jax.Array, tuple[jax.Array, ...], jax.Array | None]
Constants = tuple[jax.Array, ...]
Views = tuple[jax.Array, ...]  # [blocks * size, d] each, of one shape
Residuals = tuple[Views, Fixed, Constants]


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def sum_tiles(fn: Function, algorithm: Algorithm, views: Views, fixed: Fixed, constants: Constants) -> jax.Array:
    """Sums [blocks, size] for the rows of all views, each filled up to whole blocks."""
    return _forward(fn, algorithm, views, fixed, constants)[0]


def _forward(
    fn: Function, algorithm: Algorithm, views: Views, fixed: Fixed, constants: Constants
) -> tuple[jax.Array, Residuals]:
    # The branch is inside the custom rule, so that either way only the rows themselves are stored.
    y = _tiles.map_copies(partial(_choose, partial(_sum, fn, algorithm)), None, fixed[0], fixed[0])(
        views, fixed, constants
    )
    return y, (views, fixed, constants)


def _backward(fn: Function, algorithm: Algorithm, residuals: Residuals, g: jax.Array) -> tuple[Views, Any, Constants]:
    views, fixed, constants = residuals
    by_either = partial(_choose, partial(_pull, fn, algorithm))
    dx, dk = _tiles.map_copies(by_either, None, fixed[0], fixed[0])(views, fixed, constants, g)
    return dx, _tiles.no_gradient(fixed), dk


sum_tiles.defvjp(_forward, _backward)


def _choose(fn: Callable[..., Any], views: Views, fixed: Fixed, *arrays: Any) -> Any:
    return _tiles.choose(fn, fixed[-1], views, fixed, *arrays)


def _sum(
    fn: Function, algorithm: Algorithm, views: Views, fixed: Fixed, constants: Constants, *, alike: bool
) -> jax.Array:
    ids, valid, shift, others, _ = fixed
    fn = partial(fn, others)
    if len(shift) == 1:  # it holds the pairs in both orders
        a = Rows(views[0], ids[0], valid[0])
        return jnp.sum(_tiles.values(fn, a, a, shift[0])(_tiles.similarities(a, a, algorithm), constants), axis=1)[None]

    def body(y: jax.Array, i: jax.Array, j: jax.Array) -> jax.Array:
        a, c = _block(views, ids, valid, i), _block(views, ids, valid, j)
        s = _tiles.similarities(a, c, algorithm)
        of_rows = lax.optimization_barrier(_tiles.values(fn, a, c, _tiles.entry(shift, i))(s, constants))
        of_columns = of_rows.T if alike else _tiles.values(fn, c, a, _tiles.entry(shift, j))(s.T, constants)
        y = _tiles.add_to_entry(y, i, jnp.sum(of_rows, axis=1))
        return _tiles.add_to_entry(y, j, jnp.where(i == j, 0, jnp.sum(of_columns, axis=1)))

    return _tiles.over(body, jnp.zeros_like(shift), *np.triu_indices(len(shift)))


def _pull(
    fn: Function, algorithm: Algorithm, views: Views, fixed: Fixed, constants: Constants, g: jax.Array, *, alike: bool
) -> tuple[Views, Constants]:
    ids, valid, shift, others, _ = fixed
    fn = partial(fn, others)
    if len(g) == 1:
        only = _tiles.Block(Rows(views[0], ids[0], valid[0]), shift[0], g[0])
        ds, dk = _tiles.pull_both_ways(fn, algorithm, only, only, constants, alike)
        return (_products.times(ds, views[0], algorithm).astype(views[0].dtype),), tuple(k / 2 for k in dk)

    def body(carry: Any, i: jax.Array, j: jax.Array) -> Any:
        dx, dk = carry
        a, c = (_tiles.Block(_block(views, ids, valid, k), _tiles.entry(shift, k), _tiles.entry(g, k)) for k in (i, j))
        # Cotangents for the entries (i, j) and (j, i) together; a tile on the diagonal holds both itself.
        ds, more = _tiles.pull_both_ways(fn, algorithm, a, c, constants, alike)
        half = jnp.where(i == j, 0.5, 1.0).astype(ds.dtype)
        dx = _add_to_block(dx, ids, i, _products.times(ds, c.rows.x, algorithm))
        dx = _add_to_block(dx, ids, j, jnp.where(i == j, 0, _products.transposed_times(ds, a.rows.x, algorithm)))
        return dx, _tiles.add(dk, tuple(half * k for k in more))

    start: Any = (tuple(_tiles.zeros(x, g) for x in views), tuple(jnp.zeros_like(k) for k in constants))
    dx, dk = _tiles.over(body, start, *np.triu_indices(len(g)))
    return tuple(d.astype(x.dtype) for d, x in zip(dx, views, strict=True)), dk


def _block(views: Views, ids: jax.Array, valid: jax.Array, i: jax.Array) -> Rows:
    """Block i of all views."""
    blocks, size = len(ids) // len(views), ids.shape[1]
    x, *more = (lax.dynamic_slice_in_dim(x, i % blocks * size, size) for x in views)
    for view, part in enumerate(more, start=1):
        x = jnp.where(i // blocks == view, part, x)
    return Rows(x, _tiles.entry(ids, i), _tiles.entry(valid, i))


def _add_to_block(sums: Views, ids: jax.Array, i: jax.Array, more: jax.Array) -> Views:
    """The views' sums with `more` added to block i."""
    if len(sums) == 1:
        return (_tiles.add_to_block(sums[0], i, more),)
    blocks = len(ids) // len(sums)
    return tuple(
        _tiles.add_to_block(x, i % blocks, jnp.where(i // blocks == view, more, 0)) for view, x in enumerate(sums)
    )
