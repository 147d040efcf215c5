"""What a run writes at every step, and how it picks its files up again after an signals."""

import contextlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from contrastive_jax import metrics, theory
from contrastive_jax.jobs.logs.tensorboard import EventLog
from contrastive_jax.jobs.machine import files

ROWS, COUNTS, NONFINITE = "metrics.jsonl", "similarity.counts", "nonfinite.jsonl"
DISTRIBUTION = "distribution"  # the built-in metric, whose histograms are logged as well
KINDS = metrics.SimilarityDistribution._fields
MOMENTS = ("count", "mean", "variance", "least", "greatest")


def record(step: int, outputs: Mapping[str, Any], *, epoch: int, num_instances: int, contrast_size: int) -> dict:
    """One step as a flat dict of Python numbers and, for arrays, nested lists.

    It holds what the step logs, the moments of distributions in their place, and the theory's values.
    """
    row: dict[str, Any] = {"step": step, "epoch": epoch}
    for name, value in outputs.items():
        if isinstance(value, metrics.SimilarityDistribution):
            prefix = "" if name == DISTRIBUTION else f"{name}_"
            row |= {f"{prefix}{moment}": x for moment, x in flat_moments(value).items()}
        else:
            row[name] = np.asarray(value).tolist()
    if DISTRIBUTION not in outputs:
        return row
    return row | theory_values(row, num_instances=num_instances, contrast_size=contrast_size)


def moments(distribution: metrics.SimilarityDistribution) -> dict[str, dict[str, Any]]:
    """Count, mean, variance, least and greatest of each kind of pair, as Python numbers."""
    return {
        kind: {name: getattr(pairs, name).item() for name in MOMENTS} for kind, pairs in distribution._asdict().items()
    }


def flat_moments(distribution: metrics.SimilarityDistribution) -> dict[str, Any]:
    """The same as `{kind}_{moment}`."""
    return {f"{kind}_{name}": x for kind, values in moments(distribution).items() for name, x in values.items()}


def theory_values(row: Mapping[str, float], *, num_instances: int, contrast_size: int) -> dict[str, float]:
    """What theory says of a step, beside what was measured in it: `optimum_values`, and

    - `theory_positive_bound`: the greatest mean positive similarity that any encoder reaches on contrast sets with the
      mean of negatives that was measured (Theorem 5.2), and `theory_positive_gap`: how far below it the step is.
    """
    bound = float(theory.positive_similarity_bound(row["cross_view_mean"], contrast_size))
    measured = {"theory_positive_bound": bound, "theory_positive_gap": bound - row["positive_mean"]}
    return optimum_values(num_instances=num_instances, contrast_size=contrast_size) | measured


