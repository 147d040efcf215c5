"""The distribution of the similarities of a contrast set: every pair counted once, in parts that merge exactly."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from contrastive_jax import explicit_axes, pairwise, spmd
from contrastive_jax.metrics import _words
from contrastive_jax.pairwise import shared

MAX_NARROW = 2**32  # pairs of pairs that one uint32 counts


class PairSimilarities(NamedTuple):
    """Cosine similarities of one kind of pair.

    A set without pairs is the identity of `merge`: count 0, mean 0, variance 0, least inf, greatest -inf.
    """

    counts: (
        Any  # [num_bins] uint32, equal bins over [-1, 1]; [2, num_bins] in two words (see `similarity_distribution`)
    )
    count: Any  # [] uint32; [2] in two words
    mean: Any  # [] float32
    variance: Any  # [] float32, of the pairs counted (divided by count)
    least: Any  # [] float32
    greatest: Any  # [] float32


class SimilarityDistribution(NamedTuple):
    """Similarities of the three kinds of pair of a contrast set."""

    positive: PairSimilarities  # (u_i, v_i)
    cross_view: PairSimilarities  # (u_i, v_j), i != j
    within_view: PairSimilarities  # (u_i, u_j) and (v_i, v_j), i < j


def similarity_edges(num_bins: int) -> np.ndarray:
    """Edges [num_bins + 1] of the bins of a `SimilarityDistribution`, float64."""
    return np.linspace(-1.0, 1.0, num_bins + 1)


@explicit_axes.accept(out_axis=None)
def similarity_distribution(
    u: jax.Array,
    v: jax.Array,
    *,
    num_bins: int = 100,
    ids: ArrayLike | None = None,
    axis_name: spmd.AxisName = None,
    implementation: str | None = None,
) -> SimilarityDistribution:
    r"""Distribution of the cosine similarities of positive, cross-view and within-view pairs.

    Of m pairs it counts m positives, m(m-1) cross-view negatives (u_i, v_j), and m(m-1)/2 within-view negatives in
    each view, each exactly once on any number of devices. A NaN similarity is counted but falls into no bin, and makes
    the moments, least and greatest of its kind NaN.

    Counts are uint32. Of more than 65,536 pairs over all devices they are 64 bits in two words, (low, high) along an
    axis before the bins; `to_host` makes NumPy arrays of uint64 of either form.

    Args:
      u: [m, d] embeddings of one view, any float dtype; normalised inside. Under `axis_name`, this device's share.
      v: [m, d] embeddings of the other view.
      num_bins: number of equal bins over [-1, 1].
      ids: [m] int instance ids; pairs with equal ids are not negatives and are not counted. Default: all differ.
      axis_name: count over the embeddings of all devices along this mapped axis; every device gets the same answer.
      implementation: `"dense"` stores the [m, n] matrices, with n the pairs of all devices; `"blockwise"` about 2^20 of
        their entries at a time. `"ring"` needs an axis name and gathers nothing: the pairs travel round the devices.
        None chooses as `pairwise.logsumexp` does.

    Returns:
      A `SimilarityDistribution`; carries no gradient.

    Raises:
      ValueError: for shapes that differ, num_bins < 1, or an unknown implementation.

    Example:
      >>> u = jax.random.normal(jax.random.key(0), (8, 16))
      >>> d = metrics.similarity_distribution(u, u)
      >>> int(d.positive.count), int(d.cross_view.count), int(d.within_view.count)
      (8, 56, 56)

    References:
      Lee et al., 2025, Section 5; the variance of the cross-view kind is that of their Table 1.
    """
    _check(u, v, num_bins, axis_name, implementation)
    u, v = lax.stop_gradient((pairwise.normalize(u), pairwise.normalize(v)))
    m = u.shape[0]
    position = spmd.axis_index(axis_name) * m + jnp.arange(m, dtype=jnp.int32)
    if ids is not None:
        ids = shared.check_ids("metrics.similarity_distribution", "ids", ids, (m,))
    own = _Pairs(u, v, position if ids is None else ids, position, jnp.ones(m, bool))
    implementation = shared.choose_implementation(implementation, m, m, axis_name)
    is_wide = (m * spmd.axis_size(axis_name)) ** 2 > MAX_NARROW
    positive = _describe(jnp.sum(own.u * own.v, axis=-1)[:, None], jnp.ones((m, 1), bool), num_bins)
    negative = _negatives(own, num_bins, implementation, axis_name, is_wide)
    local = SimilarityDistribution(_widen(positive) if is_wide else positive, *negative)
    return local if axis_name is None else merge_devices(local, axis_name)


class _Pairs(NamedTuple):
    u: jax.Array  # [m, d], unit norm
    v: jax.Array  # [m, d]
    ids: jax.Array  # [m]
    position: jax.Array  # [m], among all devices' pairs
    exists: jax.Array  # [m]; False for the padding of the last block


def _negatives(
    own: _Pairs, num_bins: int, implementation: str, axis_name: spmd.AxisName, is_wide: bool
) -> tuple[PairSimilarities, PairSimilarities]:
    """Cross-view and within-view similarities of this device's pairs with those of all devices."""
    travel = implementation == "ring"
    own = _Pairs(*spmd.vary_alike(own))
    others = own if travel else jax.tree.map(lambda x: spmd.gather(x, axis_name), own)
    m = len(own.u)
    most = MAX_NARROW // 2 if implementation == "dense" else shared.DENSE_ENTRIES  # entries of one count
    rows = min(m, max(1, most // len(others.u)))

    def with_shard(so_far: Any, shard: _Pairs) -> Any:
        some = _of_blocks(own, shard, num_bins, rows, is_wide)
        return _merge_each(jax.tree.map(lambda *xs: jnp.stack(xs), so_far, some), *_OF_A_STACK)

    none = jax.tree.map(lambda x: spmd.vary_alike((x, own.u))[0], (_no_pairs(num_bins, own.u.dtype, is_wide),) * 2)
    if travel:
        return spmd.ring(with_shard, none, others, axis_name)
    return _of_blocks(own, others, num_bins, rows, is_wide)


def _of_blocks(
    own: _Pairs, others: _Pairs, num_bins: int, rows: int, is_wide: bool
) -> tuple[PairSimilarities, PairSimilarities]:
    """Similarities of the pairs of `own` with `others`, so many rows at a time."""
    if rows == len(own.u):
        return _of_rows(own, others, num_bins, is_wide)
    blocks = jax.tree.map(lambda x: shared.fill_blocks(x, rows), own)
    stacked = lax.map(lambda some: _of_rows(some, others, num_bins, is_wide), blocks)
    return _merge_each(stacked, *_OF_A_STACK)


def _of_rows(own: _Pairs, others: _Pairs, num_bins: int, is_wide: bool) -> tuple[PairSimilarities, PairSimilarities]:
    exists = own.exists[:, None]
    different = exists & (own.ids[:, None] != others.ids[None, :])
    once = different & (own.position[:, None] < others.position[None, :])
    within = [pairwise.similarities(own.u, others.u), pairwise.similarities(own.v, others.v)]
    found = (
        _describe(pairwise.similarities(own.u, others.v), different, num_bins),
        _describe(jnp.concatenate(within), jnp.concatenate([once, once]), num_bins),
    )
    return (_widen(found[0]), _widen(found[1])) if is_wide else found


def _widen(pairs: PairSimilarities) -> PairSimilarities:
    return pairs._replace(counts=_words.widen(pairs.counts, -2), count=_words.widen(pairs.count, -1))


def _is_wide(pairs: PairSimilarities) -> bool:
    return bool(np.ndim(pairs.count) > np.ndim(pairs.mean))


def merge(stacked: SimilarityDistribution, *, max_pairs: int = 0) -> SimilarityDistribution:
    """Combine distributions stacked along a leading axis into that of all their pairs together.

    Counts add up exactly; moments combine to rounding, without cancellation. Works on JAX arrays, and on NumPy arrays,
    whose counts are then held in 64 bits (see `to_host`).

    Args:
      stacked: a distribution each of whose leaves has an extra leading axis, e.g. the output of a `vmap`.
      max_pairs: the pairs of pairs of all parts together, if they may be more than 2^32: counts of JAX arrays are then
        two words in the result.

    Returns:
      The same without that axis.

    Example:
      >>> u = jax.random.normal(jax.random.key(0), (4, 8, 16))
      >>> merged = metrics.merge(jax.vmap(metrics.similarity_distribution)(u, u))
      >>> int(merged.positive.count)
      32
    """
    if max_pairs > MAX_NARROW:
        stacked = SimilarityDistribution(*(pairs if _is_wide(pairs) else _widen(pairs) for pairs in stacked))
    return _merge_each(stacked, *_OF_A_STACK)


def to_host(distribution: SimilarityDistribution) -> SimilarityDistribution:
    """A distribution as NumPy arrays, with every count as uint64.

    Example:
      >>> d = metrics.to_host(metrics.similarity_distribution(jnp.eye(3), jnp.eye(3)))
      >>> int(d.cross_view.count), d.cross_view.counts.dtype
      (6, dtype('uint64'))
    """

    def one(pairs: PairSimilarities) -> PairSimilarities:
        pairs, is_wide = jax.tree.map(np.asarray, pairs), _is_wide(pairs)
        counts, count = (
            _words.to_uint64(x, axis) if is_wide else x.astype(np.uint64)
            for x, axis in ((pairs.counts, -2), (pairs.count, -1))
        )
        return pairs._replace(counts=counts, count=count)

    return SimilarityDistribution(*map(one, distribution))


def merge_devices(distribution: SimilarityDistribution, axis_name: spmd.AxisName) -> SimilarityDistribution:
    """Combine each device's distribution into that of all devices along `axis_name`, the same on each."""
    return _merge_each(
        distribution,
        lambda x: lax.psum(x, axis_name),
        lambda x: lax.pmin(x, axis_name),
        lambda x: lax.pmax(x, axis_name),
    )


def select(distribution: SimilarityDistribution, keep: jax.Array) -> SimilarityDistribution:
    """The distribution where `keep` (scalar bool) holds, else that of no pairs at all."""

    def one(pairs: PairSimilarities) -> PairSimilarities:
        none = _no_pairs(pairs.counts.shape[-1], pairs.mean.dtype, _is_wide(pairs))
        return jax.tree.map(lambda x, empty: jnp.where(keep, x, empty), pairs, none)

    return SimilarityDistribution(*map(one, distribution))


def _no_pairs(num_bins: int, dtype: jnp.dtype, is_wide: bool) -> PairSimilarities:
    moments = (jnp.asarray(x, dtype) for x in (0, 0, jnp.inf, -jnp.inf))
    none = PairSimilarities(jnp.zeros(num_bins, jnp.uint32), jnp.uint32(0), *moments)
    return _widen(none) if is_wide else none


_OF_A_STACK = (lambda x: x.sum(axis=0), lambda x: x.min(axis=0), lambda x: x.max(axis=0))


def _merge_each(
    kinds: Any, add: Callable[[Any], Any], least: Callable[[Any], Any], greatest: Callable[[Any], Any]
) -> Any:
    """Merge every `PairSimilarities` of a tuple; the functions sum and find the extremes over the parts."""

    def one(pairs: PairSimilarities) -> PairSimilarities:
        if _is_wide(pairs):
            weight = _words.to_float(pairs.count, pairs.mean.dtype, -1)
            count, counts = _words.add_words(pairs.count, add, -1), _words.add_words(pairs.counts, add, -2)
        else:
            weight, count, counts = pairs.count.astype(pairs.mean.dtype), add(pairs.count), add(pairs.counts)
        divisor = add(weight).clip(1)
        mean = add(weight * pairs.mean) / divisor
        variance = add(weight * (pairs.variance + (pairs.mean - mean) ** 2)) / divisor
        ends = _nan_where(mean, least(pairs.least)), _nan_where(mean, greatest(pairs.greatest))
        return PairSimilarities(counts, count, mean, variance, *ends)

    return jax.tree.map(one, kinds, is_leaf=lambda x: isinstance(x, PairSimilarities))


def _describe(values: jax.Array, mask: jax.Array, num_bins: int) -> PairSimilarities:
    """Describe the masked-in entries of [m, n] values."""
    count = jnp.sum(mask, dtype=jnp.uint32)
    divisor = jnp.maximum(count, 1).astype(values.dtype)
    mean = jnp.sum(jnp.where(mask, values, 0)) / divisor
    variance = jnp.sum(jnp.where(mask, jnp.square(values - mean), 0)) / divisor
    least = _nan_where(mean, jnp.min(jnp.where(mask, values, jnp.inf)))
    greatest = _nan_where(mean, jnp.max(jnp.where(mask, values, -jnp.inf)))
    return PairSimilarities(_histogram(values, mask, num_bins), count, mean, variance, least, greatest)


def _nan_where(mean: jax.Array, x: jax.Array) -> jax.Array:
    """x, but NaN where the mean is: XLA's minimum and maximum on CPUs may pass over a NaN."""
    return x + 0 * mean


def _histogram(values: jax.Array, mask: jax.Array, num_bins: int) -> jax.Array:
    mask &= ~jnp.isnan(values)
    bins = jnp.clip(jnp.floor((values + 1) * (num_bins / 2)), 0, num_bins - 1).astype(jnp.int32)

    def row(bins: jax.Array, mask: jax.Array) -> jax.Array:
        return jnp.zeros(num_bins, jnp.uint32).at[bins].add(mask.astype(jnp.uint32))

    # One histogram per row, then their sum: a shared histogram would serialise a GPU's atomic additions.
    return jnp.sum(jax.vmap(row)(bins, mask), axis=0, dtype=jnp.uint32)


def _check(u: jax.Array, v: jax.Array, num_bins: int, axis_name: spmd.AxisName, implementation: str | None) -> None:
    if u.ndim != 2 or u.shape != v.shape:
        raise ValueError(
            f"metrics.similarity_distribution: expected u and v of the same shape [m, d], got {u.shape} and {v.shape}."
        )
    if num_bins < 1:
        raise ValueError(f"metrics.similarity_distribution: expected num_bins >= 1, got {num_bins}.")
    shared.check_implementation("metrics.similarity_distribution", implementation, axis_name)
