"""The TensorBoard events of a run."""

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

logging.getLogger("tensorboardX.x2num").setLevel(logging.ERROR)  # it warns about every NaN; the run reports it once


class EventLog:
    """Writes TensorBoard events, one record for each step. Close it at the end.

    tensorboardX's `SummaryWriter` writes in a separate thread. When the disk is full, that thread dies, nothing empties
    its queue, and the next call blocks for ever. This class writes in the calling thread, so the call that fails raises
    the error.

    Args:
      folder: the folder of the event files; created if it does not exist.
      start: the first step that will be logged. TensorBoard discards earlier events from this step on.
    """

    def __init__(self, folder: Path, *, start: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._writer = EventsWriter(
            str(folder / "events"), f".{time.time_ns()}"
        )  # tensorboardX names files to the second only
        again = event_pb2.SessionLog(status=event_pb2.SessionLog.START)  # discards events from `start` on
        self._writer.write_event(event_pb2.Event(wall_time=time.time(), step=start, session_log=again))

    def write(self, step: int, numbers: Mapping[str, Any], distribution: metrics.SimilarityDistribution | None) -> None:
        """Log one step: numbers as scalars, lists as histograms, the distribution as one histogram per kind."""
        values = [value for name, x in numbers.items() for value in _summarize(name, x)]
        if distribution is not None:
            values += [
                value for kind, pairs in distribution._asdict().items() for value in _histogram(kind, pairs).value
            ]
        record = summary_pb2.Summary(value=values)
        self._writer.write_event(event_pb2.Event(wall_time=time.time(), step=step, summary=record))

    def flush(self) -> None:
        """Force all events to disk."""
        self._writer.flush()

    def close(self) -> None:
        """Write the remaining events and close the file."""
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
