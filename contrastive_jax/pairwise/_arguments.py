"""Checks of the arguments that the reductions share, before anything is computed."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from contrastive_jax import spmd
from contrastive_jax.pairwise import shared


def gather(rows: jax.Array, ids: jax.Array | None, axis_name: spmd.AxisName) -> tuple[jax.Array, jax.Array | None]:
    """The rows and ids of all devices."""
    return spmd.gather(rows, axis_name), None if ids is None else spmd.gather(ids, axis_name)


def check(
    function: str,
    anchors: jax.Array,
    candidates: jax.Array,
    axis_name: spmd.AxisName,
    implementation: str | None,
    block_size: int | None,
) -> None:
    """Refuse shapes, dtypes and options that do not fit."""
    if anchors.ndim != 2 or candidates.ndim != 2 or anchors.shape[1] != candidates.shape[1]:
        raise ValueError(
            f"{function}: expected anchors [m, d] and candidates [n, d], "
            f"got shapes {anchors.shape} and {candidates.shape}."
        )
    if not jnp.issubdtype(anchors.dtype, jnp.floating) or not jnp.issubdtype(candidates.dtype, jnp.floating):
        raise ValueError(
            f"{function}: expected anchors and candidates of a float dtype, got {anchors.dtype} and {candidates.dtype}."
        )
    shared.check_implementation(function, implementation, axis_name, known=shared.REDUCTIONS)
    if block_size is not None and (block_size < 1 or implementation in ("dense", "pallas")):
        raise ValueError(
            f"{function}: expected a block_size of at least 1, for implementation 'blockwise' or 'ring', "
            f"got {block_size} with {implementation!r}."
        )


def check_views(
    function: str,
    views: Sequence[jax.Array],
    axis_name: spmd.AxisName,
    implementation: str | None,
    block_size: int | None,
) -> None:
    """`check`, for views of one shape and dtype."""
    if len({(x.shape, x.dtype) for x in views}) != 1:
        got = ", ".join(f"{x.dtype} of {x.shape}" for x in views) or "none"
        raise ValueError(f"{function}: expected one or more views of the same shape [m, d] and dtype, got {got}.")
    check(function, views[0], views[0], axis_name, implementation, block_size)


def check_ids(
    function: str,
    anchors: jax.Array,
    candidates: jax.Array,
    anchor_ids: ArrayLike | None,
    candidate_ids: ArrayLike | None,
) -> tuple[jax.Array | None, jax.Array | None]:
    """Both ids in a dtype that holds all their values; the same array where they are given as the same array."""
    if anchor_ids is None and candidate_ids is None:
        return None, None
    if anchor_ids is None or candidate_ids is None:
        missing = "anchor_ids" if anchor_ids is None else "candidate_ids"
        raise ValueError(f"{function}: expected both anchor_ids and candidate_ids, or neither, got no {missing}.")
    a = shared.check_ids(function, "anchor_ids", anchor_ids, anchors.shape[:1])
    if candidate_ids is anchor_ids and len(anchors) == len(candidates):
        return a, a
    c = shared.check_ids(function, "candidate_ids", candidate_ids, candidates.shape[:1])
    common = np.promote_types(a.dtype, c.dtype)
    if not np.issubdtype(common, np.integer) or jax.dtypes.canonicalize_dtype(common) != common:
        raise ValueError(
            f"{function}: expected anchor_ids and candidate_ids of dtypes that one integer dtype holds, "
            f"got {a.dtype} and {c.dtype}; convert both to int32."
        )
    return a.astype(common), c.astype(common)
