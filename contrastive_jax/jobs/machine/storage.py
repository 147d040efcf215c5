"""What a machine refuses a run - space, permission, open files - told from all that can be wrong with what it holds."""

import contextlib
import errno
import logging
import os
import platform
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from contrastive_jax.errors import SourceError, StorageError, UsageError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_ADVICE = {
    errno.ENOSPC: "make room",
    errno.EDQUOT: "make room within the quota",
    errno.EACCES: "give this user the right to read and write there",
    errno.EPERM: "give this user the right to read and write there",
    errno.EROFS: "mount it for writing",
    errno.EMFILE: "raise this process's limit of open files (ulimit -n)",
    errno.EFBIG: "raise this process's limit of a file's size (ulimit -f)",
    errno.ENFILE: "close files of other programs, or raise the machine's limit of them",
    errno.ENOMEM: "free memory",
    errno.EIO: "see to the disk, or the network before it",
    errno.ENOTDIR: "move the file away that lies where a folder is wanted",
    errno.EEXIST: "move the file away that lies where a folder is wanted",
}
_NETWORK = (errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.ECONNRESET, errno.EHOSTDOWN, errno.EHOSTUNREACH)
_ADVICE |= dict.fromkeys((*_NETWORK, errno.EBUSY), "see to the file system, or the network before it")


def refusal(error: BaseException) -> int | None:
    """The errno behind an error, if the machine refused something; None for any other error.

    TensorStore, beneath Orbax, puts the operating system's words into errors of other types.

    Example:
      >>> refusal(ValueError("RESOURCE_EXHAUSTED: writing d/1: No space left on device")) == errno.ENOSPC
      True
    """
    if isinstance(error, OSError) and error.errno in _ADVICE:
        return error.errno
    return next((number for number in _ADVICE if os.strerror(number) in str(error)), None)


@contextlib.contextmanager
def refusals_explained(workdir: Path) -> Iterator[None]:
    """Turn what the machine refuses within this context into a `StorageError`.

    Raises:
      StorageError: naming the file where it is known, and the last checkpoint, from which the run can go on.
    """
    try:
        yield
    except (UsageError, SourceError, jax.errors.JaxRuntimeError):  # the last is of devices, or of other processes
        raise
    except (OSError, ValueError, RuntimeError) as error:
        if (number := refusal(error)) is None:
            raise
        where = getattr(error, "filename", None) or workdir
        raise StorageError(f"{where}: {os.strerror(number)}; {_ADVICE[number]}. {_kept(workdir)}") from error


@contextlib.contextmanager
def hold_lock(workdir: Path) -> Iterator[None]:
    """Keep every other run out of a workdir; however this one ends, the operating system lets go of it.

    Where the system or the file system knows no locks, nothing is done.

    Raises:
      UsageError: if another run is going on there, or nothing can be written there.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        lock = open(workdir / ".lock", "a+", encoding="utf-8")  # noqa: SIM115
    except OSError as error:
        raise UsageError(f"--workdir={workdir} cannot be written: {error.strerror}.") from None
    with lock as file:
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise UsageError(
                f"--workdir={workdir}: another run is going on there ({file.read().strip()}). "
                "Wait for its end, end it, or give another workdir."
            ) from None
        except OSError:
            pass
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}\n")
        file.flush()
        yield


def steps_of(checkpoints: Path) -> list[int]:
    """The steps that a folder of checkpoints holds, ascending."""
    try:
        return sorted(int(path.name) for path in checkpoints.iterdir() if path.name.isdigit())
    except OSError:
        return []


def _kept(workdir: Path) -> str:
    steps = steps_of(workdir / "checkpoints")
    if not steps:
        return "There is no checkpoint yet: the same command begins again."
    return f"The checkpoint of step {steps[-1]} is kept: the same command goes on from it."


def silence_followers() -> None:
    """Silence Orbax and TensorStore: they raise the first failure and also print every later one."""
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    before = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        # What TensorStore wants to say of each further array to an event loop, which is gone by then or never was.
        said = str(unraisable.exc_value)
        if said != "Event loop is closed" and "EventLoop' object has no attribute" not in said:
            before(unraisable)

    sys.unraisablehook = hook
