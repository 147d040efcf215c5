"""Batches assembled ahead of time, by Grain's threads, within a budget of memory."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from typing import Any

import numpy as np

from contrastive_jax import extras
from contrastive_jax.data._check import take
from contrastive_jax.data._source import Source, labels_of

BUDGET_BYTES = 2**30
Batch = dict[str, np.ndarray]
Stopped = Callable[[], bool]
_PIECE = 256  # images taken at once: no thread goes on for longer after its batches are no longer wanted


def num_ahead(batch_bytes: int, most: int) -> int:
    """How many batches of so many bytes are made ahead: at most `most`, and no more than fit in 1 GiB.

    Example:
        >>> num_ahead(2**20, 4), num_ahead(400 * 2**20, 4), num_ahead(2**31, 4)
        (4, 2, 0)
    """
    return min(most, BUDGET_BYTES // max(batch_bytes, 1))


class Ahead(Iterator[Batch]):
    """The batches of `keys` in order, each assembled by a thread of Grain while earlier ones are in use.

    Args:
        assemble: (key, stopped) -> the batch; called from several threads at once. It may give up once `stopped()`.
        keys: what stands for each batch.
        num_threads: batches assembled at once; 0 assembles each when it is asked for.
        buffer_size: batches assembled ahead of the one in use.
    """

    def __init__(
        self, assemble: Callable[[int, Stopped], Batch], keys: Sequence[int], *, num_threads: int, buffer_size: int
    ) -> None:
        grain = extras.require("grain", extra="train", what="reading batches")
        self._assembled = assembled = set[int]()
        self._next, self._count = 0, len(keys)
        stop = threading.Event()

        def work(position: int) -> Batch:  # holds nothing of `self`, so that threads end with the last use of it
            try:
                return assemble(keys[position], stop.is_set)
            finally:
                assembled.add(position)

        options = grain.ReadOptions(num_threads=min(num_threads, buffer_size), prefetch_buffer_size=buffer_size)
        self._batches = iter(grain.MapDataset.range(len(keys)).map(work).to_iter_dataset(options))
        self._close = weakref.finalize(self, _close, stop, self._batches)

    def is_ready(self) -> bool:
        """Whether the next batch, its error or the end can be had without waiting."""
        return self._next in self._assembled or self._next >= self._count

    def __next__(self) -> Batch:
        if not self._close.alive:
            raise StopIteration
        try:
            batch = next(self._batches)
        except BaseException:  # the end, or an error: nothing comes after it
            self.close()
            raise
        self._assembled.discard(self._next)
        self._next += 1
        return batch

    def close(self) -> None:
        """Stop the threads, within the piece of a batch that each is at."""
        self._close()


def _close(stop: threading.Event, batches: Any) -> None:
    stop.set()
    batches.close()


def make_reader(source: Source) -> Callable[[np.ndarray, Stopped], Batch]:
    """A function (indices, stopped) -> the images, ids and labels at `indices`, checked."""
    labels = labels_of(source)  # before any thread starts: they may have to be read

    def read(indices: np.ndarray, stopped: Stopped) -> Batch:
        batch = {"image": _take_in_pieces(source, indices, stopped), "id": indices.astype(np.int32)}
        return batch if labels is None else batch | {"label": labels[indices]}

    return read


def _take_in_pieces(source: Source, indices: np.ndarray, stopped: Stopped) -> np.ndarray:
    if len(indices) <= _PIECE:
        return take(source, indices)
    images = np.empty((len(indices), *source.image_shape), np.uint8)
    for start in range(0, len(indices), _PIECE):
        if stopped():
            raise CancelledError
        images[start : start + _PIECE] = take(source, indices[start : start + _PIECE])
    return images


def batch_bytes(source: Source, batch_size: int) -> int:
    """Bytes of the images of a batch."""
    return batch_size * int(np.prod(source.image_shape, dtype=np.int64))
