"""Runs of a sweep as an array of SLURM jobs, which submitit submits and watches."""

import contextlib
import logging
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from contrastive_jax import extras
from contrastive_jax.errors import Interrupted, UsageError
from contrastive_jax.jobs.sweeps import local

_LOOK_EVERY = 1.0  # seconds between two looks at the jobs
_WARNINGS = {signal.SIGUSR1, signal.SIGUSR2} if hasattr(signal, "SIGUSR2") else set()  # of submitit to a job
_GRACE = 300.0  # seconds; sooner than that, SLURM kills what does not end on its SIGTERM
_GENERIC = ("timeout_min", "mem_gb", "nodes", "tasks_per_node", "cpus_per_task", "gpus_per_node")
_SBATCH = "sbatch: error: "
_CANCELLED = "the jobs are being cancelled; once squeue shows none of them, run the same command to resume."
_SUBMITTED = "some jobs may have been submitted; cancel those that squeue shows, then run the same command."
_EXAMPLE = '--slurm="timeout_min=240 gpus_per_node=1 cpus_per_task=8 partition=gpu"'


def parse_parameters(text: str) -> dict[str, Any]:
    """Parse what a job asks SLURM for.

    Args:
      text: NAME=VALUE, several separated by spaces; quotes protect spaces. The names are submitit's; those for SLURM
        alone (`partition`, `account`, `qos`, `constraint`, ...) need not have its prefix `slurm_`.

    Raises:
      UsageError: a word is no NAME=VALUE, or there is no time limit in minutes.

    Example:
      >>> parse_parameters("timeout_min=240 partition=gpu")
      {'timeout_min': 240, 'slurm_partition': 'gpu'}
    """
    try:
        pairs = [word.partition("=") for word in shlex.split(text)]
    except ValueError as error:
        raise UsageError(f"--slurm: expected words whose quotes close, got {text!r} ({error}).") from None
    bad = [name for name, equals, value in pairs if not (name and equals and value)]
    if bad:
        raise UsageError(f"--slurm: expected NAME=VALUE, got {bad[0]!r}; for example {_EXAMPLE}.")
    found: dict[str, Any] = {}
    for name, _, value in pairs:
        if name in _GENERIC:
            found[name] = _read_number(name, value)
        else:
            found[name if name.startswith("slurm_") else f"slurm_{name}"] = value
    if "timeout_min" not in found or "slurm_time" in found:  # submitit counts with the first
        raise UsageError(f"--slurm: expected timeout_min, the most minutes of a job; for example {_EXAMPLE}.")
    return found


def _read_number(name: str, text: str) -> float:
    try:
        return float(text) if name == "mem_gb" else int(text)
    except ValueError:
        raise UsageError(f"--slurm: {name}: expected a number, got {text!r}.") from None


def make_executor(folder: Path, parameters: Mapping[str, Any], *, jobs: int | None = None, where: str = "slurm") -> Any:
    """The executor of submitit that submits the jobs.

    Args:
      folder: for what submitit writes; all nodes must see it.
      parameters: see `parse_parameters`.
      jobs: how many jobs may run at once; without it, 256.
      where: another executor of submitit's, such as "local", which starts processes here.

    Raises:
      MissingExtraError: submitit is not installed.
      UsageError: there is no SLURM here, or it knows no such parameter.
    """
    submitit = extras.require("submitit", extra="slurm", what="--engine=slurm")
    try:
        executor = submitit.AutoExecutor(folder=folder, cluster=where)
    except RuntimeError:
        raise UsageError(
            "--engine=slurm: expected SLURM's srun on this machine, found none. Submit from a login node, or take "
            "--engine=processes."
        ) from None
    more = {} if jobs is None else {"slurm_array_parallelism": jobs}
    try:
        executor.update_parameters(name="contrastive_jax", **parameters, **more)
    except (NameError, ValueError) as error:
        said = str(error).partition("Known executors")[0]
        raise UsageError(f"--slurm: expected parameters of submitit, got others: {' '.join(said.split())}") from None
    _look_for_accounting(where)
    return executor


def _look_for_accounting(where: str) -> None:
    """Say once, where submitit would at every look, that SLURM cannot tell what became of a job."""
    if where != "slurm":
        return
    sacct = shutil.which("sacct")
    if sacct is None or subprocess.run([sacct, "--noheader"], capture_output=True, check=False).returncode:
        logging.getLogger("submitit").setLevel(logging.ERROR)
        print(
            "Job accounting is off here (sacct fails): the sweep cannot see that a job was killed, and waits for it. "
            "If squeue shows none of its jobs, end it by Ctrl-C and run the same command again.",
            file=sys.stderr,
        )


