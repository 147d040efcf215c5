"""Take the runs of one program: each has its own workdir, log, checkpoints and evaluation, as a run alone has."""

import concurrent.futures
import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from contrastive_jax.errors import UsageError
from contrastive_jax.jobs import evaluate, monitor, passes, run
from contrastive_jax.jobs.job import Job
from contrastive_jax.jobs.logs import progress
from contrastive_jax.jobs.machine import environment, signals, storage
from contrastive_jax.jobs.machine.checkpoints import Checkpoints
from contrastive_jax.jobs.recorder import Recorder
from contrastive_jax.jobs.sweeps.stack import Stack, prepare
from contrastive_jax.jobs.workdir import claim_workdir
from contrastive_jax.training.state import TrainState

Ended = Callable[[int, UsageError | None], None]
_MAX_THREADS = 4  # that evaluate


class _Lane:
    """One run of a stack: what it holds open, and the error that ended it, if any.

    Args:
      index: its position.
      job: the run.
      views: {seed: the picture of its views}, shared by the runs of a stack.
    """

    def __init__(self, index: int, job: Job, views: dict[int, Path]) -> None:
        self.index, self.job, self._views = index, job, views
        self.error: UsageError | None = None
        self.state: TrainState = job.initial
        self.start = 0
        self.measured: dict[str, float] = {}  # of the encoder after the last step, until it is logged
        self.speed: dict[str, float | None] = dict.fromkeys(("images_per_second", "waited_for_data"))
        self._open = contextlib.ExitStack()

    @contextlib.contextmanager
    def guard(self) -> Iterator[None]:
        """End this run alone on an error that it foresees."""
        try:
            with storage.explain_refusals(self.job.workdir):
                yield
        except UsageError as error:
            self.error = error

    def claim(self, stop: int) -> None:
        """Claim the workdir and find the state to go on from."""
        with self.guard():
            self._open.enter_context(claim_workdir(self.job))
            folder, keep = self.job.workdir / "checkpoints", self.job.config.checkpoint.keep
            self.checkpoints = self._open.enter_context(Checkpoints(folder, keep=keep))
            self.state, self.start = run.resume(self.job, self.checkpoints, stop)
            if self.start == 0 and self.job.config.log.pictures:
                self._save_views()

    def _save_views(self) -> None:
        """Save the picture of the views; runs of a seed have the same, and drawing it takes a second."""
        path = self.job.workdir / run.VIEWS
        if drawn := self._views.get(self.job.config.seed):
            shutil.copyfile(drawn, path)
            return
        run.save_views(self.job)
        if path.exists():
            self._views[self.job.config.seed] = path

    @contextlib.contextmanager
    def record(self, stop: int) -> Iterator[None]:
        """Hold the logs open."""
        order = self.job.order
        bar = progress.Progress(self.start, stop, order.steps_per_epoch, order.update_size, shown=False)
        with contextlib.ExitStack() as logs:
            with self.guard():
                log = logs.enter_context(run.open_log(self.job, self.start))
                self.bar = logs.enter_context(bar)
                self.recorder = Recorder(self.job, log, self.bar, self.checkpoints)
            yield
            with self.guard():
                logs.pop_all().close()
        self.speed = {**bar.speed}

    def add(self, outputs: Mapping[str, Any]) -> None:
        """Log a step."""
        with self.guard():
            self.recorder.add(outputs)
            if measured := self.measured:
                self.measured = {}
                self.recorder.attach(lambda: measured)
            self.recorder.log_pending()

    def save(self, state: TrainState) -> None:
        """Start to write a checkpoint, not ahead of the log."""
        with self.guard():
            self.recorder.flush()
            self.checkpoints.save(state)

    def wait(self) -> None:
        """Wait for the checkpoint."""
        with self.guard():
            self.checkpoints.wait()

    def close(self) -> None:
        """Release the workdir."""
        with self.guard():
            self._open.close()


def run_stack(
    configs: Sequence[ConfigDict], workdirs: Sequence[Path], ended: Ended, *, steps: int | None = None
) -> None:
    """Train and evaluate runs that fit one program. Each resumes from its own checkpoint.

    Args:
      configs: of the runs; they differ in traced fields alone, see `stack.group`.
      workdirs: of the runs.
      ended: called with the position of each run that has ended, and its error if it failed.
      steps: where the runs stop, if before their end.

    Raises:
      UsageError: one line for each fault of the configurations; nothing has been written.
      Interrupted: on SIGTERM or SIGINT while the runs train, with a checkpoint of each.
    """
    started, around = time.perf_counter(), environment.describe()
    jobs = prepare(configs, workdirs, steps=steps)
    passes.trace(jobs[0])
    stack = Stack(jobs)  # refuses before anything is written
    stop = jobs[0].num_steps if steps is None else min(steps, jobs[0].num_steps)
    drawn: dict[int, Path] = {}
    lanes = [_Lane(k, job, drawn) for k, job in enumerate(jobs)]
    try:
        for lane in lanes:
            lane.claim(stop)
        by_start: dict[int, list[_Lane]] = {}
        for lane in lanes:
            if lane.error is None:
                by_start.setdefault(lane.start, []).append(lane)
        for start, together in by_start.items():
            if start < stop:
                _train(stack if len(together) == len(jobs) else Stack([lane.job for lane in together]), together, stop)
        _report_failures(lanes, ended)
        with signals.exit_on_signal(stop):
            _evaluate([lane for lane in lanes if lane.error is None], stop, around, started, ended)
    finally:
        for lane in lanes:
            lane.close()


