"""The progress of a run: one line, redrawn in a terminal, and said at most about twenty times elsewhere."""

import contextlib
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

from tqdm import tqdm

_MOST_LINES = 20
_NOTICEABLE, _NOTICEABLE_SECONDS = 0.1, 1.0  # of waiting for data, in an epoch


class Progress:
    """Counts the steps of a run and shows them. Use it as a context manager.

    A terminal shows a bar and, after it, the line of the last step. A log file and a notebook get the same line at the
    ends of epochs: the first, the last, and those between that reach another twentieth of the run.

    Args:
      start: steps taken before this process started.
      stop: the number of steps at which this process stops.
      steps_per_epoch: steps in an epoch.
      update_size: images in a step, over all devices.
      shown: whether to print anything.
      advice: what to do where the devices wait for data.
    """

    def __init__(
        self, start: int, stop: int, steps_per_epoch: int, update_size: int, shown: bool = True, advice: str = ""
    ) -> None:
        self.start = start
        self._steps_per_epoch, self._update_size, self._stop = steps_per_epoch, update_size, stop
        self._taken, self._first_done, self._last = 0, 0.0, 0.0
        self._waited, self._began = 0.0, (0.0, 0.0)  # seconds without data; when this epoch began, and those before it
        self._advice, self._said, self._knn = advice, -1, ""
        self._shown, self._in_terminal = shown, shown and sys.stderr.isatty()
        self._bar = tqdm(
            total=stop, initial=start, bar_format="{bar:16} {desc}", disable=not self._in_terminal, dynamic_ncols=True
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

    @property
    def waited_for_data(self) -> float:
        """The share of the time, likewise without the first step, in which the devices had no data to work on."""
        return _share(self._waited, self._last - self._first_done)

    @property
    def speed(self) -> dict[str, float]:
        """Both, by name."""
        return {"images_per_second": self.images_per_second, "waited_for_data": self.waited_for_data}

    @contextlib.contextmanager
    def wait_for_data(self) -> Iterator[None]:
        """Count the time within this context as waiting for data."""
        start = time.perf_counter()
        try:
            yield
        finally:
            if self._taken:
                self._waited += time.perf_counter() - start

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Leave out the time within this context, in which no step is taken."""
        start = time.perf_counter()
        try:
            yield
        finally:
            if self._taken:
                spent = time.perf_counter() - start
                self._first_done += spent
                self._began = self._began[0] + spent, self._began[1]

    def update(self, row: Mapping[str, Any]) -> None:
        """Record that a step is done."""
        self._last = time.perf_counter()
        self._taken += 1
        if self._taken == 1:
            self._first_done, self._began = self._last, (self._last, self._waited)
        if "evaluation_knn" in row:
            self._knn = f", k-NN {row['evaluation_knn']:.3f}"
        ends = (row["step"] + 1) % self._steps_per_epoch == 0 or row["step"] + 1 == self._stop
        if self._in_terminal:
            self._bar.set_description_str(self._describe(row), refresh=False)
            self._bar.update()
        elif self._shown and ends and self._is_worth_a_line(row["step"] + 1):
            print(self._describe(row), file=sys.stderr)
        if ends:
            self._advise()
            self._began = self._last, self._waited

    def say(self, line: str) -> None:
        """Print a line above the bar without breaking it."""
        if self._shown:
            tqdm.write(line, file=sys.stderr)

    def _describe(self, row: Mapping[str, Any]) -> str:
        text = f"epoch {row['epoch'] + 1}, step {row['step'] + 1}/{self._stop}: loss {row['loss']:.3f}"
        if "positive_mean" in row:
            text += (
                f", positive {row['positive_mean']:.3f}, negative {row['cross_view_mean']:+.3f}"
                f", negative variance {row['cross_view_variance']:.4f}"
            )
        text += self._knn
        left = (self._stop - row["step"] - 1) * self._update_size / max(self.images_per_second, 1e-9)
        text += f", {self.images_per_second:.0f} images/s"
        if self._waits():
            text += f", waited for data {self._waited_in_epoch():.0%} of the time"
        return text if self._taken < 2 else f"{text}, {left:.0f} s left"

    def _is_worth_a_line(self, taken: int) -> bool:
        """Whether a line is due at the end of an epoch."""
        reached = _MOST_LINES * taken // self._stop
        due = self._said < 0 or taken == self._stop or reached > self._said
        self._said = reached if due else self._said
        return due

    def _waited_in_epoch(self) -> float:
        began, waited = self._began
        return _share(self._waited - waited, self._last - began)

    def _waits(self) -> bool:
        """Whether the devices have waited for data in this epoch for so long that it is worth saying."""
        return self._waited - self._began[1] >= _NOTICEABLE_SECONDS and self._waited_in_epoch() >= _NOTICEABLE

    def _advise(self) -> None:
        """Say what to do against waiting, once."""
        if self._waits() and self._advice:
            self.say(f"The devices waited for data {self._waited_in_epoch():.0%} of this epoch. {self._advice}")
            self._advice = ""


def _share(part: float, whole: float) -> float:
    return min(part / whole, 1.0) if whole > 0 else 0.0


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
