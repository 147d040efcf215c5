"""One program for many runs: numbers that differ between them are inputs of the step, which is mapped over the runs."""

import functools
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from contrastive_jax import spmd
from contrastive_jax.data import batches
from contrastive_jax.errors import UsageError
from contrastive_jax.jobs import config as config_lib
from contrastive_jax.jobs import job as job_lib
from contrastive_jax.jobs import parts, validation, weights
from contrastive_jax.jobs.job import Job
from contrastive_jax.training import gradient
from contrastive_jax.training.state import TrainState
from contrastive_jax.training.step import train_step

_TRACED = ("vrns_weight", "optimizer.learning_rate")
_TRACED_SECTIONS = ("loss.kwargs.", "optimizer.kwargs.")
SEED = "seed"


def is_traced(path: str, config: ConfigDict) -> bool:
    """Whether a field may differ between the runs of one program: the seed, and numbers that a step computes with.

    Example:
      >>> config = config_lib.default_config()
      >>> [is_traced(path, config) for path in ("vrns_weight", "loss.kwargs.temperature", "batch_size")]
      [True, True, False]
    """
    if path == SEED or path in _TRACED:
        return True
    value = config_lib.flatten(config).get(path, 0.0)
    of_part = path.startswith(_TRACED_SECTIONS) and config_lib.find_field(path, config).kind is float
    return of_part and isinstance(value, int | float) and not isinstance(value, bool)


def group(configs: Sequence[ConfigDict]) -> list[list[int]]:
    """The configurations that fit one program, by their positions: they differ in traced fields alone."""
    groups: dict[str, list[int]] = {}
    for k, config in enumerate(configs):
        flat = config_lib.flatten(config)
        key = {path: "a number" if is_traced(path, config) else value for path, value in flat.items()}
        groups.setdefault(repr(sorted(key.items())), []).append(k)
    return list(groups.values())


def prepare(configs: Sequence[ConfigDict], workdirs: Sequence[Path], *, steps: int | None = None) -> list[Job]:
    """Prepare the runs of one program; of each only what differs from the first. Nothing is written.

    Args:
      configs: of the runs; they differ in traced fields alone.
      workdirs: of the runs.
      steps: where the runs stop, if before their end.

    Raises:
      UsageError: a line for each fault.
    """
    first = job_lib.prepare(configs[0], workdirs[0], steps=steps)
    own = parts.resolve(first.config, parts.NONE)
    jobs = [first]
    for config, workdir in zip(configs[1:], workdirs[1:], strict=True):
        config, _ = parts.record(config, parts.NONE)
        validation.check(config, own, num_devices=len(spmd.devices()), train=first.train)
        weights.record(config)
        order = batches.BatchOrder(len(first.train), first.order.update_size, config.seed, config.partition)
        program, initial = job_lib.build(config, own, first.train, order)
        program = program._replace(graphdef=first.program.graphdef)  # equal, and so found in JAX's caches at once
        jobs.append(first._replace(config=config, workdir=workdir, order=order, program=program, initial=initial))
    return jobs


class Layout(NamedTuple):
    """How the runs of a program are stacked: [seeds, runs of each seed], so that runs of a seed share their views."""

    runs: np.ndarray  # int [S, K], positions of the runs
    orders: tuple[batches.BatchOrder, ...]  # [S]

    @classmethod
    def of(cls, jobs: Sequence[Job]) -> "Layout":
        """Stack runs of the same seed if every seed has the same number of runs, else all runs side by side."""
        by_seed: dict[int, list[int]] = {}
        for k, job in enumerate(jobs):
            by_seed.setdefault(job.config.seed, []).append(k)
        runs = list(by_seed.values())
        if len({len(found) for found in runs}) > 1:
            runs = [[k] for k in range(len(jobs))]
        return cls(np.array(runs), tuple(jobs[found[0]].order for found in runs))

    def stack(self, trees: Sequence[Any]) -> Any:
        """Stack a tree of each run: leaves [S, K, ...]."""
        shape = self.runs.shape
        ordered = [trees[k] for k in self.runs.ravel()]
        return jax.tree.map(lambda *x: np.stack(x).reshape(*shape, *np.shape(x[0])), *ordered)

    def unstack(self, tree: Any) -> list[Any]:
        """The tree of each run, of a stacked tree in the host's memory."""
        places = np.argsort(self.runs.ravel())
        flat = jax.tree.map(lambda x: np.asarray(x).reshape(-1, *np.shape(x)[2:]), tree)
        return [jax.tree.map(lambda x: x[k], flat) for k in places]  # noqa: B023


