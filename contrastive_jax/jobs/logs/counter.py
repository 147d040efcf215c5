"""The progress of a pass over images, or over runs: a bar in a terminal, a line for every tenth elsewhere."""

import sys
import time
from typing import Any

from tqdm import tqdm


class Counter:
    """Counts images, or runs, and shows how many are done. Use it as a context manager.

    Args:
      what: what is done to them, for the lines: "Embedding".
      total: the number of images.
      start: how many were done before.
      unit: what is counted.

    Example:
      >>> with Counter("Embedding", 4, start=2) as counter:
      ...     counter.add(2)
      >>> counter.done
      4
    """

    def __init__(self, what: str, total: int, *, start: int = 0, unit: str = "image") -> None:
        self.done, self._total, self._what, self._unit = start, total, what, unit
        self._start, self._began, self._said = start, time.perf_counter(), 10 * start // max(total, 1)
        self._file = sys.stderr  # it may be redirected while this counts
        self._in_terminal = self._file.isatty()
        self._bar = tqdm(
            total=total,
            initial=start,
            desc=what,
            unit=unit,
            file=self._file,
            disable=not self._in_terminal,
            dynamic_ncols=True,
        )

    def __enter__(self) -> "Counter":
        return self

    def __exit__(self, *_: Any) -> None:
        self._bar.close()

    def add(self, count: int) -> None:
        """Record that so many more images are done."""
        self.done += count
        self._bar.update(count)
        tenths = 10 * self.done // max(self._total, 1)
        if not self._in_terminal and tenths > self._said:
            self._said = tenths
            speed = (self.done - self._start) / max(time.perf_counter() - self._began, 1e-9)
            left = (self._total - self.done) / max(speed, 1e-9)
            print(
                f"{self._what}: {self.done} of {self._total} {self._unit}s, {speed:.{0 if speed >= 10 else 2}f} "
                f"{self._unit}s/s, {left:.0f} s left",
                file=self._file,
            )
