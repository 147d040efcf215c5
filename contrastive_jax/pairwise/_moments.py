"""Sums of similarities and of their squares over all negatives, without forming the similarities.

A sum over all candidates of s and of s^2 needs only their mean and their scatter about it, a [d] and a [d, d] array.
Candidates that are no negatives are subtracted pair by pair. They are found by sorting the ids, not by comparing all.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from contrastive_jax import explicit_axes, sequential, spmd
from contrastive_jax.pairwise import _arguments, _products, _totals, shared
from contrastive_jax.pairwise._products import Algorithm, Precision

_CHUNK = 4096  # rows of one product: the products are summed, so that float32 stays exact for a million rows
_FEW = 4  # candidates of an anchor's own id that are subtracted one by one


Pair = tuple[jax.Array, jax.Array]


class Moments(NamedTuple):
    """Sums over the negatives of each anchor."""

    number: jax.Array  # [m], how many negatives
    total: jax.Array  # [m], the sum of s - shift
    squares: jax.Array  # [m], the sum of (s - shift)^2


@explicit_axes.accept(out_axis=0)
def moments(
    anchors: jax.Array,
    candidates: jax.Array,
    *,
    shift: float | jax.Array = 0.0,
    anchor_ids: ArrayLike | None = None,
    candidate_ids: ArrayLike | None = None,
    paired: bool = False,
    axis_name: spmd.AxisName = None,
    precision: Precision = "highest",
) -> Moments:
    r"""First and second moment of each anchor's similarities to its negatives, in time linear in their number.

    .. math:: \sum_j (a_i^\top c_j - t)^2 = n (a_i^\top \bar c - t)^2 + a_i^\top W a_i, \qquad
        W = \sum_j (c_j - \bar c)(c_j - \bar c)^\top

    where the sums are over all n candidates; candidates of the anchor's id are then subtracted. Time is O((m + n) d^2),
    memory O(m d), and devices exchange the sums of one vector and one [d, d] matrix, and ids, but no embeddings. Where
    an anchor shares its id with more than four candidates, or with one of another device, the pairs are compared after
    all, as `total` does.

    The error of `squares` is a rounding of the sum over *all* candidates, positives included. If there are at least 2d
    candidates, spread as the anchors are, at least half of that sum is the negatives' (Welch's bound), and the error is
    that of `total`.

    Args:
      anchors: [m, d], any float dtype; used as they are (see `normalize`).
      candidates: [n, d]. Under `axis_name`, each device's own part of them.
      shift: scalar t, subtracted from each similarity; may be traced.
      anchor_ids: [m] int instance ids of the anchors.
      candidate_ids: [n] int instance ids of the candidates; a candidate with the id of an anchor is not its negative.
        Without ids every candidate is a negative.
      paired: in place of ids that all differ: candidate i is no negative of anchor i, and all others are.
      axis_name: compare against the candidates of all devices along this mapped axis.
      precision: of the products with a [d, d] matrix, or with all candidates; see `similarities`. The means are exact.

    Returns:
      `Moments` of [m] float32 (float64 for float64 input), 0 for an anchor without a negative.

    Raises:
      ValueError: as `total`; paired together with ids, or where m and n differ.

    Example:
      >>> anchors = jnp.eye(3)
      >>> found = pairwise.moments(anchors, anchors + 1, paired=True)
      >>> float(found.number[0]), round(float(found.squares[0]), 4)
      (2.0, 2.0)

    References:
      Welch, 1974, Lower bounds on the maximum cross correlation of signals: the mean of all s^2 is at least 1/d.
    """
    _arguments.check("pairwise.moments", anchors, candidates, axis_name, None, None)
    ids = _arguments.check_ids("pairwise.moments", anchors, candidates, anchor_ids, candidate_ids)
    algorithm = _products.resolve("pairwise.moments", precision, anchors, candidates)
    dtype = shared.accumulation_dtype(anchors.dtype, candidates.dtype)
    anchors, candidates, shift = (jnp.asarray(x, dtype) for x in (anchors, candidates, shift))
    if paired and (ids[0] is not None or len(anchors) != len(candidates)):
        raise ValueError(
            f"pairwise.moments: expected paired anchors and candidates of the same number and without ids, got "
            f"{len(anchors)} and {len(candidates)}{'' if ids[0] is None else ' with ids'}."
        )
    if ids[0] is None or ids[1] is None:
        everyone = _over_all(anchors, candidates, shift, axis_name, algorithm)
        return _subtract_partners(everyone, anchors, candidates, shift) if paired else everyone
    runs = _find_runs(ids[0], ids[1])
    others = spmd.gather(ids[1], axis_name)
    equal = runs.length if axis_name is None else _find_runs(ids[0], others).length
    is_linear = jnp.all((equal == runs.length) & (equal <= _FEW))
    agreed = spmd.pmax((~is_linear).astype(jnp.int32), axis_name) == 0  # all devices take the same branch

    def subtract() -> list[jax.Array]:
        everyone = _over_all(anchors, candidates, shift, axis_name, algorithm)
        return spmd.vary_alike([*_subtract_runs(everyone, runs, anchors, candidates, shift), anchors, candidates])[:2]

    def compare() -> list[jax.Array]:
        options: dict[str, Any] = {"anchor_ids": ids[0], "candidate_ids": ids[1], "axis_name": axis_name}
        functions = (lambda s: s - shift), (lambda s: jnp.square(s - shift))
        sums = [_totals.total(fn, anchors, candidates, precision=precision, **options) for fn in functions]
        return spmd.vary_alike([*sums, anchors, candidates])[:2]

    total, squares = lax.cond(sequential.all_agree(agreed), subtract, compare)
    return Moments(len(others) - equal.astype(dtype), total, squares)


def _over_all(
    anchors: jax.Array, candidates: jax.Array, shift: jax.Array, axis_name: spmd.AxisName, algorithm: Algorithm
) -> Moments:
    """The moments over all candidates of all devices."""
    n = len(candidates) * spmd.axis_size(axis_name)
    center = spmd.psum(_sum_rows(candidates), axis_name) / n
    scatter = spmd.psum(_scatter(algorithm, candidates, center), axis_name)
    # The mean is squared and counts for all: its product, which costs nothing, is exact whatever the precision.
    offset = _products.similarities(anchors, center[None])[:, 0] - shift
    spread = jnp.sum(_products.inner(anchors, scatter, algorithm) * anchors, axis=-1)
    return Moments(jnp.full_like(offset, n), n * offset, n * jnp.square(offset) + spread)


def _sum_rows(x: jax.Array) -> jax.Array:
    return jnp.sum(jnp.sum(shared.fill_blocks(x, min(len(x), _CHUNK)), axis=1), axis=0)


@partial(jax.checkpoint, static_argnums=0)  # otherwise a gradient stores the rows about their mean
def _scatter(algorithm: Algorithm, x: jax.Array, center: jax.Array) -> jax.Array:
    """The sum of (x_j - center)(x_j - center)^T, [d, d]."""
    blocks = shared.fill_blocks(x - center[None], min(len(x), _CHUNK))
    return jnp.sum(jax.vmap(lambda block: _products.inner(block.T, block.T, algorithm))(blocks), axis=0)


class _Runs(NamedTuple):
    """The candidates of each anchor's own id: a run of the candidates in the order of their ids."""

    order: jax.Array  # [n], the candidates by id
    start: jax.Array  # [m], of the anchor's run
    length: jax.Array  # [m]
    partner: jax.Array  # [m], the anchor's own place, if the candidate there is in its run; else -1


