"""A workdir belongs to one run at a time, and to one configuration and one data set."""

import contextlib
import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

from contrastive_jax.data import sources
from contrastive_jax.errors import UsageError
from contrastive_jax.jobs import config as config_lib
from contrastive_jax.jobs.job import Job
from contrastive_jax.jobs.machine import files, processes, storage

CONFIG, DATA = "config.json", "data.json"
_CHANGEABLE = (
    "checkpoint.every",
    "checkpoint.keep",
    "data.cache_gib",
    "data.evaluation_source",
    "log.pictures",
    "log.tensorboard_every",
    "nonfinite_limit",
    "on_nonfinite",
)


def may_differ(path: str, recorded: Collection[str]) -> bool:
    """Whether a field may differ when a run is resumed. No such field changes what is trained, except through `skip`.

    A run whose evaluation differs is evaluated again. A run that was recorded without a field is of another version,
    and is not resumed.

    Args:
      path: the field.
      recorded: the fields of the run's `config.json`, by their paths.

    Example:
      >>> recorded = {"evaluation.draws": 5, "seed": 0}
      >>> [may_differ(path, recorded) for path in ("evaluation.draws", "evaluation.every", "seed")]
      [True, False, False]
    """
    return path in recorded and (path in _CHANGEABLE or path.startswith("evaluation."))


def is_evaluated_again(path: str, value: Any) -> bool:
    """Whether a run that is done is evaluated again because a field that may differ has this value now.

    Example:
      >>> is_evaluated_again("evaluation.draws", 5), is_evaluated_again("checkpoint.keep", 3)
      (True, False)
    """
    asks_for_pictures = path == "log.pictures" and value
    return path.startswith("evaluation.") or path == "data.evaluation_source" or asks_for_pictures


@contextlib.contextmanager
def claim_workdir(job: Job) -> Iterator[None]:
    """Claim a workdir for this run, or confirm the claim, and lock it against other runs.

    Raises:
      UsageError: if it cannot be written, another run is going on there, or it holds a run of another configuration
        or of other training images.
    """
    with storage.hold_lock(job.workdir) if processes.is_first() else contextlib.nullcontext():
        if processes.is_first():
            _compare_config(job)
            _compare_data(job)
            _write(job)
        processes.wait_for_all("claim_workdir")
        if not processes.is_first():
            _find_claimed(job)
        yield


def _write(job: Job) -> None:
    for name, text in (
        (CONFIG, job.config.to_json(indent=2)),
        (DATA, json.dumps(job.fingerprints, indent=2)),
    ):
        path = job.workdir / name
        if path.exists() and path.read_text() == f"{text}\n":
            continue
        with files.replace_atomically(path) as temporary:
            temporary.write_text(f"{text}\n")


def _find_claimed(job: Job) -> None:
    """Check the workdir that the first process has claimed."""
    if not (job.workdir / CONFIG).exists():
        raise UsageError(
            f"--workdir={job.workdir}: expected a folder that all processes share; process {jax.process_index()} does "
            "not see what process 0 wrote there."
        )
    _compare_config(job)
    _compare_data(job)


def _compare_config(job: Job) -> None:
    path = job.workdir / CONFIG
    if not path.exists():
        return
    differ = describe_differences(json.loads(job.config.to_json()), _read(path))
    if differ:
        raise UsageError(
            f"--workdir={job.workdir}: expected a run with the same configuration, got another: {', '.join(differ)}. "
            "Give another workdir, or restore these fields to resume that run."
        )


def describe_differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """The fields that keep a run from being resumed, with both values.

    Args:
      ours: the configuration of the run as it is asked for.
      theirs: what its `config.json` holds.

    Example:
      >>> describe_differences({"seed": 0, "log": {"pictures": True}}, {"seed": 1})
      ['log.pictures (unknown to the version that wrote the run, here True)', 'seed (there 1, here 0)']
    """
    here, there = config_lib.flatten(ours), config_lib.flatten(theirs)
    described = []
    for name in sorted(there.keys() | here.keys()):
        if there.get(name) == here.get(name) or may_differ(name, there):
            continue
        if name not in there:
            described.append(f"{name} (unknown to the version that wrote the run, here {here[name]!r})")
        elif name not in here:
            described.append(f"{name} (there {there[name]!r}, unknown here)")
        else:
            described.append(f"{name} (there {there[name]!r}, here {here[name]!r})")
    return described


def _compare_data(job: Job) -> None:
    """Check that the training images are those that the run began with. The test images may differ."""
    path = job.workdir / DATA
    if not path.exists():
        return
    begun = _read(path).get("train")
    if not isinstance(begun, dict):
        raise UsageError(f"{path}: expected what a run wrote of its training images, got none. Give another workdir.")
    differs = sources.compare_fingerprints(begun, job.fingerprints["train"])
    if differs is not None:
        raise UsageError(
            f"config.data.source={job.config.data.source!r}: {differs}. Give another workdir to begin a run with these."
        )


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        raise UsageError(f"{path}: expected the JSON that a run wrote ({error}). Give another workdir.") from None
    if not isinstance(found, dict):
        raise UsageError(f"{path}: expected the JSON object that a run wrote, got another. Give another workdir.")
    return found
