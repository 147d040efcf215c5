"""Train, evaluate, and write the results of a run."""

import contextlib
import functools
import json
import math
import os
import sys
import time
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from contrastive_jax import spmd
from contrastive_jax.data import batches, sources, views
from contrastive_jax.errors import UsageError
from contrastive_jax.jobs import evaluate, monitor, parts, passes
from contrastive_jax.jobs.job import Job, prepare
from contrastive_jax.jobs.logs import neighbour_pictures, pictures, progress, rows, view_pictures
from contrastive_jax.jobs.machine import environment, files, processes, profiler, signals, storage
from contrastive_jax.jobs.machine.checkpoints import Checkpoints
from contrastive_jax.jobs.recorder import Recorder
from contrastive_jax.jobs.workdir import claim_workdir
from contrastive_jax.training import gradient
from contrastive_jax.training.state import TrainState

VIEWS = "views.png"


def run(
    config: ConfigDict,
    workdir: str | os.PathLike[str],
    *,
    steps: int | None = None,
    own: parts.Own = parts.NONE,
    profile: range | None = None,
) -> dict[str, Any]:
    """Train, evaluate, and write pictures and numbers to `workdir`. A second call resumes the run.

    Args:
      config: the fields of `default_config`.
      workdir: a new folder, or that of a run with the same configuration; what only evaluates may differ.
      steps: stop after so many steps in all, leaving all that a whole run leaves.
      own: an encoder, a head, a loss, an optimiser, data or metrics of your own, in place of those that the
        configuration names; `config.json` records their names, and a run that is resumed must be given them again.
      profile: steps, counted from 0, of which JAX's profiler writes a trace to the folder `profile` of the workdir.

    Returns:
      The content of `summary.json`. Of several processes the first evaluates and writes it, while the others wait.

    Raises:
      UsageError: what was asked for cannot be done; nothing has been written, or what was there is kept. Of its kinds,
        `DamagedError`: there are checkpoints, but none is whole; `NonFiniteError`: the loss or its gradient is not
        finite; `StorageError`: no space, no permission, too many open files.
      Interrupted: on SIGTERM or SIGINT while it trains, after the step in hand and with a checkpoint of it.
    """
    started, around = time.perf_counter(), environment.describe()
    job = prepare(config, Path(workdir), steps=steps, own=own)
    passes.trace(job)
    encode = passes.make(job)
    stop = job.num_steps if steps is None else min(steps, job.num_steps)
    if profile is not None and profile.stop > stop:
        asked = f"--profile={profile.start}:{profile.stop}"
        raise UsageError(f"{asked}: expected steps of this run, which takes {stop}, counted from 0.")
    with storage.explain_refusals(job.workdir), claim_workdir(job):
        with Checkpoints(job.workdir / "checkpoints", keep=config.checkpoint.keep) as checkpoints:
            state, speed = train(job, checkpoints, stop, profile, encode)
        with signals.exit_on_signal(stop):
            if processes.is_first():
                found = evaluate.evaluate(job, state, encode)
                print(finish(job, stop, found, speed, around, seconds=time.perf_counter() - started))
            processes.wait_for_all("evaluated")
        return json.loads((job.workdir / "summary.json").read_text())


def train(
    job: Job,
    checkpoints: Checkpoints,
    stop: int,
    profile: range | None = None,
    encode: passes.Passes | None = None,
) -> tuple[TrainState, dict[str, float | None]]:
    """Take the remaining steps up to `stop`; return the final state and the speed (of None without a step)."""
    encode = passes.make(job) if encode is None else encode
    state, start = resume(job, checkpoints, stop)
    if processes.is_first() and start == 0 and job.config.log.pictures:
        save_views(job)
    with open_log(job, start) as log, _open_progress(job, start, stop) as bar, signals.watch_signals() as watch:
        if start == stop:
            return state, dict.fromkeys(bar.speed)
        recorder = Recorder(job, log, bar, checkpoints)
        with profiler.Profiler(job.workdir / "profile", profile) as tracer:
            state = _take_steps(job, state, stop, recorder, checkpoints, watch, tracer, encode)
        return state, {**bar.speed}


