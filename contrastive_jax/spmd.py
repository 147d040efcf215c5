"""Single program, multiple devices: collectives that also work outside a mapped program, and mapping a step."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from contrastive_jax import jax_versions

AXIS = "batch"
PARALLELISMS = ("shard_map", "pmap")
AxisName = Any  # a hashable name, or a tuple of them; None for a program that is not mapped


def devices() -> list[Any]:
    """The devices of all processes, ordered like the shares of a batch: those of one process are adjacent."""
    return sorted(jax.devices(), key=lambda device: (device.process_index, device.id))


def axis_size(axis_name: AxisName) -> int:
    """Number of devices along `axis_name`, a Python int; 1 outside a mapped program."""
    return 1 if axis_name is None else lax.axis_size(axis_name)


def axis_index(axis_name: AxisName) -> jax.Array:
    """This device's position along `axis_name`, int32; 0 outside a mapped program."""
    return jnp.int32(0) if axis_name is None else jnp.asarray(lax.axis_index(axis_name), jnp.int32)


def gather(x: jax.Array, axis_name: AxisName) -> jax.Array:
    """Concatenate every device's [m, ...] into [devices * m, ...], in device order.

    Its transpose gives each device the sum of all cotangents of its own part, so that a loss of gathered embeddings has
    its whole gradient. One device's own part is returned as it is, so that XLA sees that all who gather it share it.
    """
    return x if axis_size(axis_name) == 1 else lax.all_gather(x, axis_name, axis=0, tiled=True)


def psum(x: Any, axis_name: AxisName) -> Any:
    """Sum over the devices along `axis_name`; outside a mapped program, the value itself."""
    return x if axis_name is None else lax.psum(x, axis_name)


def pmean(x: Any, axis_name: AxisName) -> Any:
    """Mean over the devices along `axis_name`; outside a mapped program, the value itself."""
    return x if axis_name is None else lax.pmean(x, axis_name)


def pmax(x: jax.Array, axis_name: AxisName) -> jax.Array:
    """Maximum over the devices along `axis_name`; outside a mapped program, the value itself."""
    return x if axis_name is None else lax.pmax(x, axis_name)


def rotate(tree: Any, axis_name: AxisName) -> Any:
    """Pass each device's arrays to the next device, in a ring; outside a mapped program, return them as they are."""
    if axis_name is None:
        return tree
    n = axis_size(axis_name)
    return jax.tree.map(lambda x: lax.ppermute(x, axis_name, [(i, (i + 1) % n) for i in range(n)]), tree)


def ring(fn: Callable[[Any, Any], Any], carry: Any, shard: Any, axis_name: AxisName) -> Any:
    """Compute `carry = fn(carry, shard)` for the shard of every device in turn, this device's own first.

    The shards travel round the devices, one step each turn. A turn's transfer does not wait for its computation, so the
    two can overlap; a device holds at most two shards at a time. Outside a mapped program there is one shard.
    """

    def turn(state: tuple[Any, Any], _: None) -> tuple[tuple[Any, Any], None]:
        carry, shard = state
        coming = rotate(shard, axis_name)
        return (fn(carry, shard), coming), None

    turns = axis_size(axis_name) - 1
    if turns:
        (carry, shard), _ = lax.scan(turn, (carry, shard), length=turns)
    return fn(carry, shard)


def vary_alike(arrays: Sequence[jax.Array]) -> list[jax.Array]:
    """Mark each array as differing over every mapped axis that any of them differs over.

    `shard_map` tracks which values are equal on all devices. If a loop's state starts as a constant but ends as a value
    of this device, or a custom gradient meets such a constant, both must be marked alike; the gradient with respect to
    a newly marked array is summed over the devices. Outside `shard_map` nothing happens.
    """
    varying = [jax_versions.varying_axes(x) for x in arrays]
    axes = frozenset().union(*varying)
    missing = [tuple(axes - own) for own in varying]
    return [jax_versions.mark_varying(x, m) if m else x for x, m in zip(arrays, missing, strict=True)]


class Mapped(NamedTuple):
    """A per-device function mapped over devices, with the ways its arguments get onto them and back."""

    step: Callable[[Any, Any], tuple[Any, Any]]  # (placed state, placed batch) -> (placed state, replicated output)
    trace: Callable[[Any, Any], Any]  # (one copy of the state, all of a batch), or shapes: raises what tracing raises
    place_state: Callable[[Any], Any]  # one copy of the state -> a copy on every device
    place_batch: Callable[[Any], Any]  # this process's [b, ...] of the batch -> its shares on the devices
    read: Callable[[Any], Any]  # placed state or output -> one copy


