"""The logs that a run writes at every step, and how a resumed run repairs and continues them."""

import contextlib
import itertools
import json
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from contrastive_jax import metrics, theory
from contrastive_jax.jobs.logs.tensorboard import EventLog
from contrastive_jax.jobs.machine import files

ROWS, COUNTS, NONFINITE = "metrics.jsonl", "similarity.counts", "nonfinite.jsonl"
DISTRIBUTION = "distribution"  # the built-in metric; a run logs its histograms too
MONITORED = "evaluation_"  # what the names of the numbers that are measured every few epochs begin with
KINDS = metrics.SimilarityDistribution._fields
SECONDS_UNTIL_SHOWN = 5.0  # whoever looks at a run that is going on sees it as it was so long ago
MOMENTS = ("count", "mean", "variance", "least", "greatest")


def make_row(
    step: int, outputs: Mapping[str, Any], *, epoch: int, num_instances: int, contrast_size: int
) -> dict[str, Any]:
    """One row of metrics.jsonl: a step's outputs as a flat dict of Python numbers and, for arrays, nested lists.

    A similarity distribution is replaced by its moments, and moments of negatives by their mean and variance. If the
    step logs the built-in distribution, the row also holds the values of `compare_with_theory`.

    Args:
      step: steps taken before this one.
      outputs: the metrics that the step returned.
      epoch: the epoch of the step, from 0.
      num_instances: n, the size of the training set.
      contrast_size: m, instances compared with each other.
    """
    row: dict[str, Any] = {"step": step, "epoch": epoch}
    for name, value in outputs.items():
        if isinstance(value, metrics.SimilarityDistribution):
            prefix = "" if name == DISTRIBUTION else f"{name}_"
            row |= {f"{prefix}{moment}": x for moment, x in flatten_moments(value).items()}
        elif isinstance(value, metrics.NegativeMoments):
            row |= {f"{name}_mean": value.mean.item(), f"{name}_variance": value.variance.item()}
        else:
            row[name] = np.asarray(value).tolist()
    if DISTRIBUTION not in outputs:
        return row
    return row | compare_with_theory(row, num_instances=num_instances, contrast_size=contrast_size)


def get_moments(distribution: metrics.SimilarityDistribution) -> dict[str, dict[str, Any]]:
    """Count, mean, variance, least and greatest of each kind of pair, as Python numbers."""
    return {
        kind: {name: getattr(pairs, name).item() for name in MOMENTS} for kind, pairs in distribution._asdict().items()
    }


def flatten_moments(distribution: metrics.SimilarityDistribution) -> dict[str, Any]:
    """The moments of `get_moments` in one dict, under the names `{kind}_{moment}`."""
    return {f"{kind}_{name}": x for kind, values in get_moments(distribution).items() for name, x in values.items()}


def compare_with_theory(row: Mapping[str, float], *, num_instances: int, contrast_size: int) -> dict[str, float]:
    """The values that theory predicts for a step: those of `compute_optimum`, and two that depend on the step.

    - `theory_positive_bound`: the greatest mean positive similarity that any encoder can reach on contrast sets with
      the measured mean of the negatives (Theorem 5.2);
    - `theory_positive_gap`: that bound minus the measured mean positive similarity.

    Args:
      row: `cross_view_mean` and `positive_mean` of the step.
      num_instances: n, the size of the training set.
      contrast_size: m, instances compared with each other.
    """
    bound = float(theory.positive_similarity_bound(row["cross_view_mean"], contrast_size))
    measured = {"theory_positive_bound": bound, "theory_positive_gap": bound - row["positive_mean"]}
    return compute_optimum(num_instances=num_instances, contrast_size=contrast_size) | measured


def compute_optimum(*, num_instances: int, contrast_size: int) -> dict[str, float]:
    """The values that theory predicts for the optimum; they depend on n and m alone.

    - `theory_full_batch_negative`: every negative similarity at the optimum of the full batch, -1/(n-1) (Theorem 5.1);
    - `theory_contrast_set_negative`: every negative similarity at the optimum of a single contrast set, -1/(m-1);
    - `theory_variance_least`, `theory_variance_greatest`: bounds on the variance of the negatives over the training set
      at the optimum of fixed contrast sets (Theorem 5.5), for the n - n mod m instances that fill whole sets.

    Args:
      num_instances: n, the size of the training set.
      contrast_size: m, instances compared with each other.
    """
    whole = num_instances - num_instances % contrast_size
    least, greatest = theory.negative_variance_bounds(whole, contrast_size)
    return {
        "theory_full_batch_negative": theory.negative_similarity_optimum(num_instances),
        "theory_contrast_set_negative": theory.negative_similarity_optimum(contrast_size),
        "theory_variance_least": least,
        "theory_variance_greatest": greatest,
    }


