"""The progress of a pass over images: a bar in a terminal, a line for every tenth elsewhere."""

import sys
import time
from typing import Any

from tqdm import tqdm


class Counter:
    """Counts images and shows how many are done. Use it as a context manager.

    Args:
      what: what is done to them, for the lines: "Embedding".
      total: the number of images.
      start: how many were done before.

    Example:
      >>> with Counter("Embedding", 4, start=2) as counter:
      ...     counter.add(2)
      >>> counter.done
      4
    """

    def __init__(self, what: str, total: int, *, start: int = 0) -> None:
        self.done, self._total, self._what = start, total, what
        self._start, self._began, self._said = start, time.perf_counter(), 10 * start // max(total, 1)
        self._in_terminal = sys.stderr.isatty()
        self._bar = tqdm(
            total=total, initial=start, desc=what, unit="image", disable=not self._in_terminal, dynamic_ncols=True
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
                f"{self._what}: {self.done} of {self._total} images, {speed:.0f} images/s, {left:.0f} s left",
                file=sys.stderr,
            )
