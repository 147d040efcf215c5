"""Who is compared with whom: the batch divided into contrast sets, wherever the devices' borders fall.

Contrast set k holds positions [k c, (k + 1) c) of the global batch, c the `contrast_size`, so the sets do not depend on
the number of devices. With b instances on each device there are three layouts:

- c divides b: each device holds whole sets, and nothing is gathered;
- c is the whole batch: the function gathers over the axis by itself;
- otherwise sets straddle devices: the smallest run of devices that holds whole sets is gathered, and each device keeps
  the values of its own instances. Every device of the run then computes all sets of the run, a redundancy that costs
  little beside the encoder.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from contrastive_jax import metrics, spmd


def map_sets(
    fn: Callable[..., Any],
    instances: Any,
    *,
    contrast_size: int,
    axis_name: spmd.AxisName = None,
) -> Any:
    """Apply a function of instances that are compared with each other within each contrast set.

    Args:
      fn: `(instances, *, axis_name) -> [m]`, a value of each instance, or a tree of them.
      instances: a tree of arrays [b, ...], whatever fn needs to know of each of this device's instances: embeddings of
        its views, its id, its label.
      contrast_size: instances compared with each other; divides the global batch.
      axis_name: the mapped axis, if any.

    Returns:
      [b], the values of this device's own instances, in the tree that fn returns.

    Raises:
      ValueError: if contrast_size does not divide the step's instances.

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
    sets, offset, _ = _contrast_sets(instances, b, contrast_size, axis_name)
    every = jax.vmap(lambda instances: fn(instances, axis_name=None))(sets)
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
    """The similarities within every contrast set of the global batch, each pair once; the same on every device.

    Args:
      u: [b, d] this device's embeddings of one view.
      v: [b, d] of another view.
      ids: [b] int instance ids.
      contrast_size: pairs compared with each other; divides the global batch.
      num_bins: equal bins over [-1, 1].
      axis_name: the mapped axis, if any.

    Returns:
      A `metrics.SimilarityDistribution`.

    Raises:
      ValueError: if contrast_size does not divide the step's instances.
    """
    b = u.shape[0]
    devices = _check(b, contrast_size, axis_name)
    if contrast_size == b * devices:
        return metrics.similarity_distribution(u, v, ids=ids, num_bins=num_bins, axis_name=axis_name)
    sets, offset, run = _contrast_sets((u, v, ids), b, contrast_size, axis_name)

    def one(index: jax.Array, u: jax.Array, v: jax.Array, ids: jax.Array) -> metrics.SimilarityDistribution:
        # Devices of a run hold the same sets; each set is counted by one of them.
        return metrics.select(metrics.similarity_distribution(u, v, ids=ids, num_bins=num_bins), index % run == offset)

    local = metrics.merge(jax.vmap(one)(jnp.arange(sets[0].shape[0]), *sets))
    return local if axis_name is None else metrics.merge_devices(local, axis_name)


def _contrast_sets(instances, b, contrast_size, axis_name):
    """The contrast sets this device takes part in, [k, contrast_size, ...] a leaf, gathered over a run of devices.

    Returns:
      (sets, this device's position in its run, number of devices in the run).
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
