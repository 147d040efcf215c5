"""The words of the screen: one line, the same everywhere, and few of them where they are kept."""

import io
import sys

import numpy as np
import pytest

from contrastive_jax.jobs.logs import counter, progress

STEPS = 5  # an epoch


class Clock:
    """Time that passes only when it is told to."""

    def __init__(self):
        self.now = 100.0

    def perf_counter(self):
        return self.now


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    monkeypatch.setattr(counter, "time", clock)
    return clock


def row(step, **more):
    return {"step": step, "epoch": step // STEPS, "loss": 1.0, **more}


def take(bar, clock, steps):
    for step in steps:
        clock.now += 1.0
        bar.update(row(step))


@pytest.mark.parametrize("epochs", [1, 2, 7, 20, 21, 120, 1000])
@pytest.mark.parametrize("start", [0, 1])
def test_a_log_file_gets_about_twenty_lines(epochs, start, clock, capsys):
    stop = epochs * STEPS
    with progress.Progress(start * STEPS * (epochs // 2), stop, STEPS, 16) as bar:
        take(bar, clock, range(bar.start, stop))
    said = capsys.readouterr().err.splitlines()
    first, last = bar.start // STEPS + 1, f"epoch {epochs}, step {stop}/{stop}: loss 1.000, 16 images/s, 0 s left"
    assert said[0].startswith(f"epoch {first}, ") and said[-1] == last
    assert len(said) == len(set(said)) <= 21
    assert epochs > 20 or len(said) == epochs - first + 1


def test_a_terminal_shows_the_line_of_a_log_file(clock, monkeypatch, capsys):
    said = {}
    for name in ("terminal", "file"):
        screen = Terminal() if name == "terminal" else io.StringIO()
        monkeypatch.setattr(sys, "stderr", screen)
        clock.now = 100.0
        with progress.Progress(0, 10, STEPS, 16) as bar:
            bar._bar.ncols, bar._bar.dynamic_ncols = 200, None
            take(bar, clock, range(9))
            bar.update(row(9, evaluation_knn=0.5))
            bar._bar.refresh()
        said[name] = screen.getvalue().replace("\r", "\n").splitlines()
    assert said["file"][-1] == "epoch 2, step 10/10: loss 1.000, k-NN 0.500, 18 images/s, 0 s left"
    shown = [line for line in said["terminal"] if said["file"][-1] in line]
    assert shown and not any("\n" in line for line in shown)


def test_time_in_which_no_step_is_taken_is_left_out(clock):
    with progress.Progress(0, 10, STEPS, 16, shown=False) as bar:
        take(bar, clock, range(3))
        with bar.pause():
            clock.now += 1000.0
        take(bar, clock, range(3, 6))
        assert bar.images_per_second == 16.0


def batches_of(sizes, size=4):
    for count in sizes:
        yield {"image": np.zeros((size, 1, 1, 1), np.uint8), "mask": np.arange(size) < count}


def test_a_pass_says_that_it_begins_and_then_every_so_many_seconds(clock, capsys):
    with counter.Counter("Evaluating", 38, begins=True, least_seconds=10.0) as count:
        for _ in count.watch(batches_of([4] * 9 + [2])):
            clock.now += 4.0
    assert count.done == 38
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "Evaluating ..." and [line.split(",")[0] for line in said[1:]] == [
        "Evaluating: 12 of 38 images",
        "Evaluating: 24 of 38 images",
        "Evaluating: 36 of 38 images",
    ]
    assert said[1].endswith("1 images/s, 26 s left")


def test_a_short_pass_says_no_more(clock, capsys):
    with counter.Counter("Evaluating", 8, begins=True, least_seconds=10.0) as count:
        assert len(list(count.watch(batches_of([4, 4])))) == 2
    assert capsys.readouterr().err == "Evaluating ...\n"
