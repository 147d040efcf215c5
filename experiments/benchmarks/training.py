"""Images per second of the training step, with and without the similarity distribution, beside PyTorch's step.

    pip install -e ".[bench]"
    pip install torch==2.13.0  # for the comparison; without it those columns stay empty
    python -m experiments.benchmarks.training [--jobs=digits,resnet18_32] [--steps=10]
    python -m experiments.benchmarks.training --jobs=resnet18_32,resnet18_32_1024_bfloat16 --steps=30  # on a GPU

Each job is timed three ways: with the distribution, without it, and in PyTorch with the same network, views, loss and
optimiser on as many threads, or on the same GPU, there with channels last and autocast. The two networks are first
checked to be the same function. The three take turns step by step, so a change in the machine's speed affects all of
them. A ratio is that of the medians. An image counts once, though two views of it are encoded. The process has large
pages, as that of experiments.train; PyTorch profits too. Where other work keeps the cores busy, set
OMP_WAIT_POLICY=PASSIVE, or PyTorch's threads wait for each other in loops.
"""

import argparse
import functools
import importlib.util
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import psutil
from ml_collections import ConfigDict

from configs import cifar10, digits
from contrastive_jax import models, spmd
from contrastive_jax.data import batches, sources
from contrastive_jax.jobs import job as job_lib
from contrastive_jax.jobs import parts
from contrastive_jax.jobs.logs import rows as logs
from contrastive_jax.jobs.machine import environment, memory
from contrastive_jax.training import step as step_lib
from contrastive_jax.training.state import Program, TrainState

Job = tuple[ConfigDict, sources.Source]
Stepper = Callable[[int], float]  # take step k; the seconds it took


def make_digits_job() -> Job:
    """The default job, unchanged."""
    return digits.get_config(), sources.load("digits", split="train")


def make_resnet18_32_job(batch_size: int = 256, dtype: str = "float32") -> Job:
    """ResNet-18 at 32x32: the CIFAR preset on random pixels, which take as long as real ones."""
    rng = np.random.default_rng(0)
    number = 2 * max(batch_size, 256)
    images = rng.integers(0, 256, (number, 32, 32, 3), np.uint8)
    config = cifar10.get_config()
    config.batch_size = batch_size
    config.model.kwargs.dtype = dtype
    return config, sources.ArraySource(images, np.arange(number) % 10, name="random")


JOBS: dict[str, Callable[[], Job]] = {
    "digits": make_digits_job,
    "resnet18_32": make_resnet18_32_job,
    "resnet18_32_64": functools.partial(make_resnet18_32_job, 64),
    "resnet18_32_1024": functools.partial(make_resnet18_32_job, 1024),
    "resnet18_32_bfloat16": functools.partial(make_resnet18_32_job, 256, "bfloat16"),
    "resnet18_32_1024_bfloat16": functools.partial(make_resnet18_32_job, 1024, "bfloat16"),
}
ON_A_CPU = ("digits", "resnet18_32", "resnet18_32_64")


def build(config: ConfigDict, source: sources.Source) -> tuple[batches.BatchOrder, Program, TrainState]:
    """The order of the batches, the training program and its first state."""
    order = batches.BatchOrder(len(source), config.batch_size, config.seed, config.partition)
    program, state = job_lib.build(config, parts.resolve(config, parts.NONE), source, order)
    return order, program, state


def make_stepper(config: ConfigDict, source: sources.Source, *, distribution: bool) -> Stepper:
    """A function that takes one step, reads its outputs back and makes its log row."""
    config = config.copy_and_resolve_references()
    config.log.distribution = distribution
    order, program, state = build(config, source)
    mapped = spmd.map_step(
        lambda state, batch: step_lib.train_step(program, state, batch),
        parallelism=config.parallelism,
        devices=spmd.devices(),
    )
    state = mapped.place_state(state)

    def step(k: int) -> float:
        nonlocal state
        indices = order.indices(k)
        start = time.perf_counter()
        batch = mapped.place_batch({"image": source.take(indices), "id": indices.astype(np.int32)})
        state, outputs = mapped.step(state, batch)
        outputs = jax.device_get(mapped.read(outputs))
        logs.make_row(k, outputs, epoch=0, num_instances=len(source), contrast_size=config.batch_size)
        return time.perf_counter() - start

    return step


