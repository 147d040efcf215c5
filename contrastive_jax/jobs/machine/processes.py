"""Several processes as one job: how they join, and which of them writes."""

import os

import jax
import orbax.checkpoint as ocp

from contrastive_jax.errors import UsageError

# The others notice a dead process after this time at the latest; a broken connection shows it sooner.
_HEARTBEAT_SECONDS = 30
_EVALUATION_SECONDS = 24 * 3600
_COUNTS = ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE")  # of the processes of a job, where a launcher says it


def start(coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None) -> None:
    """Join the other processes of this job, if there are any. Call it before any other function of JAX.

    Give all three arguments, `num_processes=1` alone, or none. Without any, JAX reads them from the environment of
    Cloud TPU, SLURM, Kubernetes or Open MPI; outside these, the job has one process. A job of one process joins nobody:
    several of them in one task of SLURM would share a port, and each would look like another that has been restarted.

    Args:
      coordinator: `host:port` of process 0; the same for all processes.
      num_processes: the number of processes.
      process_id: the index of this process, from 0.

    Raises:
      UsageError: if only some of the three are given, one is out of range, or the other processes cannot be reached.
    """
    given = coordinator is not None or num_processes is not None or process_id is not None
    if (coordinator, num_processes, process_id) == (None, 1, None) or (not given and _is_alone()):
        return
    if given:
        _check(coordinator, num_processes, process_id)
    try:
        jax.distributed.initialize(coordinator, num_processes, process_id, heartbeat_timeout_seconds=_HEARTBEAT_SECONDS)
    except ValueError:  # JAX found no cluster, so no coordinator
        if given:
            raise
    except RuntimeError as error:
        line = str(error).splitlines()[0]
        raise UsageError(
            f"expected to reach the other processes of this job, got: {line}. Check that all of them are running."
        ) from None


def _is_alone() -> bool:
    """Whether a launcher says that this job has one process."""
    return {os.environ[name] for name in _COUNTS if name in os.environ} == {"1"}


def _check(coordinator: str | None, num_processes: int | None, process_id: int | None) -> None:
    if coordinator is None or num_processes is None or process_id is None:
        raise UsageError(
            f"--coordinator={coordinator}, --num_processes={num_processes}, --process_id={process_id}: "
            "expected all three or none, or --num_processes=1 alone."
        )
    if not coordinator.rpartition(":")[2].isdigit():
        raise UsageError(f"--coordinator={coordinator}: expected HOST:PORT of process 0, the same for all processes.")
    if not 0 <= process_id < num_processes:
        raise UsageError(f"--process_id={process_id}: expected an integer from 0 to {num_processes - 1}.")


def several() -> bool:
    """Whether this job has more than one process."""
    return jax.process_count() > 1


def explain(error: Exception) -> str:
    """The message for a runtime error in a job of several processes: the likely cause and what to do."""
    line = str(error).strip().splitlines()[0]
    return (
        f"a computation with the other processes failed, most likely because one of them has ended: {line}\n"
        "The last checkpoint is kept: start all processes again with the same command to resume from it."
    )


def is_first() -> bool:
    """Whether this is process 0, which alone writes logs and pictures and shows progress."""
    return jax.process_index() == 0


def wait_for_all(what: str) -> None:
    """Wait until every process reaches this point, for up to a day; return at once in a job of one process.

    Args:
      what: the name of the point; every process passes the same.
    """
    ocp.multihost.get_barrier_sync_fn()(key=what, timeout_ms=_EVALUATION_SECONDS * 1000)
