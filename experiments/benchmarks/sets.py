"""What copies cost under `vmap`: contrast sets, temperatures and seeds, beside as many single calls.

    python -m experiments.benchmarks.sets [--losses=simclr,info_nce] [--shapes=4x1024,2x2048,4x512] [--repeats=7]

Value and gradient. The copies are mapped in three ways: contrast sets as training maps them (`regime.map_sets`, with
the gradient outside), `vmap` over sets, and `vmap` over temperatures. Calls alternate, and a ratio is that of the least
times, so that other work on the machine counts for little.
"""

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from contrastive_jax import losses
from contrastive_jax.training import regime

D = 128
Call = Callable[[], Any]


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--losses", default="simclr,info_nce")
    parser.add_argument("--shapes", default="4x1024,2x2048,4x512,16x256", help="sets x pairs of a set")
    parser.add_argument("--implementations", default="dense,blockwise")
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    print("| loss | sets | pairs | implementation | seconds, one by one | regime | vmap | temperatures |")
    print("|---|---:|---:|---|---:|---:|---:|---:|", flush=True)
    for name in options.losses.split(","):
        for shape in options.shapes.split(","):
            for implementation in options.implementations.split(","):
                k, m = map(int, shape.split("x"))
                single, *ratios = measure(name, k, m, implementation, options.repeats)
                cells = " | ".join(f"{ratio:.2f}" for ratio in ratios)
                print(f"| {name} | {k} | {m:,} | {implementation} | {single:.3g} | {cells} |", flush=True)
    return 0


def measure(name: str, k: int, m: int, implementation: str, repeats: int) -> list[float]:
    """Seconds of k single calls, and the times of each way to map them as multiples of that."""
    calls = make_calls(name, k, m, implementation)
    least = [float("inf")] * len(calls)
    for repeat in range(repeats + 1):
        for i, call in enumerate(calls):
            start = time.perf_counter()
            jax.block_until_ready(call())
            if repeat:
                least[i] = min(least[i], time.perf_counter() - start)
    return [least[0], *(x / least[0] for x in least[1:])]


def make_calls(name: str, k: int, m: int, implementation: str) -> list[Call]:
    """Value and gradient of k sets of m pairs: one call each, then all in one call, mapped in three ways."""
    u, v = jax.random.normal(jax.random.key(0), (2, k, m, D))
    temperatures = jnp.linspace(0.1, 0.5, k)

    def mean(u: jax.Array, v: jax.Array, temperature: float | jax.Array = 0.2) -> jax.Array:
        return getattr(losses, name)(u, v, temperature=temperature, implementation=implementation).mean()

    def of_sets(u: jax.Array, v: jax.Array) -> jax.Array:
        def values(pairs: Any, axis_name: Any) -> jax.Array:
            return getattr(losses, name)(*pairs, temperature=0.2, implementation=implementation, axis_name=axis_name)

        pairs = (u.reshape(-1, D), v.reshape(-1, D))
        return regime.map_sets(values, pairs, contrast_size=m).mean()

    one = jax.value_and_grad(mean, argnums=(0, 1))
    single, mapped, swept = jax.jit(one), jax.jit(jax.vmap(one)), jax.jit(jax.vmap(one, in_axes=(None, None, 0)))
    trained = jax.jit(jax.value_and_grad(of_sets, argnums=(0, 1)))
    pairs = list(zip(u, v, strict=True))
    return [
        lambda: [single(*pair) for pair in pairs],
        lambda: trained(u, v),
        lambda: mapped(u, v),
        lambda: swept(*pairs[0], temperatures),
    ]


if __name__ == "__main__":
    sys.exit(main())