def _report_failures(lanes: Sequence[_Lane], ended: Ended) -> None:
    for lane in lanes:
        if lane.error is not None:
            ended(lane.index, lane.error)


def _train(stack: Stack, lanes: Sequence[_Lane], stop: int) -> None:
    """Take the steps of runs that start at the same step."""
    start = lanes[0].start
    order = lanes[0].job.order
    images = order.update_size * len(lanes)
    with contextlib.ExitStack() as logs:
        for lane in lanes:
            logs.enter_context(lane.record(stop))
        bar = logs.enter_context(progress.Progress(start, stop, order.steps_per_epoch, images))
        watch = logs.enter_context(signals.watch_signals())
        recorder = _StackRecorder(stack, lanes, bar)
        stream = stack.placed_batches(start, stop, recorder.wait_for_data)
        logs.callback(stream.close)
        placed = stack.place([lane.state for lane in lanes])
        for taken, batch in enumerate(stream, start + 1):
            placed, outputs = stack.step(placed, batch)
            recorder.add(outputs)
            if monitor.is_due(lanes[0].job, taken):
                recorder.measure(placed)
            asked = watch.asked()
            if taken % lanes[0].job.config.checkpoint.every == 0 or taken == stop or asked:
                recorder.save(placed)
            if asked or taken == stop:
                recorder.wait()
            if asked := asked or watch.asked():
                raise signals.make_interruption(asked, taken)
            if taken == start + 1:
                watch.begin()
            if not recorder.alive:
                return
        for lane, state in zip(lanes, stack.read_states(placed), strict=True):
            lane.state = state


class _StackRecorder:
    """Logs each step of all runs while the next one is taken."""

    def __init__(self, stack: Stack, lanes: Sequence[_Lane], bar: progress.Progress) -> None:
        self._stack, self._lanes, self._bar = stack, lanes, bar
        self._pending: Any = None

    @property
    def alive(self) -> list[_Lane]:
        """The runs that have not failed."""
        return [lane for lane in self._lanes if lane.error is None]

    def add(self, outputs: Any) -> None:
        """Keep the outputs of a step, and log those of the step before it."""
        self._log_pending()
        self._pending = outputs

    def measure(self, placed: Any) -> None:
        """Measure each encoder and log that with the last step; the time that it takes is not that of the steps."""
        jax.block_until_ready(self._pending)
        with contextlib.ExitStack() as pauses:
            for bar in (self._bar, *(lane.bar for lane in self.alive)):
                pauses.enter_context(bar.pause())
            for lane, state in zip(self._lanes, self._stack.read_states(placed), strict=True):
                if lane.error is None:
                    lane.measured = monitor.measure(lane.job, passes.make(lane.job), state)

    def _log_pending(self) -> None:
        if self._pending is None:
            return
        outputs, self._pending = self._stack.read_outputs(self._pending), None
        for lane, own in zip(self._lanes, outputs, strict=True):
            if lane.error is None:
                lane.add(own)
        if alive := self.alive:
            self._bar.update(alive[0].recorder.last_row)

    @contextlib.contextmanager
    def wait_for_data(self) -> Iterator[None]:
        """Wait for the last step; the time from then on, within this context, is one without data for the devices."""
        jax.block_until_ready(self._pending)
        with contextlib.ExitStack() as waits:
            for lane in self.alive:
                waits.enter_context(lane.bar.wait_for_data())
            yield

    def save(self, placed: Any) -> None:
        """Start to write a checkpoint of each run."""
        self._log_pending()
        for lane, state in zip(self._lanes, self._stack.read_states(placed), strict=True):
            if lane.error is None:
                lane.save(state)

    def wait(self) -> None:
        """Wait for the checkpoints of all runs."""
        for lane in self.alive:
            lane.wait()


def _evaluate(lanes: Sequence[_Lane], stop: int, around: Mapping[str, Any], started: float, ended: Ended) -> None:
    """Evaluate the runs, several at a time: one alone seldom uses more than a core."""
    first: dict[int, evaluate.Evaluation] = {}  # by seed: runs of a seed start from the same encoder
    seeds = {lane.job.config.seed: lane for lane in reversed(lanes)}
    begin = list(reversed(seeds.values()))
    rest = [lane for lane in lanes if lane not in begin]

    def score(lane: _Lane) -> evaluate.Evaluation | None:
        with lane.guard():
            return evaluate.evaluate(lane.job, lane.state, known=first.get(lane.job.config.seed))
        return None

    with concurrent.futures.ThreadPoolExecutor(min(os.cpu_count() or 1, _MAX_THREADS)) as pool:
        # The first compiles for all others.
        for batch in (begin[:1], begin[1:], rest):
            for lane, found in zip(batch, pool.map(score, batch), strict=True):
                if found is not None:
                    first.setdefault(lane.job.config.seed, found)
                    with lane.guard():
                        run.finish(lane.job, stop, found, lane.speed, around, seconds=time.perf_counter() - started)
                ended(lane.index, lane.error)
