"""A profiler's trace of some steps of a run."""

import sys
from pathlib import Path
from typing import Any

import jax

from contrastive_jax.errors import UsageError


def parse_span(text: str) -> range:
    """The steps that `--profile=START:STOP` names: from START, counted from 0, up to but without STOP.

    Raises:
      UsageError: if the text is not two whole numbers in order.

    Example:
      >>> parse_span("20:25")
      range(20, 25)
    """
    start, colon, stop = text.partition(":")
    if not (colon and start.isdigit() and stop.isdigit() and int(start) < int(stop)):
        raise UsageError(f"--profile={text}: expected START:STOP, whole numbers with START < STOP, such as 20:25.")
    return range(int(start), int(stop))


class Profiler:
    """Traces some steps of a run with JAX's profiler. Use it as a context manager around all steps.

    The trace lies in `folder`: for TensorBoard's profile plugin (XProf), and as `perfetto_trace.json.gz` for
    https://ui.perfetto.dev. Operations are grouped by the named scopes `views`, `encoder`, `loss`, `distribution` and
    `update`.

    Args:
      folder: where the trace goes.
      steps: the steps to trace; None for none.
    """

    def __init__(self, folder: Path, steps: range | None) -> None:
        self._folder, self._steps = folder, steps or range(0)
        self._first: int | None = None  # the first step of the trace, while there is one

    def __enter__(self) -> "Profiler":
        return self

    def __exit__(self, *_: Any) -> None:
        if self._first is not None:
            self._stop(None)
        elif self._steps:
            print(f"No trace was written: this start took none of the steps {_name(self._steps)}.", file=sys.stderr)

    def before(self, step: int, state: Any) -> None:
        """Start or stop the trace before a step.

        Args:
          step: steps taken so far.
          state: what the last step returns; the trace ends once it is ready.
        """
        if self._first is None and step in self._steps:
            jax.block_until_ready(state)
            jax.profiler.start_trace(self._folder, create_perfetto_trace=True)
            self._first = step
        elif self._first is not None and step >= self._steps.stop:
            jax.block_until_ready(state)
            self._stop(step)

    def _stop(self, step: int | None) -> None:
        assert self._first is not None
        jax.profiler.stop_trace()
        traced = range(self._first, step or self._steps.stop)
        print(f"Wrote a profiler trace of steps {_name(traced)} to {self._folder}.", file=sys.stderr)
        self._first, self._steps = None, range(0)


def _name(steps: range) -> str:
    return f"{steps.start} to {steps.stop - 1}"