class Stack:
    """The step of many runs as one program.

    Args:
      jobs: from `prepare`.

    Raises:
      UsageError: the step cannot be traced with these numbers as inputs.
    """

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.layout, self._jobs = Layout.of(jobs), jobs
        flat = [config_lib.flatten(job.config) for job in jobs]
        traced = [path for path in flat[0] if is_traced(path, jobs[0].config)]
        self.traced = [path for path in traced if len({values[path] for values in flat}) > 1]
        rows = self.layout.runs
        # Of each seed its first run's, and otherwise of each run.
        self._numbers = {
            path: np.array([[_number(path, flat[k][path]) for k in row] for row in rows]) for path in self.traced
        }
        if SEED in self._numbers:
            self._numbers[SEED] = self._numbers[SEED][:, 0]
        step = _map_over_runs(jobs[0], self.traced)
        devices, parallelism = spmd.devices(), jobs[0].config.parallelism
        self._mapped = spmd.map_step(step, parallelism=parallelism, devices=devices)
        self._trace()

    def _trace(self) -> None:
        job = self._jobs[0]
        size, seeds = job.order.update_size, len(self.layout.orders)
        known = {
            "image": jax.ShapeDtypeStruct((size, seeds, *job.train.image_shape), np.uint8),
            "id": jax.ShapeDtypeStruct((size, seeds), np.int32),
            "label": jax.ShapeDtypeStruct((size, seeds), np.int32),
        }
        shape = self.layout.runs.shape
        states = jax.tree.map(lambda x: jax.ShapeDtypeStruct((*shape, *np.shape(x)), x.dtype), job.initial)
        try:
            self._mapped.trace((self._numbers, states), {name: known[name] for name in job.program.inputs})
        except Exception as error:  # a user's part may raise anything
            raise UsageError(
                f"--engine=vmap: expected a step that takes {', '.join(self.traced) or 'no field'} as inputs of its "
                f"program, got {parts.describe_error(error)}. --engine=processes has a program for each run."
            ) from error

    def place(self, states: Sequence[TrainState]) -> Any:
        """The states of all runs, on the devices, with the numbers in which they differ."""
        return self._mapped.place_state((self._numbers, self.layout.stack(states)))

    def step(self, placed: Any, batch: Any) -> tuple[Any, Any]:
        """Take a step of every run; (placed, outputs)."""
        return self._mapped.step(placed, batch)

    def read_states(self, placed: Any) -> list[TrainState]:
        """The state of each run, in the host's memory."""
        return self.layout.unstack(jax.device_get(self._mapped.read(placed)[1]))

    def read_outputs(self, outputs: Any) -> list[dict[str, Any]]:
        """What the step of each run returned, in the host's memory; waits for it."""
        found = self.layout.unstack(jax.device_get(self._mapped.read(outputs)))
        for job, row in zip(self._jobs, found, strict=True):
            if not job.config.vrns_weight:  # VRNS with a traced weight of 0: the run alone has none
                row.pop("vrns", None)
        return found

    def placed_batches(self, start: int, stop: int, waiting: Callable[[], Any]) -> Generator[Any, None, None]:
        """The batches of the steps of all seeds, on the devices; close it at the end."""
        job = self._jobs[0]
        size = job.order.update_size
        positions = gradient.layout(size, job.config.batch_size, len(spmd.devices()))
        host = _Together(
            [batches.iterate(job.train, o, start=start, stop=stop, positions=positions) for o in self.layout.orders],
            job.program.inputs,
        )
        number = batches.num_placed(job.train, size * len(self.layout.orders))
        return batches.prefetch(host, self._mapped.place_batch, number, waiting=waiting)


class _Together:
    """The batches of several orders side by side: leaves [B, S, ...]."""

    def __init__(self, streams: Sequence[Any], names: Sequence[str]) -> None:
        self._streams, self._names = streams, names

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        return self

    def __next__(self) -> Mapping[str, Any]:
        found = [next(stream) for stream in self._streams]
        return {name: np.stack([batch[name] for batch in found], axis=1) for name in self._names}

    def is_ready(self) -> bool:
        """Whether the next batches are all assembled."""
        return all(stream.is_ready() for stream in self._streams)

    def close(self) -> None:
        """Stop the threads of all."""
        for stream in self._streams:
            stream.close()


def _number(path: str, value: float) -> Any:
    return np.uint32(value) if path == SEED else np.float32(value)


def _map_over_runs(job: Job, traced: Sequence[str]) -> Callable[[Any, Any], tuple[Any, Any]]:
    """(numbers and states [S, K, ...], batch [b, S, ...]) -> (the same after a step, outputs [S, K, ...])."""
    own = parts.resolve(job.config, parts.NONE)

    def step(numbers: Mapping[str, Any], state: TrainState, batch: Any) -> tuple[TrainState, Any]:
        config = job.config.copy_and_resolve_references()
        for path, number in numbers.items():
            config_lib.set_value(config, path, number)
        program = job_lib.make_program(config, own, job.order, job.program.graphdef, job.program.dimensions)
        return train_step(program, state, batch)

    of_run = {path: None if path == SEED else 0 for path in traced}
    of_seed = jax.vmap(step, in_axes=(of_run, 0, None))
    mapped = jax.vmap(of_seed, in_axes=(0, 0, 1))

    @functools.wraps(mapped)
    def all_runs(placed: Any, batch: Any) -> tuple[Any, Any]:
        numbers, states = placed
        states, outputs = mapped(numbers, states, batch)
        return (numbers, states), outputs

    return all_runs