class _Run:
    """What a job does: a run, as a process.

    Some time before the limit, submitit calls `checkpoint` and has the job queued again, where it resumes the run.
    """

    _process: "subprocess.Popen[bytes] | None" = None

    def __call__(self, command: Sequence[str], output: Path) -> int:
        output.parent.mkdir(parents=True, exist_ok=True)
        with open(output, "ab") as file:
            # SLURM warns every process of the job, and the warning would end one that does not expect it.
            before = signal.pthread_sigmask(signal.SIG_BLOCK, _WARNINGS)
            try:
                self._process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT
                )
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
        try:
            while (status := self._process.poll()) is None:
                time.sleep(local.LOOK_EVERY)
        except BaseException:  # nothing would wait for it
            self._process.terminate()
            raise
        if status in (-signal.SIGTERM, 128 + signal.SIGTERM):
            _wait_for_slurm()
        return status

    def checkpoint(self, command: Sequence[str], output: Path) -> Any:
        submitit = extras.require("submitit", extra="slurm")
        if self._process is not None:
            self._process.terminate()
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self._process.pid, 0)  # Popen's own lock may be held by what this interrupts
        return submitit.helpers.DelayedSubmission(_Run(), command, output)


def _wait_for_slurm() -> None:
    """Wait for the end of this job. SLURM stops a run when it cancels the job or queues it again, and says which."""
    time.sleep(_GRACE)


def run_all(executor: Any, tasks: Sequence[local.Task], ended: Callable[[local.Task, int, str], None]) -> None:
    """Submit every task as a job of one array, and wait for all of them.

    Args:
      executor: see `make_executor`.
      tasks: what the jobs run. A job of several tasks of SLURM runs it in each of them.
      ended: called with each task, its exit status, and what SLURM says of a job that ended before its process did.

    Raises:
      UsageError: SLURM takes no such job.
      Interrupted: on SIGINT, SIGTERM and SIGHUP, after the jobs were cancelled. SLURM sends those that run a SIGTERM,
        on which they save.
    """
    submitit = extras.require("submitit", extra="slurm")
    commands, outputs = [list(task.command) for task in tasks], [task.output for task in tasks]
    inside_a_job = "SLURM_JOB_ID" in os.environ  # whose settings would be those of the jobs, too
    with local.hear_signals() as heard:
        try:
            with submitit.helpers.clean_env() if inside_a_job else contextlib.nullcontext():
                jobs = executor.map_array(_Run(), commands, outputs)
        except submitit.core.utils.FailedJobError as error:
            if heard:  # a Ctrl-C ends sbatch, too
                raise _make_interruption(heard[0], _SUBMITTED) from None
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            said = [line.removeprefix(_SBATCH) for line in lines if line.startswith(_SBATCH)]
            raise UsageError(f"--slurm: SLURM refused the jobs: {'; '.join(said or lines[-1:])}") from None
        waiting = dict(zip(jobs, tasks, strict=True))
        with _cancel_on_error(waiting):
            while waiting:
                for job in list(waiting):
                    if heard:  # before each: submitit takes a quarter of a minute to give up on a dead one
                        raise _make_interruption(heard[0], _CANCELLED)
                    if job.done():
                        ended(waiting.pop(job), *_read_outcome(job, submitit.core.utils))
                if waiting:
                    time.sleep(_LOOK_EVERY)


def _make_interruption(signum: int, what: str) -> Interrupted:
    return Interrupted(f"{signal.Signals(signum).name}: {what}", 128 + signum)


@contextlib.contextmanager
def _cancel_on_error(waiting: Mapping[Any, local.Task]) -> Iterator[None]:
    """Where an error ends the sweep, cancel its jobs: nothing would wait for them."""
    try:
        yield
    except BaseException:
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C would end scancel
        for job in waiting:
            job.cancel(check=False)
        signal.signal(signal.SIGINT, before)
        raise


def _read_outcome(job: Any, errors: Any) -> tuple[int, str]:
    """The exit status of a run, and what happened to its job if that has none.

    Of several tasks the first tells: another may still show how it ended before the job was queued again.
    """
    try:
        return job.task(0).result(), ""
    except errors.FailedJobError as error:
        lines = [line for line in str(error).splitlines() if line and not line.startswith((" ", "-", "You can"))]
        return 1, f"job {job.job_id} failed: {lines[-1]}"
    except errors.UncompletedJobError:
        return 1, f"job {job.job_id} ended in the state {job.state}"
