"""What the machine refuses a run: space, permission, open files. Damaged files are another matter."""

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
    errno.EACCES: "give this user permission to read and write there",
    errno.EPERM: "give this user permission to read and write there",
    errno.EROFS: "mount it writable",
    errno.EMFILE: "raise the limit on open files of this process (ulimit -n)",
    errno.EFBIG: "raise the limit on file size of this process (ulimit -f)",
    errno.ENFILE: "close files of other programs, or raise the limit on open files of the machine",
    errno.ENOMEM: "free memory",
    errno.EIO: "check the disk, or the network in front of it",
    errno.ENOTDIR: "move away the file that is in place of a folder",
    errno.EEXIST: "move away the file that is in place of a folder",
}
_NETWORK = (errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.ECONNRESET, errno.EHOSTDOWN, errno.EHOSTUNREACH)
_ADVICE |= dict.fromkeys((*_NETWORK, errno.EBUSY), "check the file system, or the network in front of it")


def find_refusal(error: BaseException) -> int | None:
    """The errno of an error that means that the machine refused something; None for any other error.

    TensorStore, which Orbax uses, copies the operating system's message into errors of other types.

    Example:
      >>> find_refusal(ValueError("RESOURCE_EXHAUSTED: writing d/1: No space left on device")) == errno.ENOSPC
      True
    """
    if isinstance(error, OSError) and error.errno in _ADVICE:
        return error.errno
    return next((number for number in _ADVICE if os.strerror(number) in str(error)), None)


@contextlib.contextmanager
def explain_refusals(workdir: Path, resumed: str | None = None) -> Iterator[None]:
    """Turn errors that mean that the machine refused something into a `StorageError`.

    Args:
      workdir: the workdir of the run.
      resumed: what the same command does then; by default, the checkpoint that the run can resume from.

    Raises:
      StorageError: with the file if it is known, what to do, and what the same command does then.
    """
    try:
        yield
    except (
        UsageError,
        SourceError,
        jax.errors.JaxRuntimeError,
    ):  # the last comes from devices, or from other processes
        raise
    except (OSError, ValueError, RuntimeError) as error:
        if (number := find_refusal(error)) is None:
            raise
        where = getattr(error, "filename", None) or workdir
        raise StorageError(
            f"{where}: {os.strerror(number)}; {_ADVICE[number]}. {resumed or _describe_last_checkpoint(workdir)}"
        ) from error


LOCK = ".lock"  # the name of the file in a locked folder


@contextlib.contextmanager
def hold_lock(folder: Path, *, option: str = "--workdir", given: Path | None = None) -> Iterator[None]:
    """Lock a folder against other processes. The operating system releases the lock however this process ends.

    Where the operating system or the file system has no locks, the folder stays unlocked.

    Args:
      folder: the folder to lock; created if it does not exist.
      option: the option of the command line that named it, for messages.
      given: what that option says; by default the folder.

    Raises:
      UsageError: if another process has locked the folder, or it is not writable.
    """
    named = f"{option}={folder if given is None else given}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / LOCK, "a+", encoding="utf-8")  # noqa: SIM115
    except OSError as error:
        raise UsageError(f"{named}: expected a folder that can be written, got {error.strerror!r}.") from None
    with lock as file:
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise UsageError(
                f"{named}: expected a path that no other process writes to, got one in use ({file.read().strip()}). "
                f"Wait for it to end, stop it, or give another {option}."
            ) from None
        except OSError:
            pass
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}\n")
        file.flush()
        yield


def list_steps(checkpoints: Path) -> list[int]:
    """The steps of the checkpoints in a folder, ascending."""
    try:
        return sorted(int(path.name) for path in checkpoints.iterdir() if path.name.isdigit())
    except OSError:
        return []


def _describe_last_checkpoint(workdir: Path) -> str:
    steps = list_steps(workdir / "checkpoints")
    if not steps:
        return "There is no checkpoint yet: the same command starts over."
    return f"The checkpoint of step {steps[-1]} is kept: the same command resumes from it."


def silence_repeated_errors() -> None:
    """Silence Orbax and TensorStore: they raise the first failure and also print every later one."""
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    before = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        # TensorStore reports every further array to an event loop that is closed or never existed.
        said = str(unraisable.exc_value)
        if said != "Event loop is closed" and "EventLoop' object has no attribute" not in said:
            before(unraisable)

    sys.unraisablehook = hook