def optimum_values(*, num_instances: int, contrast_size: int) -> dict[str, float]:
    """What theory says of the optimum, whatever was measured:

    - `theory_full_batch_negative`: every negative similarity at the full batch's optimum, -1/(n-1) (Theorem 5.1);
    - `theory_contrast_set_negative`: the same of one contrast set of m alone, -1/(m-1);
    - `theory_variance_least`, `theory_variance_greatest`: the interval of the negatives' variance over the training set
      at the optimum of fixed contrast sets (Theorem 5.5), for the n - n mod m instances that fill whole sets.
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
    """metrics.jsonl, the histograms' counts, TensorBoard events, and what was not finite: each step once and in order.

    Use as a context manager. The counts are appended to `similarity.counts` (uint32, [3, num_bins] a step) while the
    run goes on; `read_counts` reads them back. What an earlier start of the run has logged from `start` on is dropped.
    """

    def __init__(self, workdir: Path, *, start: int, num_bins: int, tensorboard_every: int):
        self._tensorboard_every = tensorboard_every
        self._workdir = workdir
        keep_steps_before(workdir, start, num_bins=num_bins)
        self._rows = open(workdir / ROWS, "a", encoding="utf-8")  # noqa: SIM115
        self._counts = open(workdir / COUNTS, "ab")  # noqa: SIM115
        self._events = EventLog(workdir / "tensorboard", start=start)

    def __enter__(self) -> "StepLog":
        return self

    def __exit__(self, *_: Any) -> None:
        with contextlib.ExitStack() as stack:  # the others too, where one cannot be
            for file in (self._rows, self._counts, self._events):
                stack.callback(file.close)

    def write(
        self,
        row: Mapping[str, Any],
        distribution: metrics.SimilarityDistribution | None,
        *,
        images_per_second: float,
    ) -> None:
        """Log one step. The speed goes to TensorBoard alone: all else is the same however often a run is resumed."""
        self._rows.write(json.dumps(with_nulls(row)) + "\n")
        if distribution is not None:
            self._counts.write(np.stack([pairs.counts for pairs in distribution]).astype(np.uint32).tobytes())
        if row["step"] % self._tensorboard_every == 0:
            scalars = {
                name: x for name, x in row.items() if name not in ("step", "epoch") and not name.endswith("_count")
            }
            self._events.write(row["step"], {**scalars, "images_per_second": images_per_second}, distribution)

    def write_nonfinite(self, row: Mapping[str, Any], ids: np.ndarray) -> Path:
        """Keep what is needed to look into a step whose loss or gradient is not finite; the file."""
        path = self._workdir / NONFINITE
        with open(path, "a", encoding="utf-8") as file:
            # JSON has no NaN, and here it matters which of them it is.
            parts = {name: x if _is_finite(x) else str(x) for name, x in row.items()}
            file.write(json.dumps({**parts, "ids": ids.tolist()}) + "\n")
            file.flush()
            os.fsync(file.fileno())
        return path

    def flush(self) -> None:
        """Have what was written on the disk, so that a checkpoint never knows more than the log."""
        for file in (self._rows, self._counts):
            file.flush()
            os.fsync(file.fileno())
        self._events.flush()


def read_counts(path: Path, num_bins: int) -> np.ndarray:
    """The histograms of all steps so far, uint32 [steps, 3, num_bins]."""
    return np.fromfile(path, np.uint32).reshape(-1, len(KINDS), num_bins)


def save_similarity(
    path: Path, counts: np.ndarray | None, training_set: Sequence[metrics.SimilarityDistribution]
) -> None:
    """Write `similarity.npz`: `edges` [num_bins + 1], and histograms of each kind of pair.

    Args:
      path: the file.
      counts: [steps, 3, num_bins] of every step, None where they were not logged; saved as `positive`, `cross_view` and
        `within_view` [steps, num_bins].
      training_set: the distributions over the training set under the untrained and the trained encoder; saved as
        `training_set_positive`, `training_set_cross_view` and `training_set_within_view` [2, num_bins].
    """
    arrays: dict[str, Any] = {
        f"training_set_{kind}": np.stack([getattr(distribution, kind).counts for distribution in training_set])
        for kind in KINDS
    }
    if counts is not None:
        arrays |= {kind: counts[:, k] for k, kind in enumerate(KINDS)}
    edges = metrics.similarity_edges(len(training_set[0].positive.counts))
    with files.replacing(path) as temporary:
        np.savez_compressed(temporary, edges=edges, **arrays)


def with_nulls(tree: Any) -> Any:
    """Nested dicts with None, which JSON has a word for, in place of every number that is not finite.

    Example:
      >>> with_nulls({"step": 3, "final": {"loss": math.nan}})
      {'step': 3, 'final': {'loss': None}}
    """
    if isinstance(tree, Mapping):
        return {name: with_nulls(x) for name, x in tree.items()}
    if isinstance(tree, list):
        return [with_nulls(x) for x in tree]
    return tree if _is_finite(tree) else None


def _is_finite(x: Any) -> bool:
    return not isinstance(x, float) or math.isfinite(x)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a `metrics.jsonl`, with NaN where null is."""
    with open(path, encoding="utf-8") as file:
        return [_with_nans(json.loads(line)) for line in file]


def _with_nans(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {name: _with_nans(x) for name, x in tree.items()}
    if isinstance(tree, list):
        return [_with_nans(x) for x in tree]
    return math.nan if tree is None else tree


def logged_steps(workdir: Path, *, num_bins: int) -> int:
    """How many steps, from the first on, are whole in the logs of a workdir.

    Args:
      workdir: of a run.
      num_bins: of the histograms; 0 where they are not logged.
    """
    whole = sum(1 for _ in _whole_rows(workdir / ROWS))
    if not num_bins:
        return whole
    counts = workdir / COUNTS
    return min(whole, counts.stat().st_size // _bytes_a_step(num_bins)) if counts.exists() else 0


def keep_steps_before(workdir: Path, start: int, *, num_bins: int) -> None:
    """Drop from the logs of a workdir the steps that will be taken again, and what is left of one that was cut off."""
    _truncate(workdir / ROWS, sum(size for _, size in zip(range(start), _whole_rows(workdir / ROWS), strict=False)))
    _truncate(workdir / COUNTS, start * _bytes_a_step(num_bins))
    path = workdir / NONFINITE
    if path.exists():
        lines = path.read_bytes().splitlines(keepends=True)
        kept = [line for line in lines if line.endswith(b"\n") and _step_of(line) in range(start)]
        with files.replacing(path) as temporary:
            temporary.write_bytes(b"".join(kept))


def _whole_rows(path: Path) -> Iterator[int]:
    """The sizes in bytes of the rows, as long as they are those of steps 0, 1, 2, ..."""
    if not path.exists():
        return
    with open(path, "rb") as file:
        for step, line in enumerate(file):
            if not line.endswith(b"\n") or _step_of(line) != step:
                return
            yield len(line)


def _step_of(line: bytes) -> int | None:
    """The step of a row; None where it is none."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row.get("step") if isinstance(row, dict) else None


def _truncate(path: Path, size: int) -> None:
    if path.exists() and path.stat().st_size > size:
        os.truncate(path, size)


def _bytes_a_step(num_bins: int) -> int:
    return len(KINDS) * num_bins * np.dtype(np.uint32).itemsize
