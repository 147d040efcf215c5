"""Checkpoints: Orbax writes them asynchronously, keeps the last few, and stores a digest with each."""

import hashlib
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from contrastive_jax.errors import DamagedError, UsageError
from contrastive_jax.jobs.machine import processes, saved_encoders, storage
from contrastive_jax.training.step import TrainState

_ITEM, _DIGEST = saved_encoders.ITEM, saved_encoders.DIGEST
_STRUCTURE = "sha256 of the names of the arrays"
_RESTORE_CODE = "Restore the code of the encoder, the head, the loss or the optimizer, or give another workdir."


class _Manager(ocp.CheckpointManager):
    """Orbax's, which leaves pre-emption to `signals`.

    By itself it takes the time since the last checkpoint at such a step, and cannot where the last one is from before
    the run was resumed: initialised lightly, it has not read when that was (0.12).
    """

    def reached_preemption(self, step: int) -> bool:
        return False


class Checkpoints:
    """The checkpoints of one run. Each holds one copy of the state, on any number of devices.

    Use it as a context manager: on exit it waits for pending writes, unless another process of the job has failed,
    because then they can never finish.

    Args:
      directory: the folder of the checkpoints; created if it does not exist.
      keep: how many checkpoints to keep.
    """

    def __init__(self, directory: Path, *, keep: int) -> None:
        self._directory = directory.absolute()
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            enable_async_checkpointing=True,
            lightweight_initialize=True,  # reads metadata, which may be damaged, only on restore
        )
        self._manager = _Manager(self._directory, options=options, item_names=(_ITEM,))

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        if kind is None or not issubclass(kind, jax.errors.JaxRuntimeError):
            self._manager.close()

    @property
    def latest_step(self) -> int | None:
        """The step of the last checkpoint; None if there is none."""
        return self._manager.latest_step()

    def save(self, state: TrainState) -> None:
        """Start writing a state. The caller may donate the state and go on at once.

        Raises:
          OSError, ValueError: if the previous checkpoint could not be written.
        """
        state = jax.tree.map(np.asarray, state)
        metadata = {_DIGEST: digest(state), _STRUCTURE: _digest_names(state), **saved_encoders.describe(state)}
        saved = ocp.args.Composite(**{_ITEM: ocp.args.StandardSave(state)})
        self._manager.save(int(state.step), args=saved, custom_metadata=metadata)

    def wait(self) -> None:
        """Wait until the last checkpoint is on disk.

        Raises:
          OSError, ValueError: if it could not be written.
        """
        self._manager.wait_until_finished()

    def restore(self, like: TrainState, step: int | None = None) -> TrainState:
        """Read a checkpoint as NumPy arrays.

        Args:
          like: a state of the same structure, shapes and dtypes.
          step: the step of the checkpoint; by default the last.

        Returns:
          The state.

        Raises:
          DamagedError: if the files cannot be read as a state like `like`, or the state differs from the saved one.
          UsageError: if it is the checkpoint of another model, loss or optimizer.
          OSError, ValueError: if the machine refuses to read it (see `storage.find_refusal`).
        """
        step = self.latest_step if step is None else step
        target = jax.tree.map(lambda x: np.zeros(np.shape(x), x.dtype), like)
        try:
            wanted = ocp.args.Composite(**{_ITEM: ocp.args.StandardRestore(target)})
            state = self._manager.restore(step, args=wanted)[_ITEM]
            saved = self._read_metadata(step).get(_DIGEST)
        except MemoryError:
            raise
        except Exception as error:  # damaged files make Orbax raise errors of any type
            if storage.find_refusal(error) is not None:
                raise
            self._compare_structure(step, like)
            line = (str(error).strip() or "no message").splitlines()[0]
            raise DamagedError(f"{type(error).__name__}: {line[:200]}") from error
        if saved is None:
            raise DamagedError(f"expected a {_DIGEST} in its metadata, found none")
        if int(state.step) != step:
            raise DamagedError(f"expected the state of step {step}, got that of step {int(state.step)}")
        if saved != digest(state):
            raise DamagedError(f"expected the arrays that were saved, got others: their {_DIGEST} differs")
        _compare_shapes(state, like, self._directory / str(step))
        return state

    def _read_metadata(self, step: int | None) -> dict[str, Any]:
        return self._manager.metadata(step).custom_metadata or {}

    def _compare_structure(self, step: int | None, like: TrainState) -> None:
        """Refuse a checkpoint whose arrays have other names than those of `like`, if its metadata can be read."""
        names = _digest_names(like)
        try:
            saved = self._read_metadata(step).get(_STRUCTURE, names)
        except Exception:  # damaged, too
            return
        if saved != names:
            raise UsageError(
                f"{self._directory / str(step)}: expected the model that the run began with, got one whose state has "
                f"arrays of other names. {_RESTORE_CODE}"
            )

    def resume(self, like: TrainState, *, max_step: int) -> TrainState | None:
        """Read the newest undamaged checkpoint of at most `max_step` steps.

        This method moves newer checkpoints to the folder `damaged`, next to the folder of checkpoints, and prints why.
        It removes a checkpoint that a killed run had only begun to write.

        Args:
          like: a state of the same structure, shapes and dtypes.
          max_step: steps that the log holds. A run that resumed from a later step would leave a gap in the log.

        Returns:
          The state; None if there are no checkpoints at all.

        Raises:
          DamagedError: if there are checkpoints, but the run can resume from none of them. All are left in place.
        """
        if processes.is_first():
            self._remove_unfinished()
        faults: dict[int, str] = {}
        for step in reversed(storage.list_steps(self._directory)):
            state, fault = self._try_restore(like, step, max_step)
            if state is not None:
                self._set_aside(faults)
                return state
            faults[step] = fault
        if faults:
            lines = [f"{self._directory / str(step)}: {fault}." for step, fault in faults.items()]
            advice = (
                "The run can resume from none of them: restore a copy of one, or move the folder away to start over."
            )
            raise DamagedError("\n".join([*lines, advice]))
        return None

    def _remove_unfinished(self) -> None:
        for path in self._directory.iterdir():
            if ocp.utils.is_tmp_checkpoint(path):
                shutil.rmtree(path)

    def _try_restore(self, like: TrainState, step: int, max_step: int) -> tuple[TrainState | None, str]:
        """The state, and why it is None: a state counts only if every process can read it."""
        state, fault = None, "another process cannot read it"
        try:
            if step > max_step:
                raise DamagedError(f"expected a log of at least {step} steps, got {max_step} complete ones")
            state = self.restore(like, step)
        except DamagedError as error:
            fault = str(error)
        whole = not processes.several() or multihost_utils.process_allgather(np.array(state is not None)).all()
        return (state if whole else None), fault

    def _set_aside(self, faults: dict[int, str]) -> None:
        if not faults:
            return
        if processes.is_first():
            for step, fault in faults.items():
                place = _find_free_path(self._directory.parent / "damaged", str(step))
                place.parent.mkdir(exist_ok=True)
                os.rename(self._directory / str(step), place)
                print(f"Moved the checkpoint of step {step} to {place}: {fault}.", file=sys.stderr)
        processes.wait_for_all("set aside")
        self._manager.reload()