class StepLog:
    """Writes the logs of a run: every step exactly once, in order. Use it as a context manager.

    The files are metrics.jsonl, `similarity.counts`, TensorBoard events and nonfinite.jsonl. Each step appends
    uint64 [3, num_bins] to `similarity.counts`; `read_counts` reads them back.

    Args:
      workdir: the workdir of the run.
      start: the first step that will be logged. Steps from `start` on that an earlier process logged are dropped.
      num_bins: bins of the histograms; 0 if they are not logged.
      tensorboard_every: steps between two TensorBoard records.
    """

    def __init__(self, workdir: Path, *, start: int, num_bins: int, tensorboard_every: int) -> None:
        self._tensorboard_every = tensorboard_every
        self._workdir = workdir
        keep_steps_before(workdir, start, num_bins=num_bins)
        self._rows = open(workdir / ROWS, "a", encoding="utf-8")  # noqa: SIM115
        self._counts = open(workdir / COUNTS, "ab")  # noqa: SIM115
        self._events = EventLog(workdir / "tensorboard", start=start)
        self._shown = time.monotonic()

    def __enter__(self) -> "StepLog":
        return self

    def __exit__(self, *_: Any) -> None:
        with contextlib.ExitStack() as stack:  # close the others even if one of them fails
            for file in (self._rows, self._counts, self._events):
                stack.callback(file.close)

    def write(
        self,
        row: Mapping[str, Any],
        distribution: metrics.SimilarityDistribution | None,
        *,
        speed: Mapping[str, float],
    ) -> None:
        """Log one step.

        The speed goes to TensorBoard alone, so that the other files do not depend on the machine or on how often a run
        was resumed.
        """
        self._rows.write(json.dumps(replace_nonfinite(row)) + "\n")
        if distribution is not None:
            self._counts.write(np.stack([pairs.counts for pairs in distribution]).astype(np.uint64).tobytes())
        if time.monotonic() - self._shown >= SECONDS_UNTIL_SHOWN:
            self._publish()
        if row["step"] % self._tensorboard_every == 0 or any(name.startswith(MONITORED) for name in row):
            # TensorBoard has the step itself, and the counts in its histograms.
            counts = tuple(f"{kind}_count" for kind in KINDS)
            scalars = {
                name: x for name, x in row.items() if name not in ("step", "epoch") and not name.endswith(counts)
            }
            self._events.write(row["step"], {**scalars, **speed}, distribution)

    def _publish(self) -> None:
        """Let others see what was logged so far; unlike `flush`, this does not wait for the disk."""
        self._rows.flush()
        self._counts.flush()
        self._events.flush()
        self._shown = time.monotonic()

    def write_nonfinite(self, row: Mapping[str, Any], ids: np.ndarray) -> Path:
        """Append a non-finite step and the ids of its batch to nonfinite.jsonl, for debugging; return that path."""
        path = self._workdir / NONFINITE
        with open(path, "a", encoding="utf-8") as file:
            # JSON has no NaN or infinity; text keeps which one it was.
            parts = {name: x if _is_finite(x) else str(x) for name, x in row.items()}
            file.write(json.dumps({**parts, "ids": ids.tolist()}) + "\n")
            file.flush()
            os.fsync(file.fileno())
        return path

    def flush(self) -> None:
        """Force all rows to disk, so that a checkpoint is never ahead of the log."""
        for file in (self._rows, self._counts):
            file.flush()
            os.fsync(file.fileno())
        self._events.flush()


def read_counts(path: Path, num_bins: int) -> np.ndarray:
    """The histograms of all logged steps, uint64 [steps, 3, num_bins]."""
    return np.fromfile(path, np.uint64).reshape(-1, len(KINDS), num_bins)