def map_step(fn: Callable[[Any, Any], tuple[Any, Any]], *, parallelism: str, devices: Sequence[Any]) -> Mapped:
    """Map `fn(state, batch) -> (state, output)`, written for one device, over `devices` along the axis `"batch"`.

    The state is replicated before and after the step, and is donated. The leading axis of every leaf of the batch is
    divided over the devices. The output must be the same on every device.

    Args:
      fn: the per-device function; it may use collectives over `spmd.AXIS`.
      parallelism: `"shard_map"`, compiled once for all devices with `jit`, or `"pmap"`.
      devices: the devices of all processes, `spmd.devices()` or some of them.

    Returns:
      A `Mapped`.

    Raises:
      ValueError: for an unknown parallelism.
    """
    if parallelism not in PARALLELISMS:
        raise ValueError(f"expected parallelism {' or '.join(map(repr, PARALLELISMS))}, got {parallelism!r}.")
    return (_map_shards if parallelism == "shard_map" else _map_copies)(fn, devices)


def _map_shards(fn: Callable[[Any, Any], tuple[Any, Any]], devices: Sequence[Any]) -> Mapped:
    mesh = Mesh(np.array(devices), (AXIS,))
    whole, share = PartitionSpec(), PartitionSpec(AXIS)
    replicated, divided = NamedSharding(mesh, whole), NamedSharding(mesh, share)
    specs: dict[str, Any] = {"in_specs": (whole, share), "out_specs": (whole, whole)}

    def mapped(state: Any, batch: Any) -> tuple[Any, Any]:
        try:
            return jax.shard_map(fn, mesh=mesh, **specs)(state, batch)
        except (TypeError, ValueError) as error:
            if not jax_versions.is_about_varying(error):
                raise
        # A part that is not written for shard_map, such as an encoder with a loop that starts from zeros.
        return jax.shard_map(fn, mesh=mesh, **specs, check_vma=False)(state, batch)

    def place(sharding: NamedSharding) -> Callable[[Any], Any]:
        return lambda tree: jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), tree)

    step = jax.jit(mapped, donate_argnums=0)

    def trace(state: Any, batch: Any) -> Any:
        return step.trace(_shapes(state, sharding=replicated), _shapes(batch, sharding=divided))

    return Mapped(
        # The step donates its state: place a copy, so that the caller's stays valid.
        step=step,
        trace=trace,
        place_state=lambda tree: place(replicated)(jax.tree.map(np.array, tree)),
        place_batch=place(divided),
        read=lambda tree: jax.tree.map(lambda x: x.addressable_data(0), tree),
    )


def _map_copies(fn: Callable[[Any, Any], tuple[Any, Any]], devices: Sequence[Any]) -> Mapped:
    local = [d for d in devices if d.process_index == jax.process_index()]
    sharding = NamedSharding(Mesh(np.array(local), (AXIS,)), PartitionSpec(AXIS))

    def place_state(tree: Any) -> Any:
        copies = jax.tree.map(lambda x: np.broadcast_to(np.asarray(x), (len(local), *np.shape(x))), tree)
        return jax.device_put(copies, sharding)

    def place_batch(tree: Any) -> Any:
        return jax.device_put(jax.tree.map(lambda x: x.reshape(len(local), -1, *x.shape[1:]), tree), sharding)

    step = jax.pmap(fn, axis_name=AXIS, devices=devices, donate_argnums=0)

    def trace(state: Any, batch: Any) -> Any:
        copies = jax.tree.map(lambda x: jax.ShapeDtypeStruct((len(local), *jnp.shape(x)), x.dtype), state)
        share = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((len(local), x.shape[0] // len(devices), *x.shape[1:]), x.dtype), batch
        )
        return jax.eval_shape(step, copies, share)

    return Mapped(
        step=step,
        trace=trace,
        place_state=place_state,
        place_batch=place_batch,
        read=lambda tree: jax.tree.map(lambda x: x.addressable_data(0)[0], tree),
    )


def _shapes(tree: Any, sharding: NamedSharding) -> Any:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(jnp.shape(x), x.dtype, sharding=sharding), tree)
