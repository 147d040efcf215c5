"""VRNS by moments beside VRNS over all pairs: time, memory, and the error of both in value and gradient.

    python -m experiments.benchmarks.moments [--sizes=4096,16384,65536] [--alone=1048576] [--repeats=3]

Value and gradient of both views, d = 128, float32. The embeddings are those of aligned pairs, spread over the sphere.
Errors are relative to float64: of the value, and of the greatest entry of the gradient. "moments, ids" is what a job
calls: the instances have ids, which are sorted. At the sizes of `--alone` only moments are measured.
"""

import argparse
import statistics
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from contrastive_jax import jax_versions, losses

D = 128
MOST_IN_FLOAT64 = 16_384  # pairs of which the matrix is formed in float64
WAYS = {"blockwise": ("blockwise", False), "moments": ("moments", False), "moments, ids": ("moments", True)}


def main() -> int:
    """Print the table; 1 if the ways differ in value."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="4096,16384,65536", help="pairs")
    parser.add_argument("--alone", default="1048576", help="pairs at which only moments are measured")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    print("| pairs | way | seconds (least to greatest) | MB of temporaries | error of the value | of the gradient |")
    print("|---:|---|---:|---:|---:|---:|", flush=True)
    for m in map(int, options.sizes.split(",")):
        values = [report(m, way, options.repeats) for way in WAYS]
        if not np.allclose(values, values[0], rtol=1e-4):
            print(f"error: expected the same value of all, got {values}.", file=sys.stderr)
            return 1
    for m in map(int, filter(None, options.alone.split(","))):
        report(m, "moments", options.repeats)
    return 0


def report(m: int, way: str, repeats: int) -> float:
    """Print one row; return the value."""
    value, times, megabytes, errors = measure(m, way, repeats)
    seconds = f"{statistics.median(times):.3g} ({min(times):.3g} to {max(times):.3g})"
    shown = " | ".join(f"{error:.1e}" for error in errors) if errors else " | "
    print(f"| {m:,} | {way} | {seconds} | {megabytes:.0f} | {shown} |", flush=True)
    return value


def measure(m: int, way: str, repeats: int) -> tuple[float, list[float], float, list[float]]:
    """Value, seconds of each repeat, megabytes of temporaries, and errors where float64 fits."""
    implementation, has_ids = WAYS[way]
    ids = jnp.arange(m, dtype=jnp.int32) if has_ids else None

    def loss(u: jax.Array, v: jax.Array) -> jax.Array:
        return losses.vrns(u, v, num_instances=50_000, ids=ids, implementation=implementation).mean()

    u = jax.random.normal(jax.random.key(0), (m, D))
    pairs = u, u + 0.5 * jax.random.normal(jax.random.key(1), (m, D))
    step = jax.jit(jax.value_and_grad(loss, argnums=(0, 1))).lower(*pairs).compile()
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        value, grads = jax.block_until_ready(step(*pairs))
        times.append(time.perf_counter() - start)
    analysis: Any = step.memory_analysis()
    errors = compare(float(value), grads, pairs) if m <= MOST_IN_FLOAT64 else []
    return float(value), times[1:], analysis.temp_size_in_bytes / 1e6, errors


def compare(value: float, grads: Any, pairs: Any) -> list[float]:
    """The errors of value and gradient, relative to those that float64 gives over all pairs."""
    with jax_versions.enable_x64():

        def loss(u: jax.Array, v: jax.Array) -> jax.Array:
            return losses.vrns(u, v, num_instances=50_000, implementation="blockwise").mean()

        wide = [np.asarray(x, np.float64) for x in pairs]
        right, right_grads = jax.device_get(jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(*wide))
    worst = max(np.abs(x - y).max() / np.abs(y).max() for x, y in zip(jax.device_get(grads), right_grads, strict=True))
    return [abs(value - right) / right, worst]


if __name__ == "__main__":
    sys.exit(main())
