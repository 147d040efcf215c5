"""A run's steps for TensorBoard."""

import logging
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto import event_pb2, summary_pb2

from contrastive_jax import metrics

logging.getLogger("tensorboardX.x2num").setLevel(logging.ERROR)  # it warns of every NaN; a run tells of a step once


class EventLog:
    """TensorBoard's events, a record a step. Use as a context manager, or close it.

    tensorboardX's `SummaryWriter` writes in a thread of its own, which dies when the disk is full, and with it, for
    want of a reader, whoever logs next waits for ever. Here an error is raised where it comes about.
    """

    def __init__(self, folder: Path, *, start: int):
        folder.mkdir(parents=True, exist_ok=True)
        self._writer = EventsWriter(str(folder / "events"), f".{time.time_ns()}")  # its own name is the second's
        again = event_pb2.SessionLog(status=event_pb2.SessionLog.START)  # what was logged from `start` on is void
        self._writer.write_event(event_pb2.Event(wall_time=time.time(), step=start, session_log=again))

    def write(self, step: int, numbers: Mapping[str, Any], distribution: metrics.SimilarityDistribution | None):
        """Log one step: scalars by name, arrays as histograms and, where there is one, the distribution as three."""
        values = [value for name, x in numbers.items() for value in _summarize(name, x)]
        if distribution is not None:
            values += [
                value for kind, pairs in distribution._asdict().items() for value in _histogram(kind, pairs).value
            ]
        record = summary_pb2.Summary(value=values)
        self._writer.write_event(event_pb2.Event(wall_time=time.time(), step=step, summary=record))

    def flush(self) -> None:
        """Have what was written on the disk."""
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


def _summarize(name: str, x: Any) -> Iterable[Any]:
    if not isinstance(x, list):
        return summary.scalar(name, x).value
    finite = np.asarray(x, np.float64)
    finite = finite[np.isfinite(finite)]
    return summary.histogram(name, finite, bins="auto").value if finite.size else ()


def _histogram(kind: str, pairs: metrics.PairSimilarities) -> summary_pb2.Summary:
    count, mean = float(pairs.count), float(pairs.mean)
    return summary.histogram_raw(
        f"similarity/{kind}",
        min=float(pairs.least),
        max=float(pairs.greatest),
        num=count,
        sum=count * mean,
        sum_squares=count * (float(pairs.variance) + mean**2),
        bucket_limits=metrics.similarity_edges(len(pairs.counts))[1:].tolist(),
        bucket_counts=pairs.counts.tolist(),
    )
