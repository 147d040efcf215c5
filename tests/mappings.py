"""The ways a per-device function is mapped over devices, as one table for every test that needs them."""

from functools import partial

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec

AXIS = "batch"


def _shard_map(fn, devices, check_vma):
    mesh = Mesh(np.array(jax.devices()[:devices]), (AXIS,))
    spec = PartitionSpec(AXIS)

    def call(*arrays, out=spec):
        return jax.shard_map(fn, mesh=mesh, in_specs=spec, out_specs=out, check_vma=check_vma)(*arrays)

    return call


def _stacked(transform, fn, devices):
    mapped = transform(fn, devices)

    def call(*arrays, out=None):
        parts = [x.reshape(devices, -1, *x.shape[1:]) for x in arrays]
        result = mapped(*parts)
        if out is not None:
            return jax.tree.map(lambda x: x[0], result)
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), result)

    return call


MAPPINGS = {
    "shard_map": partial(_shard_map, check_vma=True),
    "shard_map_unchecked": partial(_shard_map, check_vma=False),
    "pmap": partial(_stacked, lambda fn, n: jax.pmap(fn, axis_name=AXIS, devices=jax.devices()[:n])),
    "vmap": partial(_stacked, lambda fn, n: jax.vmap(fn, axis_name=AXIS)),
}
"""name -> mapped(fn, devices) -> call(*global arrays, out=...); out=PartitionSpec() for what all devices share."""