def resume(job: Job, checkpoints: Checkpoints, stop: int) -> tuple[TrainState, int]:
    """The state from which a run goes on, and the steps that it has taken; says so if there are any.

    Raises:
      UsageError: there is no checkpoint where the log says that there was one, or the run is beyond `stop`.
    """
    logged = rows.count_logged_steps(job.workdir, num_bins=_num_bins(job))
    state = checkpoints.resume(job.initial, max_step=logged)
    resumed, state = state is not None, job.initial if state is None else state
    # A checkpoint starts only after the one before it is complete.
    if not resumed and logged > 2 * job.config.checkpoint.every:
        raise UsageError(
            f"{job.workdir}: the log holds {logged} steps, but there is no checkpoint. Restore the folder "
            f"checkpoints, or move {rows.ROWS} away to start over."
        )
    start = int(state.step)
    if start > stop:
        raise UsageError(f"--steps={stop}: expected at least {start}, the steps that {job.workdir} has already taken.")
    if processes.is_first() and resumed:
        print(f"Resuming {job.workdir} after step {start} of {job.num_steps}.", file=sys.stderr)
    return state, start


def _take_steps(
    job: Job,
    state: TrainState,
    stop: int,
    recorder: Recorder,
    checkpoints: Checkpoints,
    watch: signals.Watch,
    tracer: profiler.Profiler,
    encode: passes.Passes,
) -> TrainState:
    mapped, start = job.mapped, recorder.step
    placed = mapped.place_state(state)
    with contextlib.closing(_placed_batches(job, start, stop, recorder)) as stream:
        for batch in stream:
            tracer.before(recorder.step, placed)
            placed, outputs = mapped.step(placed, batch)
            recorder.add(mapped.read(outputs))
            taken = recorder.step
            if processes.is_first() and monitor.is_due(job, taken):
                recorder.attach(functools.partial(monitor.measure, job, encode, mapped.read(placed)))
            asked = watch.asked()
            if taken % job.config.checkpoint.every == 0 or taken == stop or asked:
                recorder.flush()  # raises before a state that is not finite can be saved
                checkpoints.save(mapped.read(placed))
            if asked or taken == stop:
                checkpoints.wait()
            if asked := asked or (watch.asked() if taken == stop and not processes.several() else None):
                raise signals.make_interruption(asked, taken)
            if taken == start + 1:
                watch.begin()
    return jax.tree.map(np.asarray, mapped.read(placed))


def open_log(job: Job, start: int) -> contextlib.AbstractContextManager[rows.StepLog | None]:
    """The logs of a run, from a step on; None in every process but the first."""
    if not processes.is_first():
        return contextlib.nullcontext()
    every = job.config.log.tensorboard_every
    return rows.StepLog(job.workdir, start=start, num_bins=_num_bins(job), tensorboard_every=every)


def _open_progress(job: Job, start: int, stop: int) -> progress.Progress:
    order = job.order
    return progress.Progress(
        start, stop, order.steps_per_epoch, order.update_size, shown=processes.is_first(), advice=_advise_on_data(job)
    )


def _advise_on_data(job: Job) -> str:
    """What to do where the devices wait for the training images."""
    needed = sources.bytes_to_keep(job.train, job.test)
    if needed:
        gigabytes = math.ceil(needed / 2**30 * 10) / 10
        return (
            f"Each image is decoded whenever it is needed: give the run more CPU cores, make copies of the images that "
            f"are {max(job.train.image_shape[:2])} pixels on their shorter side, or, with so much memory to spare, set "
            f"config.data.cache_gib={gigabytes} to keep them once they are decoded."
        )
    if sources.is_kept(job.train):
        return "The images are decoded in the first epoch, and found in memory from then on."
    return "Give the run more CPU cores, or make `take` of the source faster."


