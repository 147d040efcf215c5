"""Handles the outputs of each step: logs them, shows them, and stops the run if they are not finite."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from contrastive_jax import metrics
from contrastive_jax.errors import NonFiniteError
from contrastive_jax.jobs.job import Job
from contrastive_jax.jobs.logs import progress
from contrastive_jax.jobs.logs import rows as logs
from contrastive_jax.jobs.machine.checkpoints import Checkpoints
from contrastive_jax.training.step import MUST_BE_FINITE


class Recorder:
    """Logs each step while the next one runs, so that the devices never wait for the host to read metrics.

    Args:
      job: the run.
      log: the logs to write; None in every process but the first.
      bar: shows the progress.
      checkpoints: the checkpoints of the run.
    """

    def __init__(self, job: Job, log: logs.StepLog | None, bar: progress.Progress, checkpoints: Checkpoints) -> None:
        self._job, self._log, self._bar, self._checkpoints = job, log, bar, checkpoints
        self._pending: Mapping[str, Any] | None = None
        self._measured: Mapping[str, float] = {}
        self.step = bar.start
        self.last_row: Mapping[str, Any] = {}

    def add(self, outputs: Mapping[str, Any]) -> None:
        """Keep the outputs of a step, and log those of the step before it."""
        self.log_pending()
        self._pending = outputs
        self.step += 1

    def attach(self, measure: Callable[[], Mapping[str, float]]) -> None:
        """Measure the encoder and log that with the last step; the time that it takes is not that of the steps."""
        jax.block_until_ready(self._pending)
        with self._bar.pause():
            self._measured = measure()

    @contextlib.contextmanager
    def wait_for_data(self) -> Iterator[None]:
        """Wait for the last step; the time from then on, within this context, is one without data for the devices."""
        jax.block_until_ready(self._pending)
        with self._bar.wait_for_data():
            yield

    def log_pending(self) -> None:
        """Wait for the last step and log it.

        Raises:
          NonFiniteError: if the loss, its gradient or the parameters are not finite and the run may not skip the step.
            `nonfinite.jsonl` then holds the parts of the loss and the ids of the batch.
        """
        if self._pending is None:
            return
        outputs, self._pending = jax.device_get(self._pending), None
        outputs = {
            name: metrics.to_host(x) if isinstance(x, metrics.SimilarityDistribution) else x
            for name, x in outputs.items()
        }
        step = self.step - 1
        row = logs.make_row(
            step,
            outputs,
            epoch=self._job.order.epoch(step),
            num_instances=len(self._job.train),
            contrast_size=self._job.contrast_size,
        )
        row, self._measured = {**row, **self._measured}, {}
        self.last_row = row
        self._bar.update(row)
        if self._log is not None:
            self._log.write(row, outputs.get("distribution"), speed=self._bar.speed)
        if not np.isfinite([row[name] for name in MUST_BE_FINITE]).all():
            self._report(row)

    def flush(self) -> None:
        """Log the last step, and force all logs to disk."""
        self.log_pending()
        if self._log is not None:
            self._log.flush()

    def _report(self, row: Mapping[str, Any]) -> None:
        """Write a non-finite step to nonfinite.jsonl; raise, unless the configuration skips such steps."""
        config, step = self._job.config, row["step"]
        found = f"step {step}: expected finite numbers, got loss {row['loss']}, gradient norm {row['gradient_norm']}"
        found += f" and parameter norm {row['parameter_norm']}"
        if self._log is not None:
            path = self._log.write_nonfinite(row, self._job.order.indices(step))
            found += f"; {path} holds the parts of the loss and the ids of the batch"
        if config.on_nonfinite == "skip" and row["skipped_in_a_row"] <= config.nonfinite_limit:
            self._bar.say(f"{found}. Skipped the step; {row['skipped'] - 1} were skipped before it.")
            return
        if config.on_nonfinite == "skip":
            found += f"; this is more than config.nonfinite_limit={config.nonfinite_limit} steps in a row"
        self._checkpoints.wait()
        last = self._checkpoints.latest_step
        kept = "there is no checkpoint before it" if last is None else f"the checkpoint of step {last} is kept"
        skip = "" if config.on_nonfinite == "skip" else ", or set config.on_nonfinite=skip to skip such steps"
        raise NonFiniteError(
            f"{found}; {kept}. Lower config.optimizer.learning_rate, raise config.loss.kwargs.temperature{skip}."
        )
