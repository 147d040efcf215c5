"""The progress of a pass over images: a bar in a terminal, a line for every tenth elsewhere."""

import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tqdm import tqdm


class Counter:
    """Counts images and shows how many are done. Use it as a context manager.

    Args:
      what: what is done to them, for the lines: "Embedding".
      total: the number of images.
      start: how many were done before.
      begins: whether a line says that it begins.
      least_seconds: between two lines, where it is no bar.

    Example:
      >>> with Counter("Embedding", 4, start=2) as counter:
      ...     counter.add(2)
      >>> counter.done
      4
    """

    def __init__(
        self, what: str, total: int, *, start: int = 0, begins: bool = False, least_seconds: float = 0.0
    ) -> None:
        self.done, self._total, self._what = start, total, what
        self._start, self._began, self._said = start, time.perf_counter(), 10 * start // max(total, 1)
        self._least_seconds, self._last = least_seconds, self._began
        self._in_terminal = sys.stderr.isatty()
        if begins and not self._in_terminal:
            print(f"{what} ...", file=sys.stderr)
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
        now = time.perf_counter()
        if not self._in_terminal and tenths > self._said and now - self._last >= self._least_seconds:
            self._said, self._last = tenths, now
            speed = (self.done - self._start) / max(now - self._began, 1e-9)
            left = (self._total - self.done) / max(speed, 1e-9)
            print(
                f"{self._what}: {self.done} of {self._total} images, {speed:.0f} images/s, {left:.0f} s left",
                file=sys.stderr,
            )

    def watch(self, batches: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
        """Yield batches, and count the images of each, those that its `mask` keeps, once it has been used."""
        for batch in batches:
            yield batch
            self.add(int(batch["mask"].sum()))
