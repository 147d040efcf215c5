"""The progress of a pass over images, or over runs: a bar in a terminal, a line for every tenth elsewhere."""

import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tqdm import tqdm


class Counter:
    """Counts images, or runs, and shows how many are done. Use it as a context manager.

    Args:
      what: what is done to them, for the lines: "Embedding".
      total: the number of images.
      start: how many were done before.
      unit: what is counted.
      begins: whether a line says that it begins.
      least_seconds: between two lines, where it is no bar.

    Example:
      >>> with Counter("Embedding", 4, start=2) as counter:
      ...     counter.add(2)
      >>> counter.done
      4
    """

    def __init__(
        self,
        what: str,
        total: int,
        *,
        start: int = 0,
        unit: str = "image",
        begins: bool = False,
        least_seconds: float = 0.0,
    ) -> None:
        self.done, self._total, self._what, self._unit = start, total, what, unit
        self._start, self._began, self._said = start, time.perf_counter(), 10 * start // max(total, 1)
        self._least_seconds, self._last = least_seconds, self._began
        self._file = sys.stderr  # it may be redirected while this counts
        self._in_terminal = self._file.isatty()
        if begins and not self._in_terminal:
            print(f"{what} ...", file=self._file)
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
        now = time.perf_counter()
        if not self._in_terminal and tenths > self._said and now - self._last >= self._least_seconds:
            self._said, self._last = tenths, now
            speed = (self.done - self._start) / max(now - self._began, 1e-9)
            left = (self._total - self.done) / max(speed, 1e-9)
            print(
                f"{self._what}: {self.done} of {self._total} {self._unit}s, {speed:.{0 if speed >= 1 else 2}f} "
                f"{self._unit}s/s, {left:.0f} s left",
                file=self._file,
            )

    def watch(self, batches: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
        """Yield batches, and count the images of each, those that its `mask` keeps, once it has been used."""
        for batch in batches:
            yield batch
            self.add(int(batch["mask"].sum()))