def _placed_batches(job: Job, start: int, stop: int, recorder: Recorder) -> Generator[Any, None, None]:
    """The batches of the steps, on the devices. What is ahead of the step in use is bounded by `batches`."""
    size, count = job.order.update_size, jax.process_count()
    host = batches.iterate(
        job.train,
        job.order,
        start=start,
        stop=stop,
        process_index=jax.process_index(),
        process_count=count,
        positions=gradient.layout(size, job.config.batch_size, len(spmd.devices())),
    )
    return batches.prefetch(
        host,
        lambda batch: job.mapped.place_batch({name: batch[name] for name in job.program.inputs}),
        batches.num_placed(job.train, size // count),
        waiting=recorder.wait_for_data,
    )


def _num_bins(job: Job) -> int:
    """The number of bins of the logged histograms; 0 if they are not logged."""
    return job.config.log.num_bins if job.config.log.distribution else 0


_random_views = jax.jit(views.random_views, static_argnames=("num_views", "config"))


def save_views(job: Job) -> None:
    """Save a picture of the first images and their views."""
    indices = np.arange(min(16, len(job.train)))
    images, config = sources.take(job.train, indices), job.program.view_config
    options = {"seed": np.uint32(job.config.seed), "epoch": 0, "num_views": job.program.num_views, "config": config}
    drawn = np.asarray(_random_views(images, indices.astype(np.int32), **options))
    path = job.workdir / VIEWS
    _draw(path, lambda: view_pictures.save_views_picture(path, images, drawn, mean=config.mean, std=config.std))


def _draw(path: Path, save: Callable[[], None]) -> None:
    """Save a picture. If drawing fails, print the reason and go on: a picture is not worth a run."""
    try:
        save()
    except Exception as error:  # drawing may raise any error
        if storage.find_refusal(error) is not None:
            raise
        print(f"{path} could not be drawn: {type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr)


def _save_similarity(job: Job, found: evaluate.Evaluation) -> None:
    """Save the histograms and, if the run draws pictures, these."""
    counts, logged = None, rows.read_rows(job.workdir / rows.ROWS)
    if job.config.log.distribution:
        counts = rows.read_counts(job.workdir / rows.COUNTS, job.config.log.num_bins)
    training_set = [found.similarity[name] for name in (evaluate.UNTRAINED, evaluate.TRAINED)]
    rows.save_similarity(job.workdir / "similarity.npz", counts, training_set)
    near = found.neighbours
    if near is None:
        return
    title = pictures.describe(job.config, contrast_size=job.contrast_size, num_instances=len(job.train))
    optimum = rows.compute_optimum(num_instances=len(job.train), contrast_size=job.contrast_size)
    path = job.workdir / "similarity.png"
    _draw(
        path,
        lambda: pictures.save_similarity_picture(path, counts, logged, training_set, optimum=optimum, title=title),
    )
    beside = job.workdir / "neighbours.png"
    _draw(beside, lambda: neighbour_pictures.save_neighbours_picture(beside, near))
    if not (job.workdir / VIEWS).exists():  # of a run that drew no pictures when it began
        save_views(job)


def finish(
    job: Job,
    stop: int,
    found: evaluate.Evaluation,
    speed: Mapping[str, float | None],
    around: Mapping[str, Any],
    *,
    seconds: float,
) -> str:
    """Write the histograms, the pictures and `summary.json` of a run that has been evaluated; return its tables.

    Args:
      job: the run.
      stop: the steps that it has taken.
      found: its evaluation.
      speed: of its training.
      around: what `environment.describe` found.
      seconds: that it took.
    """
    last_row = rows.read_rows(job.workdir / rows.ROWS)[-1]
    summary = {
        "steps": stop,
        "steps_of_the_whole_run": job.num_steps,
        "num_instances": len(job.train),
        "contrast_size": job.contrast_size,
        "final": last_row,
        **evaluate.summarize(job, found),
        **speed,
        "seconds": seconds,
        "environment": around,
    }
    _save_similarity(job, found)
    with files.replace_atomically(job.workdir / "summary.json") as temporary:  # the last: a run that has it is done
        temporary.write_text(json.dumps(rows.replace_nonfinite(summary), indent=2, allow_nan=False) + "\n")
    return evaluate.format_tables(job, found, last_row)
