"""The ring beside blockwise, which gathers: memory of a device and time of SimCLR, forward and backward.

    python -m experiments.benchmarks.ring [--devices=8] [--sizes=2048,8192,32768] [--repeats=3]

Without an accelerator the devices are threads of the CPU. Memory is that of the compiled program, as everywhere; a
transfer is a copy, so the times show what the ring's order of work costs and say nothing about a network.
"""

import argparse
import os
import statistics
import sys
import time
from typing import Any

D = 128


def main() -> int:
    """Print the table; 1 if the two implementations differ in value."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=8)
    parser.add_argument("--sizes", default="2048,8192,32768", help="pairs over all devices")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    os.environ.setdefault("XLA_FLAGS", f"--xla_force_host_platform_device_count={options.devices}")
    print("| pairs | of a device | implementation | MB of temporaries, a device | seconds (least to greatest) |")
    print("|---:|---:|---|---:|---:|", flush=True)
    for m in map(int, options.sizes.split(",")):
        values = []
        for implementation in ("blockwise", "ring"):
            value, megabytes, times = measure(m, implementation, options.devices, options.repeats)
            values.append(value)
            seconds = f"{statistics.median(times):.3g} ({min(times):.3g} to {max(times):.3g})"
            print(f"| {m:,} | {m // options.devices:,} | {implementation} | {megabytes:.1f} | {seconds} |", flush=True)
        if abs(values[1] - values[0]) > 1e-5 * abs(values[0]):
            print(f"error: expected the same value of both, got {values[0]} and {values[1]}.", file=sys.stderr)
            return 1
    return 0


def measure(m: int, implementation: str, devices: int, repeats: int) -> tuple[float, float, list[float]]:
    """Value, megabytes of temporaries of a device, and seconds of each repeat."""
    import jax
    import numpy as np
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    from contrastive_jax import losses, spmd

    mesh = Mesh(np.array(jax.devices()[:devices]), (spmd.AXIS,))
    shares = PartitionSpec(spmd.AXIS)

    def local(u: jax.Array, v: jax.Array) -> jax.Array:
        return jax.lax.pmean(losses.simclr(u, v, axis_name=spmd.AXIS, implementation=implementation).mean(), spmd.AXIS)

    loss = jax.shard_map(local, mesh=mesh, in_specs=shares, out_specs=PartitionSpec())
    u, v = jax.device_put(jax.random.normal(jax.random.key(0), (2, m, D)), NamedSharding(mesh, PartitionSpec()))
    u, v = jax.device_put((u, v), NamedSharding(mesh, shares))
    step = jax.jit(jax.value_and_grad(loss, argnums=(0, 1))).lower(u, v).compile()
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        value, _ = jax.block_until_ready(step(u, v))
        times.append(time.perf_counter() - start)
    analysis: Any = step.memory_analysis()
    return float(value), analysis.temp_size_in_bytes / 1e6, times[1:]


if __name__ == "__main__":
    sys.exit(main())
