"""What becomes of each step's outputs: logged, shown, and refused where they are not finite."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from contrastive_jax.errors import NonFiniteError
from contrastive_jax.jobs.job import Job
from contrastive_jax.jobs.logs import progress
from contrastive_jax.jobs.logs import rows as logs
from contrastive_jax.jobs.machine.checkpoints import Checkpoints
from contrastive_jax.training.step import MUST_BE_FINITE


class Recorder:
    """Logs each step while the next one runs, so that reading a step's metrics never holds the devices up."""

    def __init__(self, job: Job, log: logs.StepLog | None, bar: progress.Progress, checkpoints: Checkpoints):
        self._job, self._log, self._bar, self._checkpoints = job, log, bar, checkpoints
        self._pending: Mapping[str, Any] | None = None
        self.step = bar.start

    def add(self, outputs: Mapping[str, Any]) -> None:
        """Take the outputs of a step, and log those of the one before."""
        self.settle()
        self._pending = outputs
        self.step += 1

    def settle(self) -> None:
        """Wait for the step last taken, and log it.

        Raises:
          NonFiniteError: with what is needed to look into it in `nonfinite.jsonl`.
        """
        if self._pending is None:
            return
        outputs, self._pending = jax.device_get(self._pending), None
        step = self.step - 1
        row = logs.record(
            step,
            outputs,
            epoch=self._job.order.epoch(step),
            num_instances=len(self._job.train),
            contrast_size=self._job.contrast_size,
        )
        self._bar.update(row)
        if self._log is not None:
            self._log.write(row, outputs.get("distribution"), images_per_second=self._bar.images_per_second)
        if not np.isfinite([row[name] for name in MUST_BE_FINITE]).all():
            self._report(row)

    def flush(self) -> None:
        """Log the step last taken, and have everything logged on the disk."""
        self.settle()
        if self._log is not None:
            self._log.flush()

    def _report(self, row: Mapping[str, Any]) -> None:
        """Keep the parts of the loss and the batch's ids; end the run, unless such steps are skipped."""
        config, step = self._job.config, row["step"]
        found = f"step {step}: the loss is {row['loss']}, its gradient's norm {row['gradient_norm']}"
        found += f" and that of the parameters after it {row['parameter_norm']}"
        if self._log is not None:
            path = self._log.write_nonfinite(row, self._job.order.indices(step))
            found += f"; its parts and the batch's ids are in {path}"
        if config.on_nonfinite == "skip" and row["skipped_in_a_row"] <= config.nonfinite_limit:
            self._bar.say(f"{found}. Skipped, as {row['skipped'] - 1} before it.")
            return
        if config.on_nonfinite == "skip":
            found += f"; more than config.nonfinite_limit={config.nonfinite_limit} in a row"
        self._checkpoints.wait()
        last = self._checkpoints.latest_step
        kept = "there is no checkpoint before it" if last is None else f"the checkpoint of step {last} is kept"
        skip = "" if config.on_nonfinite == "skip" else ", or leave such steps out by config.on_nonfinite=skip"
        raise NonFiniteError(
            f"{found}; {kept}. Lower config.optimizer.learning_rate, raise config.loss.kwargs.temperature{skip}."
        )
