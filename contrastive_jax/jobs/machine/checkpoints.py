"""Checkpoints: Orbax, asynchronous, the last few kept, each with a digest of what it holds."""

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

from contrastive_jax.errors import DamagedError
from contrastive_jax.jobs.machine import processes, storage
from contrastive_jax.training.step import TrainState

_ITEM, _DIGEST = "state", "sha256"


class Checkpoints:
    """The checkpoints of one run, one copy of the state each, whatever the number of devices.

    Use as a context manager: leaving it waits for writes under way, unless another process of the job has failed, with
    which they would have ended.
    """

    def __init__(self, directory: Path, *, keep: int):
        self._directory = directory.absolute()
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            enable_async_checkpointing=True,
            lightweight_initialize=True,  # no step's metadata, which may be damaged, before it is restored
        )
        self._manager = ocp.CheckpointManager(self._directory, options=options, item_names=(_ITEM,))

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        if kind is None or not issubclass(kind, jax.errors.JaxRuntimeError):
            self._manager.close()

    @property
    def latest_step(self) -> int | None:
        """Steps taken at the last checkpoint; None where there is none."""
        return self._manager.latest_step()

    def save(self, state: TrainState) -> None:
        """Start writing a state; the caller may go on, and donate it, at once.

        Raises:
          OSError, ValueError: if the one before could not be written.
        """
        state = jax.tree.map(np.asarray, state)
        saved = ocp.args.Composite(**{_ITEM: ocp.args.StandardSave(state)})
        self._manager.save(int(state.step), args=saved, custom_metadata={_DIGEST: digest(state)})

    def wait(self) -> None:
        """Wait until what was saved is on the disk.

        Raises:
          OSError, ValueError: if it could not be written.
        """
        self._manager.wait_until_finished()

    def restore(self, like: TrainState, step: int | None = None) -> TrainState:
        """The checkpoint of a step, by default the last, as NumPy arrays in the structure of `like`.

        Raises:
          DamagedError: if it cannot be read as what it should be, or is not what was saved.
          OSError, ValueError: if the machine refuses to read it (see `storage.find_refusal`).
        """
        step = self.latest_step if step is None else step
        target = jax.tree.map(lambda x: np.zeros(np.shape(x), x.dtype), like)
        try:
            wanted = ocp.args.Composite(**{_ITEM: ocp.args.StandardRestore(target)})
            state = self._manager.restore(step, args=wanted)[_ITEM]
            saved = (self._manager.metadata(step).custom_metadata or {}).get(_DIGEST)
        except MemoryError:
            raise
        except Exception as error:  # whatever damaged files make of Orbax, which is open
            if storage.find_refusal(error) is not None:
                raise
            line = (str(error).strip() or "nothing more is known").splitlines()[0]
            raise DamagedError(f"{type(error).__name__}: {line[:200]}") from error
        if saved is None:
            raise DamagedError(f"its {_DIGEST} is not there")
        if int(state.step) != step:
            raise DamagedError(f"it is of step {int(state.step)}")
        if saved != digest(state):
            raise DamagedError(f"its arrays are not those that were saved: their {_DIGEST} differs")
        return state

    def resume(self, like: TrainState, *, max_step: int) -> TrainState | None:
        """The newest checkpoint that is whole, of at most so many steps; None where there is none of any kind.

        Those that are newer are set aside, in the folder `damaged` beside that of the checkpoints, and it is said why.
        What a run that was killed had begun to write is removed.

        Args:
          like: a state of the same structure.
          max_step: steps that the log holds; a run that went on from a later one would leave a gap in it.

        Raises:
          DamagedError: if there are checkpoints, but none to go on from; all are left where they are.
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
            advice = "None is left to go on from: put a copy of one back, or move that folder away to begin again."
            raise DamagedError("\n".join([*lines, advice]))
        return None

    def _remove_unfinished(self) -> None:
        for path in self._directory.iterdir():
            if ocp.utils.is_tmp_checkpoint(path):
                shutil.rmtree(path)

    def _try_restore(self, like, step, max_step) -> tuple[TrainState | None, str]:
        """The state, or what is wrong with it in any process."""
        state, fault = None, "another process cannot read it"
        try:
            if step > max_step:
                raise DamagedError(f"the log beside it is whole up to step {max_step} only")
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
                print(f"The checkpoint of step {step} is set aside in {place}: {fault}.", file=sys.stderr)
        processes.wait_for_all("set aside")
        self._manager.reload()


def digest(state: Any) -> str:
    """The SHA-256 of all arrays of a state, with their places, dtypes and shapes.

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


def _find_free_path(folder: Path, name: str) -> Path:
    """A path in a folder that is not there yet."""
    return next(path for path in _number_paths(folder / name) if not path.exists())


def _number_paths(path: Path) -> Iterator[Path]:
    yield path
    k = 2
    while True:
        yield path.with_name(f"{path.name}-{k}")
        k += 1
