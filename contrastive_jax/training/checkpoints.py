"""Checkpoints: Orbax, asynchronous, the last few kept."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from contrastive_jax.training.step import TrainState


class Checkpoints:
    """The checkpoints of one run, one copy of the state each, whatever the number of devices.

    Use as a context manager: leaving it waits for writes under way, unless another process of the job has failed, with
    which they would have ended.
    """

    def __init__(self, directory: Path, *, keep: int):
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=True)
        self._manager = ocp.CheckpointManager(directory.absolute(), options=options)

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
        """Start writing a state; the caller may go on, and donate it, at once."""
        self._manager.save(int(state.step), args=ocp.args.StandardSave(jax.tree.map(np.asarray, state)))

    def restore(self, like: TrainState, step: int | None = None) -> TrainState:
        """The checkpoint of a step, by default the last, as NumPy arrays in the structure of `like`."""
        target = jax.tree.map(lambda x: np.zeros(np.shape(x), x.dtype), like)
        return self._manager.restore(self.latest_step if step is None else step, args=ocp.args.StandardRestore(target))
