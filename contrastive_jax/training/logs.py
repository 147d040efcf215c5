"""What a run writes at every step, and how it picks its files up again after an interruption."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tensorboardX import SummaryWriter

from contrastive_jax import files, metrics, theory

KINDS = metrics.SimilarityDistribution._fields
MOMENTS = ("count", "mean", "variance", "least", "greatest")


def record(step: int, outputs: Mapping[str, Any], *, epoch: int, num_instances: int, contrast_size: int) -> dict:
    """One step as a flat dict of Python numbers: the scalars, the distribution's moments, and the theory's values."""
    row: dict[str, Any] = {"step": step, "epoch": epoch}
    row |= {name: float(value) for name, value in outputs.items() if name != "distribution"}
    if "distribution" not in outputs:
        return row
    row |= flat_moments(outputs["distribution"])
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
    """metrics.jsonl, the histograms' counts, and TensorBoard events, each step in each once and in order.

    Use as a context manager. The counts are appended to `similarity.counts` (uint32, [3, num_bins] a step) while the
    run goes on; `read_counts` reads them back.
    """

    def __init__(self, workdir: Path, *, start: int, num_bins: int, tensorboard_every: int):
        self._num_bins = num_bins
        self._tensorboard_every = tensorboard_every
        counts_path = workdir / "similarity.counts"
        _keep_steps_before(workdir / "metrics.jsonl", start)
        _keep_bytes(counts_path, start * self._bytes_a_step)
        self._rows = open(workdir / "metrics.jsonl", "a", encoding="utf-8")  # noqa: SIM115
        self._counts = open(counts_path, "ab")  # noqa: SIM115
        self._events = SummaryWriter(str(workdir / "tensorboard"), purge_step=start, flush_secs=30)

    def __enter__(self) -> "StepLog":
        return self

    def __exit__(self, *_: Any) -> None:
        for file in (self._rows, self._counts, self._events):
            file.close()

    @property
    def _bytes_a_step(self) -> int:
        return len(KINDS) * self._num_bins * np.dtype(np.uint32).itemsize

    def write(
        self,
        row: Mapping[str, Any],
        distribution: metrics.SimilarityDistribution | None,
        *,
        images_per_second: float,
    ) -> None:
        """Log one step. The speed goes to TensorBoard alone: all else is the same however often a run is resumed."""
        self._rows.write(json.dumps(row) + "\n")
        if distribution is not None:
            self._counts.write(np.stack([pairs.counts for pairs in distribution]).astype(np.uint32).tobytes())
        if row["step"] % self._tensorboard_every == 0:
            self._write_events({**row, "images_per_second": images_per_second}, distribution)

    def _write_events(self, row, distribution):
        for name, value in row.items():
            if name not in ("step", "epoch") and not name.endswith("_count"):
                self._events.add_scalar(name, value, row["step"])
        if distribution is None:
            return
        edges = metrics.similarity_edges(self._num_bins)
        for kind, pairs in distribution._asdict().items():
            count, mean = float(pairs.count), float(pairs.mean)
            self._events.add_histogram_raw(
                f"similarity/{kind}",
                min=float(pairs.least),
                max=float(pairs.greatest),
                num=count,
                sum=count * mean,
                sum_squares=count * (float(pairs.variance) + mean**2),
                bucket_limits=edges[1:].tolist(),
                bucket_counts=pairs.counts.tolist(),
                global_step=row["step"],
            )

    def flush(self) -> None:
        """Hand what was written to the operating system, so that a checkpoint never knows more than the log."""
        for file in (self._rows, self._counts, self._events):
            file.flush()


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


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a `metrics.jsonl`."""
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def _keep_steps_before(path: Path, start: int) -> None:
    """Drop the rows of steps that will be taken again."""
    if not path.exists():
        return
    kept = path.read_text(encoding="utf-8").splitlines(keepends=True)[:start]
    with files.replacing(path) as temporary:
        temporary.write_text("".join(kept), encoding="utf-8")


def _keep_bytes(path: Path, size: int) -> None:
    if path.exists() and path.stat().st_size > size:
        os.truncate(path, size)