def make_torch_stepper(config: ConfigDict, source: sources.Source) -> Stepper | None:
    """The same step in PyTorch; None where PyTorch is not installed."""
    if importlib.util.find_spec("torch") is None:
        return None
    from experiments.benchmarks import torch_training

    order, program, state = build(config, source)
    channels, threads = source.image_shape[-1], psutil.cpu_count(logical=False)
    device = "cuda" if jax.default_backend() == "gpu" else "cpu"
    take, model = torch_training.make_stepper(
        config, program.view_config, state.params.model, channels, threads, device
    )
    _check_same_function(program, state, model, config)

    def step(k: int) -> float:
        start = time.perf_counter()
        take(source.take(order.indices(k)))
        return time.perf_counter() - start

    return step


def _check_same_function(program: Program, state: TrainState, model: Any, config: ConfigDict) -> None:
    """Both networks give the same projections of the same images, normalised by their batch."""
    import torch

    size, channels = config.data.image_size, model.encoder.first.conv.in_channels
    images = np.random.default_rng(0).normal(size=(8, size, size, channels)).astype(np.float32)
    params, model_state = jax.tree.map(jnp.asarray, (state.params.model, state.model_state))
    ours = np.asarray(models.apply(program.graphdef, params, model_state, jnp.asarray(images), train=True)[0])
    with torch.no_grad():
        on_device = torch.from_numpy(images).to(next(model.parameters()).device)
        theirs = model(on_device.permute(0, 3, 1, 2)).float().cpu().numpy()
    # GPUs multiply float32 rounded to 10 bits, and bfloat16 has 8.
    tolerance = 1e-3 if jax.default_backend() == "cpu" else 5e-2
    error = np.linalg.norm(theirs - ours) / np.linalg.norm(ours)
    assert error < tolerance, f"the two networks differ by {error:.1e}"


def measure(name: str, steps: int) -> str:
    """One row of the table."""
    config, source = JOBS[name]()
    steppers = [make_stepper(config, source, distribution=distribution) for distribution in (True, False)]
    peer = make_torch_stepper(config, source)
    steppers += [peer] if peer else []
    for step in steppers:
        step(0)  # compiles
    times = [[step(k) for step in steppers] for k in range(1, steps + 1)]
    medians = [statistics.median(column) for column in zip(*times, strict=True)]
    cells = [f"{config.batch_size / x:.1f}" for x in medians[:2]] + [_ratio(times, medians, 0, 1)]
    cells += [f"{config.batch_size / medians[2]:.1f}", _ratio(times, medians, 2, 0)] if peer else ["", ""]
    return f"| {name} | {config.batch_size} | {' | '.join(cells)} |"


def _ratio(times: Sequence[Sequence[float]], medians: Sequence[float], a: int, b: int) -> str:
    """The ratio of the medians, with the least and the greatest ratio of two neighbouring steps."""
    ratios = [row[a] / row[b] for row in times]
    return f"{medians[a] / medians[b]:.3f} ({min(ratios):.3f} to {max(ratios):.3f})"


def main(argv: Sequence[str]) -> int:
    """Print the table, a line as each job is measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--jobs", default=",".join(ON_A_CPU), help=f"jobs, separated by commas, of {', '.join(JOBS)} (%(default)s)"
    )
    parser.add_argument("--steps", type=int, default=10, help="timed steps of each kind (%(default)s)")
    options = parser.parse_args(argv)
    if unknown := [name for name in options.jobs.split(",") if name not in JOBS]:
        print(f"error: --jobs: expected some of {', '.join(JOBS)}, got {', '.join(unknown)}.", file=sys.stderr)
        return 2
    about = environment.describe()
    gigabytes = psutil.virtual_memory().total / 2**30
    print(
        f"{about['devices']} x {about['device']}, {psutil.cpu_count(logical=False)} cores, {gigabytes:.0f} GiB, "
        f"jax {about['versions']['jax']}, load {psutil.getloadavg()[0]:.1f} before the first step\n"
    )
    print("| job | batch | images/s | without the distribution | ratio | PyTorch | its time to ours |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for name in options.jobs.split(","):
        print(measure(name, options.steps), flush=True)
    return 0


if __name__ == "__main__":
    memory.restart_with_large_pages()
    sys.exit(main(sys.argv[1:]))
