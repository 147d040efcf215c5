"""The engine's public face: shapes checked once, candidates gathered once, one implementation chosen."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from contrastive_jax import explicit_axes, spmd
from contrastive_jax.pairwise import _blockwise, _dense

IMPLEMENTATIONS = ("dense", "blockwise", "ring")
# About as many entries as dense is no slower for (docs/benchmarks.md); blockwise also compiles longer.
DENSE_ENTRIES = 2**20


@explicit_axes.accept(out_axis=0)
def logsumexp(
    anchors: jax.Array,
    candidates: jax.Array,
    *,
    scale: float | jax.Array = 1.0,
    anchor_ids: jax.Array | None = None,
    candidate_ids: jax.Array | None = None,
    axis_name: spmd.AxisName = None,
    implementation: str | None = None,
    block_size: int | None = None,
) -> jax.Array:
    r"""Log-sum-exp of each anchor's scaled similarities to its negatives.

    .. math:: y_i = \log \sum_{j : \mathrm{id}_j \ne \mathrm{id}_i} \exp(\mathrm{scale} \cdot a_i^\top c_j)

    Args:
      anchors: [m, d], any float dtype; used as they are (see `normalize`).
      candidates: [n, d]. Under `axis_name`, each device's own part of them.
      scale: scalar, usually one over the temperature; may be traced.
      anchor_ids: [m] int, and
      candidate_ids: [n] int: equal ids are never each other's negatives. Without ids every candidate is a negative.
      axis_name: compare against the candidates of all devices along this mapped axis.
      implementation: `"dense"` holds the [m, n] matrix; `"blockwise"` holds tiles of it, one at a time, and computes
        them again in the backward pass: memory linear in m and n, and half the products where anchors and candidates
        (and their ids) are the same array. `"ring"`, under an axis name, does not gather: each device's candidates
        travel round the devices while tiles are computed, forward and backward, so that a device's memory is linear in
        its own m and n. Both have no forward-mode derivative; a second reverse-mode one is exact, but holds every tile.
        None chooses dense up to 2^20 entries [m, n of all devices]; beyond, ring where each device has at least 1024
        candidates, a tile's work for every transfer, else blockwise.
      block_size: the most rows, and columns, of a tile of blockwise and ring; by default 1024.

    Returns:
      [m] float32 (float64 for float64 input); -inf, with a zero gradient, for an anchor without a negative.

    Raises:
      ValueError: at trace time, for shapes that do not fit, one kind of ids without the other, an unknown
        implementation, ring without an axis name, or a block_size that is below 1 or given to dense.

    Example:
      >>> anchors = jnp.eye(3)
      >>> pairwise.logsumexp(anchors, anchors, anchor_ids=jnp.arange(3), candidate_ids=jnp.arange(3))
      Array([0.6931472, 0.6931472, 0.6931472], dtype=float32)
    """
    _check("logsumexp", anchors, candidates, anchor_ids, candidate_ids, axis_name, implementation, block_size)
    implementation = choose(implementation, len(anchors), len(candidates), axis_name)
    candidates, options = _options(implementation, candidates, anchor_ids, candidate_ids, axis_name, block_size)
    engine = _dense if implementation == "dense" else _blockwise
    return engine.logsumexp(anchors, candidates, scale=scale, **options)


@explicit_axes.accept(out_axis=0)
def total(
    fn: Callable[[jax.Array], jax.Array],
    anchors: jax.Array,
    candidates: jax.Array,
    *,
    anchor_ids: jax.Array | None = None,
    candidate_ids: jax.Array | None = None,
    axis_name: spmd.AxisName = None,
    implementation: str | None = None,
    block_size: int | None = None,
) -> jax.Array:
    r"""Sum over each anchor's negatives of a function of the similarity.

    .. math:: y_i = \sum_{j : \mathrm{id}_j \ne \mathrm{id}_i} \mathrm{fn}(a_i^\top c_j)

    Args:
      fn: elementwise function of the similarity; it may close over traced arrays. It is never shown an excluded pair.
      anchors: [m, d], any float dtype; used as they are (see `normalize`).
      candidates: [n, d]. Under `axis_name`, each device's own part of them.
      anchor_ids: [m] int, and
      candidate_ids: [n] int: equal ids are never each other's negatives. Without ids every candidate is a negative.
      axis_name: compare against the candidates of all devices along this mapped axis.
      implementation: `"dense"` holds the [m, n] matrix; `"blockwise"` holds tiles of it, one at a time, and computes
        them again in the backward pass: memory linear in m and n, and half the products where anchors and candidates
        (and their ids) are the same array. `"ring"`, under an axis name, does not gather: each device's candidates
        travel round the devices while tiles are computed, forward and backward, so that a device's memory is linear in
        its own m and n. Both have no forward-mode derivative; a second reverse-mode one is exact, but holds every tile.
        None chooses dense up to 2^20 entries [m, n of all devices]; beyond, ring where each device has at least 1024
        candidates, a tile's work for every transfer, else blockwise.
      block_size: the most rows, and columns, of a tile of blockwise and ring; by default 1024.

    Returns:
      [m] float32 (float64 for float64 input); 0 for an anchor without a negative.

    Raises:
      ValueError: as `logsumexp`.

    Example:
      >>> pairwise.total(jnp.square, jnp.eye(2), jnp.ones((3, 2)))
      Array([3., 3.], dtype=float32)
    """
    _check("total", anchors, candidates, anchor_ids, candidate_ids, axis_name, implementation, block_size)
    implementation = choose(implementation, len(anchors), len(candidates), axis_name)
    candidates, options = _options(implementation, candidates, anchor_ids, candidate_ids, axis_name, block_size)
    engine = _dense if implementation == "dense" else _blockwise
    return engine.total(fn, anchors, candidates, **options)


def choose(implementation: str | None, m: int, n: int, axis_name: spmd.AxisName) -> str:
    """The implementation that `None` stands for, with m anchors and n candidates on each device."""
    if implementation is not None:
        return implementation
    devices = spmd.axis_size(axis_name)
    if m * n * devices <= DENSE_ENTRIES:
        return "dense"
    return "ring" if devices > 1 and n >= _blockwise.BLOCK_SIZE else "blockwise"


def _options(implementation, candidates, anchor_ids, candidate_ids, axis_name, block_size):
    """The candidates, gathered unless they travel, and the other arguments of an implementation."""
    travel = implementation == "ring"
    if not travel:
        candidates = spmd.gather(candidates, axis_name)
        candidate_ids = None if candidate_ids is None else spmd.gather(candidate_ids, axis_name)
    options = {"anchor_ids": anchor_ids, "candidate_ids": candidate_ids}
    if implementation != "dense":
        options |= {"axis_name": axis_name if travel else None, "block_size": block_size or _blockwise.BLOCK_SIZE}
    return candidates, options


def check_implementation(name: str, implementation: str | None, axis_name: spmd.AxisName) -> None:
    """Refuse an implementation that does not exist, or a ring without devices to go round."""
    if implementation is not None and implementation not in IMPLEMENTATIONS:
        raise ValueError(
            f"{name}: implementation {implementation!r} is unknown; "
            f"give one of {', '.join(map(repr, IMPLEMENTATIONS))}, or None to choose."
        )
    if implementation == "ring" and axis_name is None:
        raise ValueError(f"{name}: implementation 'ring' goes round the devices of an axis; give an axis_name too.")


def _check(name, anchors, candidates, anchor_ids, candidate_ids, axis_name, implementation, block_size):
    if anchors.ndim != 2 or candidates.ndim != 2 or anchors.shape[1] != candidates.shape[1]:
        raise ValueError(
            f"pairwise.{name}: anchors [m, d] and candidates [n, d] are wanted; "
            f"got shapes {anchors.shape} and {candidates.shape}."
        )
    if not jnp.issubdtype(anchors.dtype, jnp.floating) or not jnp.issubdtype(candidates.dtype, jnp.floating):
        raise ValueError(
            f"pairwise.{name}: anchors and candidates of a float dtype are wanted; "
            f"got {anchors.dtype} and {candidates.dtype}."
        )
    if (anchor_ids is None) != (candidate_ids is None):
        raise ValueError(f"pairwise.{name}: give both anchor_ids and candidate_ids, or neither.")
    if anchor_ids is not None and (anchor_ids.shape, candidate_ids.shape) != (anchors.shape[:1], candidates.shape[:1]):
        raise ValueError(
            f"pairwise.{name}: one id for each row is wanted, {anchors.shape[:1]} and {candidates.shape[:1]}; "
            f"got shapes {anchor_ids.shape} and {candidate_ids.shape}."
        )
    check_implementation(f"pairwise.{name}", implementation, axis_name)
    if block_size is not None and (block_size < 1 or implementation == "dense"):
        raise ValueError(
            f"pairwise.{name}: block_size, at least 1, belongs to implementations 'blockwise' and 'ring'; "
            f"got {block_size} with {implementation!r}."
        )
