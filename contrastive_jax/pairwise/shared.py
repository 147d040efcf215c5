"""What the losses and the metrics share with the engine."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from contrastive_jax import spmd

IMPLEMENTATIONS = ("dense", "blockwise", "ring")  # on every platform
REDUCTIONS = (*IMPLEMENTATIONS, "pallas")  # of the engine's reductions; the last one needs a GPU
# Up to about this many entries dense is no slower (docs/benchmarks.md), and blockwise takes longer to compile.
DENSE_ENTRIES = 2**20
BLOCK_SIZE = 1024
GPU_DENSE_ENTRIES, GPU_BLOCK_SIZE = 2**24, 4096


def block_size() -> int:
    """The greatest side of a tile: one that fits the cache of a CPU, or keeps a GPU busy for longer than its start."""
    return GPU_BLOCK_SIZE if jax.default_backend() == "gpu" else BLOCK_SIZE


def accumulation_dtype(*dtypes: jnp.dtype) -> jnp.dtype:
    """The dtype sums are held in: float32, or float64 where an input is float64."""
    return jnp.dtype(jnp.float64 if jnp.float64 in dtypes else jnp.float32)


def check_implementation(
    function: str, implementation: str | None, axis_name: spmd.AxisName, *, known: tuple[str, ...] = IMPLEMENTATIONS
) -> None:
    """Refuse an implementation that does not exist, or a ring without devices to go round."""
    if implementation is not None and implementation not in known:
        raise ValueError(
            f"{function}: expected implementation {', '.join(map(repr, known))}, or None to choose one, "
            f"got {implementation!r}."
        )
    if implementation == "ring" and axis_name is None:
        raise ValueError(
            f"{function}: expected an axis_name for implementation 'ring', got None; "
            "the candidates travel round the devices along that axis."
        )


def choose_implementation(implementation: str | None, m: int, n: int, axis_name: spmd.AxisName) -> str:
    """The implementation that `None` stands for, with m anchors and n candidates on each device."""
    if implementation is not None:
        return implementation
    devices = spmd.axis_size(axis_name)
    if m * n * devices <= (GPU_DENSE_ENTRIES if jax.default_backend() == "gpu" else DENSE_ENTRIES):
        return "dense"
    return "ring" if devices > 1 and n >= block_size() else "blockwise"


def check_ids(function: str, name: str, ids: ArrayLike, shape: tuple[int, ...]) -> jax.Array:
    """Ids, or labels, as a JAX array; refused where they have another shape, or JAX would cut them to fewer bits."""
    given = ids if isinstance(ids, jax.Array) else np.asarray(ids)
    if given.shape != shape or not jnp.issubdtype(given.dtype, jnp.integer):
        raise ValueError(
            f"{function}: expected {name} to be integers of shape {shape}, got {given.dtype} of shape {given.shape}."
        )
    if isinstance(given, jax.Array):
        return given
    held = np.iinfo(jax.dtypes.canonicalize_dtype(given.dtype))
    if given.size and (given.min() < held.min or given.max() > held.max):
        raise ValueError(
            f"{function}: expected {name} that fit {held.dtype}, got {given.dtype} from {given.min()} to "
            f"{given.max()}; renumber them, together with all that they are compared with, by "
            f"`np.unique({name}, return_inverse=True)[1]`, or enable JAX's 64-bit mode."
        )
    return jnp.asarray(given)


def fill_blocks(x: jax.Array, size: int) -> jax.Array:
    """[m, ...] as [blocks, size, ...], the last block filled with zeros."""
    blocks = math.ceil(len(x) / size)
    x = jnp.pad(x, ((0, blocks * size - len(x)), *((0, 0) for _ in x.shape[1:])))
    return x.reshape(blocks, size, *x.shape[1:])
