"""The public sums over negatives of any function of the similarity."""

from collections.abc import Sequence
from typing import Any

import jax
from jax.typing import ArrayLike

from contrastive_jax import explicit_axes, spmd
from contrastive_jax.closures import Elementwise
from contrastive_jax.pairwise import _arguments, _blockwise, _dense, _products, _reductions, shared
from contrastive_jax.pairwise._products import Precision


@explicit_axes.accept(out_axis=0)
def total(
    fn: Elementwise,
    anchors: jax.Array,
    candidates: jax.Array,
    *,
    anchor_ids: ArrayLike | None = None,
    candidate_ids: ArrayLike | None = None,
    axis_name: spmd.AxisName = None,
    implementation: str | None = None,
    block_size: int | None = None,
    precision: Precision = "highest",
) -> jax.Array:
    r"""Sum over each anchor's negatives of a function of the similarity.

    .. math:: y_i = \sum_{j : \mathrm{id}_j \ne \mathrm{id}_i} \mathrm{fn}(a_i^\top c_j)

    Args:
      fn: elementwise function of the similarity; it may close over traced arrays of any dtype. It is never
        shown an excluded pair.
      anchors: [m, d], any float dtype; used as they are (see `normalize`).
      candidates: [n, d]. Under `axis_name`, each device's own part of them.
      anchor_ids: [m] int instance ids of the anchors.
      candidate_ids: [n] int instance ids of the candidates; a candidate with the id of an anchor is not its negative.
        Without ids every candidate is a negative.
      axis_name: compare against the candidates of all devices along this mapped axis.
      implementation: `"dense"` stores the [m, n] matrix. `"blockwise"` computes it tile by tile, and again in the
        backward pass: memory is linear in m and n, and where anchors and candidates (and their ids) are the same array
        it takes half the products. `"ring"` needs an axis name and gathers nothing: the candidates travel round the
        devices while tiles are computed, so a device's memory is linear in its own m and n. Neither blockwise nor ring
        supports forward-mode differentiation; their second reverse-mode derivative is exact but stores every tile.
        `vmap` computes large copies of a blockwise reduction one after the other, dense ones side by side. `"pallas"`
        walks over the tiles in kernels of its own on an NVIDIA GPU, in memory linear in m and n. Its operands are
        bfloat16: two parts of each float32 for "high" and "default", three for "highest", one for BF16_BF16_F32; up to
        128 dimensions, 512 in one part. It has one derivative, in reverse mode.
        None chooses dense up to 2^20 entries [m, n of all devices], 2^24 on GPUs; beyond that ring, where each device
        has at least a tile of candidates, else blockwise.
      block_size: the largest number of rows and columns of a tile, for blockwise and ring. Default: 1024, 4096 on GPUs.
      precision: of the products, see `similarities`.

    Returns:
      [m] float32 (float64 for float64 input); 0 for an anchor without a negative.

    Raises:
      ValueError: as `logsumexp`.

    Example:
      >>> pairwise.total(jnp.square, jnp.eye(2), jnp.ones((3, 2)))
      Array([3., 3.], dtype=float32)
    """
    if implementation is None:  # the kernels take no function that closes over arrays
        implementation = shared.choose_implementation(None, len(anchors), len(candidates), axis_name)
    engine, candidates, options = _reductions.prepare(
        "pairwise.total",
        anchors,
        candidates,
        anchor_ids,
        candidate_ids,
        axis_name,
        implementation,
        block_size,
        precision,
    )
    return engine.sum_over_negatives(fn, anchors, candidates, **options)


@explicit_axes.accept(out_axis=0)
def totals(
    fn: Elementwise,
    views: Sequence[jax.Array],
    pairs: Sequence[tuple[int, int]],
    *,
    ids: ArrayLike,
    offset: jax.Array | None = None,
    axis_name: spmd.AxisName = None,
    implementation: str | None = None,
    block_size: int | None = None,
    precision: Precision = "highest",
) -> list[jax.Array]:
    r"""Sums over negatives of a function of the similarity, for several pairs of views.

    .. math::
        y^{ab}_i = \sum_{j : \mathrm{id}_j \ne \mathrm{id}_i} \mathrm{fn}(x_{ia}^\top x_{jb} + \mathrm{offset}_i)

    with x_ia the embedding of view a of instance i. Each is `total` of its two views. Blockwise and ring add the
    gradients of all of them in one array for each view; where (a, b) and (b, a) both are summed they share a matrix.

    Args:
      fn: elementwise function of the similarity, as in `total`.
      views: a sequence of [m, d], one for each view, of one float dtype; used as they are (see `normalize`).
      pairs: (a, b) for each sum: the anchors are of view a, their negatives of view b. a may be b.
      ids: [m] int instance ids.
      offset: [m] float, added to all similarities of an anchor of this instance, in full precision. Default: 0.
      axis_name: compare against the embeddings of all devices along this mapped axis.
      implementation: as in `total`.
      block_size: the largest number of rows and columns of a tile, for blockwise and ring. Default: 1024, 4096 on GPUs.
      precision: of the products, see `similarities`.

    Returns:
      A list of [m] for each of the pairs, float32 (float64 for float64 input); 0 for an anchor without a negative.

    Raises:
      ValueError: as `total`, for views of different shapes, or an offset of another shape.

    Example:
      >>> views = [jnp.eye(2), jnp.ones((2, 2))]
      >>> cross, within = pairwise.totals(jnp.square, views, [(0, 1), (0, 0)], ids=jnp.arange(2))
      >>> cross
      Array([1., 1.], dtype=float32)
    """
    function = "pairwise.totals"
    _arguments.check_views(function, views, axis_name, implementation, block_size)
    ids = shared.check_ids(function, "ids", ids, views[0].shape[:1])
    if offset is not None:
        if offset.shape != ids.shape:
            raise ValueError(f"{function}: expected an offset of shape {ids.shape}, got {offset.shape}.")
        offset = offset.astype(shared.accumulation_dtype(views[0].dtype))
    algorithm = _products.resolve(function, precision, views[0])
    implementation = shared.choose_implementation(implementation, len(ids), len(ids), axis_name)
    options: dict[str, Any] = {"algorithm": algorithm}
    if implementation in ("blockwise", "ring"):
        options |= {"axis_name": axis_name, "block_size": block_size or shared.block_size(), "offset": offset}
        return _blockwise.totals(fn, views, pairs, ids=ids, travel=implementation == "ring", **options)
    everyone, all_ids = [spmd.gather(x, axis_name) for x in views], spmd.gather(ids, axis_name)
    options |= {"anchor_ids": ids, "candidate_ids": all_ids}
    if implementation == "dense":
        options["offset"] = offset
        return [_dense.sum_over_negatives(fn, views[a], everyone[b], **options) for a, b in pairs]
    options |= {"axis_name": None, "block_size": shared.block_size(), "fused": True}
    sides = [(views[a], everyone[b]) for a, b in pairs]
    if offset is not None:  # the kernels know no offsets
        sides = [_products.with_offset(*side, offset, algorithm) for side in sides]
    return [_blockwise.sum_over_negatives(fn, *side, **options) for side in sides]
