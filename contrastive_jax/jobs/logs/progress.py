"""The progress of a run: a bar in a terminal, one line per epoch elsewhere."""

import sys
import time
from collections.abc import Mapping
from typing import Any

from tqdm import tqdm


class Progress:
    """Counts the steps of a run and shows them. Use it as a context manager.

    Args:
      start: steps taken before this process started.
      stop: the number of steps at which this process stops.
      steps_per_epoch: steps in an epoch.
      update_size: images in a step, over all devices.
      shown: whether to print anything.
    """

    def __init__(self, start: int, stop: int, steps_per_epoch: int, update_size: int, shown: bool = True) -> None:
        self.start = start
        self._steps_per_epoch, self._update_size, self._stop = steps_per_epoch, update_size, stop
        self._taken, self._first_done, self._last = 0, 0.0, 0.0
        self._shown, self._in_terminal = shown, shown and sys.stderr.isatty()
        self._bar = tqdm(
            total=stop, initial=start, unit="step", disable=not self._in_terminal, dynamic_ncols=True, leave=True
        )

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: Any) -> None:
        self._bar.close()

    @property
    def images_per_second(self) -> float:
        """Mean speed, without the first step of this process, which compiles; 0 until the second step is done."""
        if self._taken < 2:
            return 0.0
        return (self._taken - 1) * self._update_size / (self._last - self._first_done)

    def update(self, row: Mapping[str, Any]) -> None:
        """Record that a step is done."""
        self._last = time.perf_counter()
        self._taken += 1
        if self._taken == 1:
            self._first_done = self._last
        if self._in_terminal:
            self._bar.set_postfix_str(self._describe(row), refresh=False)
            self._bar.update()
        elif self._shown and ((row["step"] + 1) % self._steps_per_epoch == 0 or row["step"] + 1 == self._stop):
            print(
                f"epoch {row['epoch'] + 1}, step {row['step'] + 1}/{self._stop}: {self._describe(row)}", file=sys.stderr
            )

    def say(self, line: str) -> None:
        """Print a line above the bar without breaking it."""
        if self._shown:
            tqdm.write(line, file=sys.stderr)

    def _describe(self, row: Mapping[str, Any]) -> str:
        text = f"loss {row['loss']:.3f}"
        if "positive_mean" in row:
            text += (
                f", positive {row['positive_mean']:.3f}, negative {row['cross_view_mean']:+.3f}"
                f", negative variance {row['cross_view_variance']:.4f}"
            )
        left = (self._stop - row["step"] - 1) * self._update_size / max(self.images_per_second, 1e-9)
        text += f", {self.images_per_second:.0f} images/s"
        if self._in_terminal or self._taken < 2:
            return text
        return f"{text}, {left:.0f} s left"


class StageProgress:
    """Shows the progress of work in stages, a bar each in a terminal and a line each elsewhere.

    Call it as (stage, done, total), as `metrics.analyze` does. Use it as a context manager.

    Args:
      names: what each stage is called on the screen, by stage.
    """

    def __init__(self, names: Mapping[str, str]) -> None:
        self._names, self._stage, self._start = names, "", 0.0
        self._in_terminal = sys.stderr.isatty()
        self._bar: Any = None

    def __enter__(self) -> "StageProgress":
        return self

    def __exit__(self, *_: Any) -> None:
        if self._bar is not None:
            self._bar.close()

    def __call__(self, stage: str, done: int, total: int) -> None:
        """So much of a stage is done."""
        name = self._names.get(stage, stage)
        if stage != self._stage:
            self.__exit__()
            self._stage, self._start = stage, time.perf_counter()
            self._bar = tqdm(total=total, desc=name, unit="", disable=not self._in_terminal, dynamic_ncols=True)
        if self._in_terminal:
            self._bar.update(done - self._bar.n)
        elif done >= total:
            print(f"{name}: {total:,} in {time.perf_counter() - self._start:.1f} s", file=sys.stderr)
