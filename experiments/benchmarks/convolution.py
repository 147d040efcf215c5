"""CPU time of both forms of `models.convolve`, forward and backward, and which of them its rule takes.

    python -m experiments.benchmarks.convolution [--sizes=1,2,3,4] [--channels=64,256,512] [--batches=8,64,256]
    python -m experiments.benchmarks.convolution --gradient --sizes=4,8,16,32 --channels=16,64,128 --batches=128

The two forms, or with --gradient the two ways to the kernel's gradient, are timed in turn, and the least CPU time of
all threads counts, so that other work on the machine changes little.

The rule follows these numbers (two cores of a server CPU, JAX 0.10): where the output is smaller than the kernel, XLA's
convolution takes 0.2 to 3.5 ns for each multiply-add of value and gradients together, and 0.08 ns elsewhere. The dense
product takes 0.06 ns, and 25 ns for each entry of its kernel, once for a batch.

XLA takes 1.2 to 6 times as long for the kernel's gradient as the loop over patches does on the layers of ResNet-18 at
32x32 (128 images). On the layers of the digits job, none of which has 2^27 multiply-adds, the loops would save 2% of a
step, and the first step would take a quarter longer.
"""

import argparse
import functools
import time
from collections.abc import Callable
from typing import Any

import jax

from contrastive_jax import models

FORMS = ("convolution", "product")
GRADIENTS = ("convolution", "patches")


def build(
    implementation: Any, size: int, stride: int, kernel: int, channels: int, batch: int, *, gradient: bool = False
) -> tuple[Callable[..., Any], tuple[jax.Array, jax.Array]]:
    """A function that takes the gradients of a convolution, or only its kernel's, jitted, and its arguments."""
    images = jax.random.normal(jax.random.key(0), (batch, size, size, channels))
    weights = jax.random.normal(jax.random.key(1), (kernel, kernel, channels, channels))
    padding = [(kernel // 2, kernel // 2)] * 2

    def loss(images: jax.Array, weights: jax.Array) -> jax.Array:
        return (models.convolve(images, weights, (stride, stride), padding, implementation=implementation) ** 2).sum()

    return jax.jit(jax.grad(loss, 1) if gradient else jax.value_and_grad(loss, argnums=(0, 1))), (images, weights)


def time_in_turn(calls: list[Callable[[], object]], seconds: float, least_repeats: int = 3) -> list[float]:
    """The least CPU time in seconds of each call, after one that compiles."""
    for call in calls:
        jax.block_until_ready(call())
    best, start, repeats = [float("inf")] * len(calls), time.perf_counter(), 0
    while repeats < least_repeats or time.perf_counter() - start < seconds:
        for i, call in enumerate(calls):
            before = time.process_time()
            jax.block_until_ready(call())
            best[i] = min(best[i], time.process_time() - before)
        repeats += 1
    return best


def choose(*case: int) -> str:
    """The form that the rule takes."""
    fn, arguments = build(None, *case)
    text = fn.lower(*arguments).as_text()
    return "patches" if "stablehlo.while" in text else "convolution" if "stablehlo.convolution" in text else "product"


def main() -> None:
    """Print the table, a line as each case is measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="1,2,3,4", help="height and width of the maps")
    parser.add_argument("--channels", default="64,256,512")
    parser.add_argument("--batches", default="8,64,256")
    parser.add_argument("--kernel", type=int, default=3)
    parser.add_argument("--gradient", action="store_true", help="time the kernel's gradient (and the forward pass)")
    parser.add_argument("--seconds", type=float, default=0.5, help="time for each line, at least")
    options = parser.parse_args()
    sizes, channels, batches = (
        [int(x) for x in text.split(",")] for text in (options.sizes, options.channels, options.batches)
    )
    forms = GRADIENTS if options.gradient else FORMS
    print(f"| map | stride | channels | batch | {forms[0]}, ms | {forms[1]}, ms | the rule takes | faster |")
    print("|---:|---:|---:|---:|---:|---:|---|---|")
    for size in sizes:
        for stride in (1, 2) if size > 1 else (1,):
            for case in ((size, stride, options.kernel, c, batch) for c in channels for batch in batches):
                built = [build(form, *case, gradient=options.gradient) for form in forms]
                times = time_in_turn([functools.partial(fn, *arguments) for fn, arguments in built], options.seconds)
                faster = forms[times.index(min(times))]
                milliseconds = " | ".join(f"{1e3 * t:.2f}" for t in times)
                print(f"| {size} | {stride} | {case[3]} | {case[4]} | {milliseconds} | {choose(*case)} | {faster} |")


if __name__ == "__main__":
    main()
