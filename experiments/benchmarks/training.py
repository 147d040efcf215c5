"""Images per second of the training step, and what logging the distribution of similarities costs it.

    pip install -e ".[bench]"
    python -m experiments.benchmarks.training [--jobs=digits,resnet18_32] [--steps=10]

Each job is timed with and without the distribution, in turn, step by step, so that a drift of the machine's speed meets
both alike. The ratio is that of the medians. An image counts once, though two views of it are encoded.
"""

import argparse
import statistics
import sys
import time

import jax
import numpy as np
import psutil

from configs import cifar10, digits
from contrastive_jax import spmd
from contrastive_jax.data import batches, sources
from contrastive_jax.training import environment, logs
from contrastive_jax.training import job as job_lib
from contrastive_jax.training import step as step_lib


def digits_job():
    """The default job, as it is."""
    return digits.get_config(), sources.load("digits", split="train")


def resnet18_32_job():
    """ResNet-18 at 32x32, batch 256: the CIFAR preset on random pixels, which take as long as real ones."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (512, 32, 32, 3), np.uint8)
    return cifar10.get_config(), sources.ArraySource("random", images, np.arange(512) % 10, num_classes=10)


JOBS = {"digits": digits_job, "resnet18_32": resnet18_32_job}


def stepper(config, source, distribution):
    """A function that takes one step, reads its outputs back and makes its log row, and returns the seconds it took."""
    config = config.copy_and_resolve_references()
    config.log.distribution = distribution
    order = batches.BatchOrder(len(source), config.batch_size, config.seed, config.partition)
    program, state = job_lib.build(config, source, order)
    mapped = spmd.map_step(
        lambda state, batch: step_lib.train_step(program, state, batch),
        parallelism=config.parallelism,
        devices=jax.devices(),
    )
    state = mapped.place_state(state)

    def step(k):
        nonlocal state
        indices = order.indices(k)
        start = time.perf_counter()
        batch = mapped.place_batch({"image": source.take(indices)[0], "id": indices.astype(np.int32)})
        state, outputs = mapped.step(state, batch)
        outputs = jax.device_get(mapped.read(outputs))
        logs.record(k, outputs, epoch=0, num_instances=len(source), contrast_size=config.batch_size)
        return time.perf_counter() - start

    return step


def measure(name, steps):
    """One row of the table."""
    config, source = JOBS[name]()
    with_it, without = (stepper(config, source, distribution) for distribution in (True, False))
    with_it(0), without(0)  # compiles
    times = [(with_it(k), without(k)) for k in range(1, steps + 1)]
    a, b = (statistics.median(column) for column in zip(*times, strict=True))
    low, high = (q(x / y for x, y in times) for q in (min, max))
    return (
        f"| {name} | {config.batch_size} | {config.batch_size / a:.1f} | {config.batch_size / b:.1f} "
        f"| {a / b:.3f} ({low:.3f} to {high:.3f}) |"
    )


def main(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", default=",".join(JOBS), help="which, separated by commas")
    parser.add_argument("--steps", type=int, default=10, help="counted steps of each kind")
    options = parser.parse_args(argv)
    about = environment.describe()
    memory = psutil.virtual_memory().total / 2**30
    print(
        f"{about['devices']} x {about['device']}, {psutil.cpu_count(logical=False)} cores, {memory:.0f} GiB, "
        f"jax {about['versions']['jax']}, load {psutil.getloadavg()[0]:.1f} before the first step\n"
    )
    print("| job | batch | images/s | without the distribution | ratio of step times (pair by pair) |")
    print("|---|---:|---:|---:|---:|")
    for name in options.jobs.split(","):
        print(measure(name, options.steps), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