def save_similarity(
    path: Path, counts: np.ndarray | None, training_set: Sequence[metrics.SimilarityDistribution]
) -> None:
    """Write `similarity.npz`: `edges` [num_bins + 1], and histograms of each kind of pair.

    Args:
      path: the file to write.
      counts: [steps, 3, num_bins], the histograms of every step, or None if they were not logged. They are saved as
        `positive`, `cross_view` and `within_view` [steps, num_bins].
      training_set: the distributions over the training set under the untrained and the trained encoder. They are saved
        as `training_set_positive`, `training_set_cross_view` and `training_set_within_view` [2, num_bins].
    """
    arrays: dict[str, Any] = {
        f"training_set_{kind}": np.stack([getattr(distribution, kind).counts for distribution in training_set])
        for kind in KINDS
    }
    if counts is not None:
        arrays |= {kind: counts[:, k] for k, kind in enumerate(KINDS)}
    edges = metrics.similarity_edges(len(training_set[0].positive.counts))
    with files.replace_atomically(path) as temporary:
        np.savez_compressed(temporary, edges=edges, **arrays)


def replace_nonfinite(tree: Any) -> Any:
    """Replace every non-finite number in nested dicts and lists by None, which JSON can represent.

    Example:
      >>> replace_nonfinite({"step": 3, "final": {"loss": math.nan}})
      {'step': 3, 'final': {'loss': None}}
    """
    if isinstance(tree, Mapping):
        return {name: replace_nonfinite(x) for name, x in tree.items()}
    if isinstance(tree, list):
        return [replace_nonfinite(x) for x in tree]
    return tree if _is_finite(tree) else None


def _is_finite(x: Any) -> bool:
    return not isinstance(x, float) or math.isfinite(x)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a `metrics.jsonl`, with NaN in place of null."""
    with open(path, encoding="utf-8") as file:
        return [_replace_nulls(json.loads(line)) for line in file]


def read_whole_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a `metrics.jsonl` that may be being written, up to the first that is cut off or out of order."""
    sizes = list(_measure_whole_rows(path))
    if not sizes:
        return []
    with open(path, "rb") as file:
        return [_replace_nulls(json.loads(file.read(size))) for size in sizes]


def _replace_nulls(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {name: _replace_nulls(x) for name, x in tree.items()}
    if isinstance(tree, list):
        return [_replace_nulls(x) for x in tree]
    return math.nan if tree is None else tree


def count_logged_steps(workdir: Path, *, num_bins: int) -> int:
    """The number of steps, counted from step 0, that the logs of a workdir hold completely.

    Args:
      workdir: the workdir of a run.
      num_bins: bins of the histograms; 0 if they are not logged.
    """
    whole = sum(1 for _ in _measure_whole_rows(workdir / ROWS))
    if not num_bins:
        return whole
    counts = workdir / COUNTS
    return min(whole, counts.stat().st_size // _bytes_per_step(num_bins)) if counts.exists() else 0


def keep_steps_before(workdir: Path, start: int, *, num_bins: int) -> None:
    """Truncate the logs of a workdir to the steps before `start`, and drop a row that was cut off.

    Args:
      workdir: the workdir of a run.
      start: the first step that will be taken again.
      num_bins: bins of the histograms; 0 if they are not logged.
    """
    sizes = itertools.islice(_measure_whole_rows(workdir / ROWS), start)
    _truncate(workdir / ROWS, sum(sizes))
    _truncate(workdir / COUNTS, start * _bytes_per_step(num_bins))
    path = workdir / NONFINITE
    if path.exists():
        lines = path.read_bytes().splitlines(keepends=True)
        kept = [line for line in lines if line.endswith(b"\n") and _read_step(line) in range(start)]
        with files.replace_atomically(path) as temporary:
            temporary.write_bytes(b"".join(kept))


def _measure_whole_rows(path: Path) -> Iterator[int]:
    """The size of each row in bytes, up to the first row that is cut off or out of order (0, 1, 2, ...)."""
    if not path.exists():
        return
    with open(path, "rb") as file:
        for step, line in enumerate(file):
            if not line.endswith(b"\n") or _read_step(line) != step:
                return
            yield len(line)


def _read_step(line: bytes) -> int | None:
    """The step of a line; None if the line is not a row."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row.get("step") if isinstance(row, dict) else None


def _truncate(path: Path, size: int) -> None:
    if path.exists() and path.stat().st_size > size:
        os.truncate(path, size)


def _bytes_per_step(num_bins: int) -> int:
    return len(KINDS) * num_bins * np.dtype(np.uint64).itemsize