def _compare_shapes(state: Any, like: Any, where: Path) -> None:
    """Refuse an undamaged checkpoint of another model than the one that goes on from it."""
    pairs = zip(jax.tree_util.tree_flatten_with_path(like)[0], jax.tree.leaves(state), strict=True)
    for (path, ours), theirs in pairs:
        if (np.shape(ours), ours.dtype) != (np.shape(theirs), theirs.dtype):
            name = jax.tree_util.keystr(path)
            raise UsageError(
                f"{where}: expected the model that the run began with, whose {name} is {theirs.dtype}"
                f"{list(np.shape(theirs))}, got {ours.dtype}{list(np.shape(ours))}. {_RESTORE_CODE}"
            )


def digest(state: Any) -> str:
    """The SHA-256 of all arrays of a state, including their paths, dtypes and shapes.

    Example:
      >>> digest({"a": np.zeros(2)}) == digest({"a": np.zeros(2)})
      True
      >>> digest({"a": np.zeros(2)}) == digest({"b": np.zeros(2)})
      False
    """
    found = hashlib.sha256()
    for path, x in jax.tree_util.tree_flatten_with_path(state)[0]:
        x = np.asarray(x)
        found.update(f"{jax.tree_util.keystr(path)} {x.dtype} {x.shape};".encode())
        found.update(np.ascontiguousarray(x).reshape(-1).view(np.uint8).data)
    return found.hexdigest()


def _digest_names(state: Any) -> str:
    paths = (jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_flatten_with_path(state)[0])
    return hashlib.sha256(";".join(paths).encode()).hexdigest()


def _find_free_path(folder: Path, name: str) -> Path:
    """A path in a folder that does not exist yet: `name`, else `name-2`, `name-3`, ..."""
    return next(path for path in _number_paths(folder / name) if not path.exists())


def _number_paths(path: Path) -> Iterator[Path]:
    yield path
    k = 2
    while True:
        yield path.with_name(f"{path.name}-{k}")
        k += 1
