"""Sums over all tiles where the anchors are the candidates.

Only the tiles on and above the diagonal are computed: each serves its rows and, transposed, its columns. The rows may
be those of several views, which are never joined into one array: that would be a copy of all of them.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from contrastive_jax.pairwise import _products, _tiles
from contrastive_jax.pairwise._tiles import Constants, Rows, Walk

Views = tuple[jax.Array, ...]  # [blocks * size, d] each, of one shape
Sums = tuple[jax.Array, Views]  # [blocks, size]; the views, as they came


class Fixed(NamedTuple):
    """What is not differentiated."""

    ids: jax.Array
    valid: jax.Array
    others: tuple[jax.Array, ...]  # what the function takes first
    alike: jax.Array | None  # whether all shifts are; None: they are known to be, unless they are offsets


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def sum_tiles(walk: Walk, views: Views, fixed: Fixed, shift: jax.Array, constants: Constants) -> Sums:
    """Sums [blocks, size] for the rows of all views, each filled up to whole blocks; and these, see `_tiles.resume`."""
    return _forward(walk, views, fixed, shift, constants)[0]


def _forward(walk: Walk, views: Views, fixed: Fixed, shift: jax.Array, constants: Constants) -> tuple[Sums, Any]:
    # The branch is inside the custom rule, so that either way only the rows themselves are stored.
    by_either = partial(_choose, walk, _sum)
    y = _tiles.map_copies(by_either, None, fixed.ids, fixed.ids)(views, fixed, shift, constants)
    return (y, views), (views, fixed, shift, constants)


def _backward(walk: Walk, residuals: Any, g: Sums) -> tuple[Views, Any, jax.Array, Constants]:
    views, fixed, shift, constants = residuals
    by_either = partial(_choose, walk, _pull)
    dx, d_shift, dk = _tiles.map_copies(by_either, None, fixed.ids, fixed.ids)(views, fixed, shift, constants, g)
    return dx, _tiles.no_gradient(fixed), d_shift, dk


sum_tiles.defvjp(_forward, _backward)


def _choose(walk: Walk, fn: Callable[..., Any], views: Views, fixed: Fixed, *arrays: Any) -> Any:
    return _tiles.choose_by_shifts(_tiles.bind(walk, fixed.others), fn, fixed.alike, views, fixed, *arrays)


def _sum(walk: Walk, views: Views, fixed: Fixed, shift: jax.Array, constants: Constants, *, alike: bool) -> jax.Array:
    if len(shift) == 1:  # it holds the pairs in both orders
        a = _block(views, fixed, jnp.int32(0))
        of_tile = _tiles.values(walk, a, a)(_tiles.similarities(a, a, walk.algorithm), shift[0], constants)
        return jnp.sum(of_tile, axis=1)[None]

    def body(y: jax.Array, i: jax.Array, j: jax.Array) -> jax.Array:
        a, c = _block(views, fixed, i), _block(views, fixed, j)
        s = _tiles.similarities(a, c, walk.algorithm)
        of_rows = lax.optimization_barrier(_tiles.values(walk, a, c)(s, _tiles.entry(shift, i), constants))
        of_columns = of_rows.T if alike else _tiles.values(walk, c, a)(s.T, _tiles.entry(shift, j), constants)
        y = _tiles.add_to_entry(y, i, jnp.sum(of_rows, axis=1))
        return _tiles.add_to_entry(y, j, jnp.where(i == j, 0, jnp.sum(of_columns, axis=1)))

    return _tiles.over(body, jnp.zeros_like(shift), *np.triu_indices(len(shift)))


def _pull(
    walk: Walk, views: Views, fixed: Fixed, shift: jax.Array, constants: Constants, g: Sums, *, alike: bool
) -> tuple[Views, jax.Array, Constants]:
    of_sums, before = g[0], _tiles.resume(g[0], *g[1])
    if len(shift) == 1:
        only = _tiles.Block(_block(views, fixed, jnp.int32(0)), shift[0], of_sums[0])
        ds, (d_shift, _), dk = _tiles.pull_both_ways(walk, only, only, constants, alike)
        dx = before[0] + _products.times(ds, views[0], walk.algorithm)
        d_shift = _tiles.add_to_shift(walk, jnp.zeros_like(shift), jnp.int32(0), d_shift)
        return (dx.astype(views[0].dtype),), d_shift, tuple(k / 2 for k in dk)

    def body(carry: Any, i: jax.Array, j: jax.Array) -> Any:
        dx, d_shift, dk = carry
        a, c = (_tiles.Block(_block(views, fixed, k), _tiles.entry(shift, k), _tiles.entry(of_sums, k)) for k in (i, j))
        # Cotangents for the entries (i, j) and (j, i) together; a tile on the diagonal holds both itself.
        ds, (of_rows, of_columns), more = _tiles.pull_both_ways(walk, a, c, constants, alike)
        half = jnp.where(i == j, 0.5, 1.0).astype(ds.dtype)
        dx = _add_to_block(dx, fixed.ids, i, _products.times(ds, c.rows.x, walk.algorithm))
        turned = _products.transposed_times(ds, a.rows.x, walk.algorithm)
        dx = _add_to_block(dx, fixed.ids, j, jnp.where(i == j, 0, turned))
        d_shift = _tiles.add_to_shift(walk, d_shift, i, of_rows)
        d_shift = _tiles.add_to_shift(walk, d_shift, j, jnp.where(i == j, 0, of_columns))
        return dx, d_shift, _tiles.add(dk, tuple(half * k for k in more))

    start: Any = before, jnp.zeros_like(shift), tuple(jnp.zeros_like(k) for k in constants)
    dx, d_shift, dk = _tiles.over(body, start, *np.triu_indices(len(shift)))
    return tuple(d.astype(x.dtype) for d, x in zip(dx, views, strict=True)), d_shift, dk


def _block(views: Views, fixed: Fixed, i: jax.Array) -> Rows:
    """Block i of all views."""
    blocks, size = len(fixed.ids) // len(views), fixed.ids.shape[1]
    x, *more = (lax.dynamic_slice_in_dim(x, i % blocks * size, size) for x in views)
    for view, part in enumerate(more, start=1):
        x = jnp.where(i // blocks == view, part, x)
    return Rows(x, _tiles.entry(fixed.ids, i), _tiles.entry(fixed.valid, i))


def _add_to_block(sums: Views, ids: jax.Array, i: jax.Array, more: jax.Array) -> Views:
    """The views' sums with `more` added to block i."""
    if len(sums) == 1:
        return (_tiles.add_to_block(sums[0], i, more),)
    blocks = len(ids) // len(sums)
    return tuple(
        _tiles.add_to_block(x, i % blocks, jnp.where(i // blocks == view, more, 0)) for view, x in enumerate(sums)
    )
