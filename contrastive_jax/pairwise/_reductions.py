"""The public log-sum-exps: check the arguments, gather the candidates, choose an implementation."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from contrastive_jax import explicit_axes, spmd
from contrastive_jax.pairwise import _arguments, _blockwise, _dense, _fused, _products, shared
from contrastive_jax.pairwise._products import Precision


@explicit_axes.accept(out_axis=0)
def logsumexp(
    anchors: jax.Array,
    candidates: jax.Array,
    *,
    scale: float | jax.Array = 1.0,
    anchor_ids: ArrayLike | None = None,
    candidate_ids: ArrayLike | None = None,
    axis_name: spmd.AxisName = None,
    implementation: str | None = None,
    block_size: int | None = None,
    precision: Precision = "highest",
) -> jax.Array:
    r"""Log-sum-exp of each anchor's scaled similarities to its negatives.

    .. math:: y_i = \log \sum_{j : \mathrm{id}_j \ne \mathrm{id}_i} \exp(\mathrm{scale} \cdot a_i^\top c_j)

    Args:
      anchors: [m, d], any float dtype; used as they are (see `normalize`).
      candidates: [n, d]. Under `axis_name`, each device's own part of them.
      scale: scalar, usually one over the temperature; may be traced.
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
        has at least a tile of candidates, else blockwise, or pallas where that is known to be faster: alone on an H100
        or H200, at another precision than "highest", from 2^28 entries.
      block_size: the largest number of rows and columns of a tile, for blockwise and ring. Default: 1024, 4096 on GPUs.
      precision: of the products, see `similarities`.

    Returns:
      [m] float32 (float64 for float64 input); -inf, with a zero gradient, for an anchor without a negative.

    Raises:
      ValueError: at trace time, for shapes that do not fit, one kind of ids without the other, NumPy ids that JAX's
        integers do not hold, an unknown implementation or precision, ring without an axis name, or a block_size that is
        below 1 or given to dense or pallas.

    Example:
      >>> anchors = jnp.eye(3)
      >>> pairwise.logsumexp(anchors, anchors, anchor_ids=jnp.arange(3), candidate_ids=jnp.arange(3))
      Array([0.6931472, 0.6931472, 0.6931472], dtype=float32)
    """
    engine, candidates, options = prepare(
        "pairwise.logsumexp",
        anchors,
        candidates,
        anchor_ids,
        candidate_ids,
        axis_name,
        implementation,
        block_size,
        precision,
    )
    return engine.logsumexp(anchors, candidates, scale=scale, **options)


@explicit_axes.accept(out_axis=0)
def logsumexp_over_views(
    views: Sequence[jax.Array],
    *,
    scale: float | jax.Array = 1.0,
    ids: ArrayLike,
    axis_name: spmd.AxisName = None,
    implementation: str | None = None,
    block_size: int | None = None,
    precision: Precision = "highest",
) -> list[jax.Array]:
    r"""Log-sum-exp of each embedding's similarities to those of other instances, in all views.

    .. math::
        y_{ia} = \log \sum_b \sum_{j : \mathrm{id}_j \ne \mathrm{id}_i} \exp(\mathrm{scale} \cdot x_{ia}^\top x_{jb})

    with x_ia the embedding of view a of instance i. It is `logsumexp` of the views joined into one array; where
    blockwise runs on one device, no such array is stored.

    Args:
      views: a sequence of [m, d], one for each view, of one float dtype; used as they are (see `normalize`).
      scale: scalar, usually one over the temperature; may be traced.
      ids: [m] int instance ids.
      axis_name: compare against the embeddings of all devices along this mapped axis.
      implementation: as in `logsumexp`.
      block_size: the largest number of rows and columns of a tile, for blockwise and ring. Default: 1024, 4096 on GPUs.
      precision: of the products, see `similarities`.

    Returns:
      A list of [m] for each view, float32 (float64 for float64 input); -inf, with a zero gradient, for an embedding
      without a negative.

    Raises:
      ValueError: as `logsumexp`, or for views of different shapes.

    Example:
      >>> of_u, of_v = pairwise.logsumexp_over_views([jnp.eye(3), jnp.eye(3)], ids=jnp.arange(3))
      >>> of_u
      Array([1.3862944, 1.3862944, 1.3862944], dtype=float32)
    """
    function = "pairwise.logsumexp_over_views"
    _arguments.check_views(function, views, axis_name, implementation, block_size)
    ids = shared.check_ids(function, "ids", ids, views[0].shape[:1])
    algorithm = _products.resolve(function, precision, views[0])
    rows, size = len(views) * len(views[0]), block_size or shared.block_size()
    implementation = _choose(implementation, rows, rows, views[:1], axis_name, algorithm)
    if implementation == "dense":
        numbered = {"anchor_ids": ids, "candidate_ids": spmd.gather(ids, axis_name)}
        everyone = views if spmd.axis_size(axis_name) == 1 else [spmd.gather(x, axis_name) for x in views]
        return _dense.logsumexp_over_views(views, everyone, scale=scale, algorithm=algorithm, **numbered)
    if implementation == "blockwise" and axis_name is None and rows > size:
        return _blockwise.logsumexp_over_views(views, scale=scale, ids=ids, algorithm=algorithm, block_size=size)
    joined, all_ids = jnp.concatenate(views), jnp.concatenate([ids] * len(views))
    options: dict[str, Any] = {
        "axis_name": axis_name,
        "implementation": implementation,
        "block_size": block_size,
        "precision": precision,
    }
    y = logsumexp(joined, joined, scale=scale, anchor_ids=all_ids, candidate_ids=all_ids, **options)
    return jnp.split(y, len(views))


@explicit_axes.accept(out_axis=0)
def logsumexp_both_ways(
    anchors: jax.Array,
    candidates: jax.Array,
    *,
    scale: float | jax.Array = 1.0,
    anchor_ids: ArrayLike | None = None,
    candidate_ids: ArrayLike | None = None,
    axis_name: spmd.AxisName = None,
    implementation: str | None = None,
    block_size: int | None = None,
    precision: Precision = "highest",
) -> tuple[jax.Array, jax.Array]:
    r"""Log-sum-exp of each anchor's similarities to its negatives, and of each candidate's, from one matrix.

    .. math:: y_i = \log \sum_{j : \mathrm{id}_j \ne \mathrm{id}_i} \exp(\mathrm{scale} \cdot a_i^\top c_j), \quad
              z_j = \log \sum_{i : \mathrm{id}_i \ne \mathrm{id}_j} \exp(\mathrm{scale} \cdot a_i^\top c_j)

    These are `logsumexp(anchors, candidates)` and `logsumexp(candidates, anchors)` in half the products: the matrix is
    formed once, and once again in the backward pass of blockwise and ring.

    Args:
      anchors: [m, d], any float dtype; used as they are (see `normalize`). Under `axis_name`, each device's own part.
      candidates: [n, d]. Under `axis_name`, each device's own part of them.
      scale: scalar, usually one over the temperature; may be traced.
      anchor_ids: [m] int instance ids of the anchors.
      candidate_ids: [n] int instance ids of the candidates; equal ids are never each other's negatives. Without ids
        all are negatives.
      axis_name: compare the anchors and candidates of all devices along this mapped axis.
      implementation: as in `logsumexp`. Across devices, dense forms its own rows and its own columns of the matrix.
      block_size: the largest number of rows and columns of a tile, for blockwise and ring. Default: 1024, 4096 on GPUs.
      precision: of the products, see `similarities`.

    Returns:
      (y [m], z [n]) in float32 (float64 for float64 input); -inf, with a zero gradient, where there is no negative.

    Raises:
      ValueError: as `logsumexp`.

    Example:
      >>> y, z = pairwise.logsumexp_both_ways(jnp.eye(2), jnp.ones((3, 2)))
      >>> y.shape, z.shape
      ((2,), (3,))
    """
    function = "pairwise.logsumexp_both_ways"
    _arguments.check(function, anchors, candidates, axis_name, implementation, block_size)
    ids = _arguments.check_ids(function, anchors, candidates, anchor_ids, candidate_ids)
    algorithm = _products.resolve(function, precision, anchors, candidates)
    sizes = len(anchors), len(candidates)
    implementation = _choose(implementation, *sizes, (anchors, candidates), axis_name, algorithm)
    options: dict[str, Any] = {"scale": scale, "anchor_ids": ids[0], "candidate_ids": ids[1], "algorithm": algorithm}
    if implementation != "dense":
        return _blockwise.logsumexp_both_ways(
            anchors,
            candidates,
            axis_name=axis_name,
            travel=implementation == "ring",
            block_size=block_size or shared.block_size(),
            fused=implementation == "pallas",
            **options,
        )
    if spmd.axis_size(axis_name) == 1:
        return _dense.logsumexp_both_ways(anchors, candidates, **options)
    everyone, all_ids = zip(
        *(_arguments.gather(*side, axis_name) for side in ((anchors, ids[0]), (candidates, ids[1]))), strict=True
    )
    y, z = (
        {**options, "anchor_ids": ids[0], "candidate_ids": all_ids[1]},
        {**options, "anchor_ids": ids[1], "candidate_ids": all_ids[0]},
    )
    return _dense.logsumexp(anchors, everyone[1], **y), _dense.logsumexp(candidates, everyone[0], **z)


def _choose(
    implementation: str | None,
    m: int,
    n: int,
    rows: Sequence[jax.Array],
    axis_name: spmd.AxisName,
    algorithm: _products.Algorithm,
) -> str:
    """The implementation that None stands for; kernels in place of "blockwise" where they are known to pay."""
    chosen = shared.choose_implementation(implementation, m, n, axis_name)
    return (
        "pallas" if implementation is None and chosen == "blockwise" and _fused.pays(algorithm, m, n, rows) else chosen
    )


def prepare(
    function: str,
    anchors: jax.Array,
    candidates: jax.Array,
    anchor_ids: ArrayLike | None,
    candidate_ids: ArrayLike | None,
    axis_name: spmd.AxisName,
    implementation: str | None,
    block_size: int | None,
    precision: Precision,
) -> tuple[Any, jax.Array, dict[str, Any]]:
    """The engine that computes, the candidates, gathered unless they travel, and the engine's other arguments."""
    _arguments.check(function, anchors, candidates, axis_name, implementation, block_size)
    ids = _arguments.check_ids(function, anchors, candidates, anchor_ids, candidate_ids)
    algorithm = _products.resolve(function, precision, anchors, candidates)
    sizes = len(anchors), len(candidates)
    implementation = _choose(implementation, *sizes, (anchors, candidates), axis_name, algorithm)
    travel = implementation == "ring"
    if not travel:
        candidates, everyone = _arguments.gather(candidates, ids[1], axis_name)
        ids = ids[0], everyone
    options: dict[str, Any] = {"anchor_ids": ids[0], "candidate_ids": ids[1], "algorithm": algorithm}
    if implementation == "dense":
        return _dense, candidates, options
    options |= {
        "axis_name": axis_name if travel else None,
        "block_size": block_size or shared.block_size(),
        "fused": implementation == "pallas",
    }
    return _blockwise, candidates, options