def _find_runs(anchor_ids: jax.Array, candidate_ids: jax.Array) -> _Runs:
    order = jnp.argsort(candidate_ids)
    start, stop = (jnp.searchsorted(candidate_ids[order], anchor_ids, side=side) for side in ("left", "right"))
    partner = jnp.full(len(anchor_ids), -1, order.dtype)
    if len(anchor_ids) == len(candidate_ids):
        partner = jnp.where(anchor_ids == candidate_ids, jnp.arange(len(anchor_ids), dtype=order.dtype), partner)
    return _Runs(order, start, stop - start, partner)


def _subtract_runs(
    everyone: Moments, runs: _Runs, anchors: jax.Array, candidates: jax.Array, shift: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Total and squares less those of each anchor's run, of at most `_FEW` candidates."""

    def subtract(so_far: Pair, s: jax.Array) -> Pair:
        return so_far[0] - s, so_far[1] - jnp.square(s)

    @jax.checkpoint  # otherwise a gradient stores what it gathers, even where nothing is
    def subtract_others(so_far: Pair) -> Pair:
        for k in range(_FEW):
            j = runs.order[jnp.minimum(runs.start + k, len(candidates) - 1)]
            s = jnp.sum(anchors * candidates[j], axis=-1) - shift
            so_far = subtract(so_far, jnp.where((k < runs.length) & (j != runs.partner), s, 0))
        return so_far

    left = everyone.total, everyone.squares
    if len(anchors) == len(candidates):  # the candidate at the anchor's own place needs no gather
        s = jnp.sum(anchors * candidates, axis=-1) - shift
        left = subtract(left, jnp.where(runs.partner >= 0, s, 0))
    has_others = jnp.any(runs.length > (runs.partner >= 0).astype(runs.length.dtype))
    left = lax.cond(sequential.all_agree(~has_others), lambda x: x, subtract_others, left)
    return left[0], _clip_below_zero(left[1])


def _subtract_partners(everyone: Moments, anchors: jax.Array, candidates: jax.Array, shift: jax.Array) -> Moments:
    s = jnp.sum(anchors * candidates, axis=-1) - shift
    return Moments(everyone.number - 1, everyone.total - s, _clip_below_zero(everyone.squares - jnp.square(s)))


def _clip_below_zero(x: jax.Array) -> jax.Array:
    """A sum of squares that rounding has made negative is 0; a NaN stays one."""
    return jnp.where(x < 0, 0, x)
