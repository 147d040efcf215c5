"""Which instances are compared with each other: contrast sets of the batch, on any number of devices.

Contrast set k holds positions [k c, (k + 1) c) of the global batch, where c is `contrast_size`, so the sets do not
depend on the number of devices. With b instances on each device there are three cases:

- c divides b: each device holds whole sets, and nothing is gathered;
- c is the whole batch: the function itself gathers over the axis;
- otherwise sets straddle devices: the smallest run of devices that holds whole sets gathers its instances, and each
  device keeps the values of its own. Every device of the run computes all sets of the run; this redundancy costs little
  compared with the encoder.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from contrastive_jax import metrics, sequential, spmd


def map_sets(
    fn: Callable[..., Any],
    instances: Any,
    *,
    contrast_size: int,
    axis_name: spmd.AxisName = None,
) -> Any:
    """Apply a function to each contrast set.

    Args:
      fn: `(instances, *, axis_name) -> [m]`, one value for each instance, or a tree of such arrays.
      instances: a tree of arrays [b, ...] with what fn needs of this device's instances, such as the embeddings of
        their views, their ids and their labels.
      contrast_size: instances compared with each other; divides the global batch.
      axis_name: the mapped axis, if any.

    Returns:
      [b], the values of this device's instances, in the tree that fn returns.

    Raises:
      ValueError: if contrast_size does not divide the number of instances in the step.

    Example:
      >>> pairs = jax.random.normal(jax.random.key(0), (8, 2, 4))
      >>> simclr = lambda pairs, axis_name: losses.simclr(pairs[:, 0], pairs[:, 1], axis_name=axis_name)
      >>> regime.map_sets(simclr, pairs, contrast_size=4).shape
      (8,)
    """
    b = jax.tree.leaves(instances)[0].shape[0]
    devices = _check(b, contrast_size, axis_name)
    if contrast_size == b * devices:
        return fn(instances, axis_name=axis_name)
    sets, offset, _ = _gather_sets(instances, b, contrast_size, axis_name)
    pairs = (2 * contrast_size) ** 2  # at most, of two views
    every = sequential.vmap_in_groups(lambda instances: fn(instances, axis_name=None), sets, pairs)
    return jax.tree.map(lambda x: lax.dynamic_slice_in_dim(x.reshape(-1), offset * b, b), every)


def distribution(
    u: jax.Array,
    v: jax.Array,
    ids: jax.Array,
    *,
    contrast_size: int,
    num_bins: int,
    axis_name: spmd.AxisName = None,
) -> metrics.SimilarityDistribution:
    """The distribution of similarities within every contrast set of the global batch; the same on every device.

    Each pair is counted once.

    Args:
      u: [b, d] this device's embeddings of one view.
      v: [b, d] those of another view.
      ids: [b] int instance ids.
      contrast_size: pairs compared with each other; divides the global batch.
      num_bins: equal bins over [-1, 1].
      axis_name: the mapped axis, if any.

    Returns:
      The distribution.

    Raises:
      ValueError: if contrast_size does not divide the number of instances in the step.
    """
    b = u.shape[0]
    devices = _check(b, contrast_size, axis_name)
    if contrast_size == b * devices:
        return metrics.similarity_distribution(u, v, ids=ids, num_bins=num_bins, axis_name=axis_name)
    sets, offset, run = _gather_sets((u, v, ids), b, contrast_size, axis_name)

    def one(indexed: tuple[jax.Array, tuple[jax.Array, ...]]) -> metrics.SimilarityDistribution:
        # All devices of a run hold the same sets; one of them counts each set.
        index, (u, v, ids) = indexed
        return metrics.select(metrics.similarity_distribution(u, v, ids=ids, num_bins=num_bins), index % run == offset)

    indices = jnp.arange(sets[0].shape[0])
    each = sequential.vmap_in_groups(one, (indices, sets), (2 * contrast_size) ** 2)
    local = metrics.merge(each, max_pairs=b * devices * contrast_size)
    return local if axis_name is None else metrics.merge_devices(local, axis_name)


def negative_moments(
    u: jax.Array, v: jax.Array, ids: jax.Array, *, contrast_size: int, axis_name: spmd.AxisName = None
) -> metrics.NegativeMoments:
    """Mean and variance of the cross-view negatives of `distribution`, in time linear in the size of a contrast set.

    Args:
      u: [b, d] this device's embeddings of one view.
      v: [b, d] those of another view.
      ids: [b] int instance ids.
      contrast_size: pairs compared with each other; divides the global batch.
      axis_name: the mapped axis, if any.

    Returns:
      The moments, the same on every device.

    Raises:
      ValueError: if contrast_size does not divide the number of instances in the step.
    """
    b = u.shape[0]
    if contrast_size == b * _check(b, contrast_size, axis_name):
        return metrics.negative_moments(u, v, ids=ids, axis_name=axis_name)
    sets, offset, run = _gather_sets((u, v, ids), b, contrast_size, axis_name)
    each = sequential.vmap_in_groups(
        lambda one: metrics.negative_moments(*one[:2], ids=one[2]), sets, max(contrast_size, u.shape[1]) * u.shape[1]
    )
    counts_here = jnp.arange(len(each.number)) % run == offset  # as in `distribution`
    return metrics.merge_negative_moments(
        each._replace(number=jnp.where(counts_here, each.number, 0)), axis_name=axis_name
    )


def _gather_sets(
    instances: Any, b: int, contrast_size: int, axis_name: spmd.AxisName
) -> tuple[Any, jax.Array | int, int]:
    """Gather the contrast sets of this device's run of devices; each leaf is [k, contrast_size, ...].

    Returns:
      (sets, this device's position in its run, the number of devices in the run).
    """
    run = math.lcm(contrast_size, b) // b
    index = spmd.axis_index(axis_name)
    if run > 1:
        first = index // run * (run * b)
        instances = jax.tree.map(
            lambda x: lax.dynamic_slice_in_dim(spmd.gather(x, axis_name), first, run * b), instances
        )
    sets = jax.tree.map(lambda x: x.reshape(-1, contrast_size, *x.shape[1:]), instances)
    return sets, index % run, run


def _check(b: int, contrast_size: int, axis_name: spmd.AxisName) -> int:
    devices = spmd.axis_size(axis_name)
    if contrast_size < 2 or (b * devices) % contrast_size:
        raise ValueError(
            f"contrast_size: expected a divisor >= 2 of the step's {b * devices} instances, got {contrast_size}."
        )
    return devices
