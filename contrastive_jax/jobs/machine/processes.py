"""Several processes as one job: starting them, and what only one of them does."""

import jax
import orbax.checkpoint as ocp

from contrastive_jax.errors import UsageError

# A process that has died is missed within this time, where no broken connection tells of it sooner.
_HEARTBEAT_SECONDS = 30
_EVALUATION_SECONDS = 24 * 3600


def start(coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None) -> None:
    """Join the other processes of this job, if there are any; before anything else is asked of JAX.

    Args:
      coordinator: `host:port` of process 0, the same for all processes, and
      num_processes: how many there are, and
      process_id: which this one is, from 0: all three, or none. Without them JAX looks for its place in what Cloud TPU,
        SLURM, Kubernetes or Open MPI tell it, and where none of them runs it, this process is alone.

    Raises:
      UsageError: if some of the three are missing or out of range, or the others cannot be reached.
    """
    given = coordinator is not None or num_processes is not None or process_id is not None
    if given:
        _check(coordinator, num_processes, process_id)
    try:
        jax.distributed.initialize(coordinator, num_processes, process_id, heartbeat_timeout_seconds=_HEARTBEAT_SECONDS)
    except ValueError:  # JAX found no cluster and so no coordinator
        if given:
            raise
    except RuntimeError as error:
        line = str(error).splitlines()[0]
        raise UsageError(f"the other processes of this job cannot be reached: {line}") from None


def _check(coordinator: str | None, num_processes: int | None, process_id: int | None) -> None:
    if coordinator is None or num_processes is None or process_id is None:
        raise UsageError(
            f"--coordinator={coordinator}, --num_processes={num_processes}, --process_id={process_id}: "
            "all three are wanted, or none."
        )
    if not coordinator.rpartition(":")[2].isdigit():
        raise UsageError(f"--coordinator={coordinator}: HOST:PORT is wanted, the same for all processes.")
    if not 0 <= process_id < num_processes:
        raise UsageError(f"--process_id={process_id}: a number from 0 to {num_processes - 1} is wanted.")


def several() -> bool:
    """Whether this job has more than one process."""
    return jax.process_count() > 1


def explain(error: Exception) -> str:
    """What an error of the runtime means for a job of several processes."""
    line = str(error).strip().splitlines()[0]
    return (
        f"a computation with the other processes failed, most likely because one of them has ended: {line}\n"
        "The last checkpoint is kept: start all processes again with the same command to go on from it."
    )


def is_first() -> bool:
    """Whether this process is the one that writes logs and pictures, and prints."""
    return jax.process_index() == 0


def wait_for_all(what: str) -> None:
    """Wait until every process has come to this point, `what`, however long it takes; nothing where one is alone."""
    ocp.multihost.get_barrier_sync_fn()(key=what, timeout_ms=_EVALUATION_SECONDS * 1000)
