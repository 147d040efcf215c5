"""Which images are in which batch, a pure function of (seed, step), and their assembly ahead of time with Grain."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import TypeVar

import numpy as np

from contrastive_jax.data._ahead import Ahead, Batch, Stopped, batch_bytes, make_reader, num_ahead
from contrastive_jax.data._source import Source, name_of

PARTITIONS = ("reshuffled", "fixed")

_MOST_ASSEMBLED, _MOST_PLACED = 4, 2  # batches ahead of the one in use: on the host, on the devices
_Host = TypeVar("_Host")
_Placed = TypeVar("_Placed")


@dataclasses.dataclass(frozen=True)
class BatchOrder:
    """The instances of every batch: a partition of the training set into batches, for every epoch.

    The last `num_instances % update_size` instances of an epoch's permutation are in none of its batches; under
    "fixed" they are the same ones in every epoch.

    Args:
        num_instances: the number of instances in the training set.
        update_size: the number of instances of one step, over all processes.
        seed: the permutation's seed, not negative.
        partition: "reshuffled" draws a new permutation every epoch; "fixed" keeps one, hence the same batches in
            the same order always.

    Raises:
        ValueError: update_size is not in [1, num_instances], or the partition is unknown.

    Example:
        >>> order = BatchOrder(num_instances=10, update_size=5, seed=0, partition="reshuffled")
        >>> sorted(np.concatenate([order.indices(0), order.indices(1)]).tolist())
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    """

    num_instances: int
    update_size: int
    seed: int
    partition: str = "reshuffled"

    def __post_init__(self) -> None:
        if not 1 <= self.update_size <= self.num_instances:
            raise ValueError(
                f"update_size: expected from 1 to {self.num_instances}, the size of the training set, "
                f"got {self.update_size}"
            )
        if self.partition not in PARTITIONS:
            raise ValueError(f"partition: expected one of {', '.join(PARTITIONS)}, got {self.partition!r}")

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch."""
        return self.num_instances // self.update_size

    def epoch(self, step: int) -> int:
        """The epoch, from 0, that `step`, from 0, is in."""
        return step // self.steps_per_epoch

    def indices(self, step: int) -> np.ndarray:
        """The instances of the batch of `step`, int64 [update_size], read-only."""
        drawn = self.epoch(step) if self.partition == "reshuffled" else 0
        start = step % self.steps_per_epoch * self.update_size
        return _permutation(self.num_instances, self.seed, drawn)[start : start + self.update_size]


@functools.lru_cache(maxsize=4)
def _permutation(num_instances: int, seed: int, epoch: int) -> np.ndarray:
    permutation = np.random.default_rng((seed, epoch)).permutation(num_instances)
    permutation.setflags(write=False)  # shared by every caller
    return permutation


def sample(num_instances: int, most: int, *, seed: int) -> np.ndarray:
    """At most so many instances, chosen without repetition, the same for the same seed: int64, ascending.

    Example:
        >>> sample(3, 5, seed=0).tolist()
        [0, 1, 2]
    """
    # A stream of its own: the permutations draw from those of (seed, epoch).
    rng = np.random.default_rng((seed, 0, 1))
    return np.sort(rng.choice(num_instances, min(num_instances, most), replace=False))


def iterate(
    source: Source,
    order: BatchOrder,
    *,
    start: int,
    stop: int,
    process_index: int = 0,
    process_count: int = 1,
    positions: np.ndarray | None = None,
    num_threads: int = 2,
    buffer_size: int | None = None,
) -> Ahead:
    """Yield this process's part of the batches of steps start, ..., stop - 1.

    Process p of P reads positions [p B/P, (p+1) B/P) of each batch of B: the parts of all processes, in order, are
    the batch that one process alone would have read.

    Args:
        source: where the images come from.
        order: which of them are in which batch.
        start: the first step; a run that is resumed at step k passes k.
        stop: the step after the last.
        process_index: this process's number, from 0.
        process_count: the number of processes, which divides `update_size`.
        positions: [B], where in the batch each instance is taken from, if it is to be laid out in another order.
        num_threads: batches assembled at once; a source that decodes images does so in threads of its own besides.
        buffer_size: batches assembled ahead of the one in use; by default 4, or as many as fit in 1 GiB, but at
            least 1.

    Returns:
        An iterator of dicts: `image` uint8 [B/P, h, w, c], `id` int32 [B/P], `epoch` int32 [] and, where the
        source has labels, `label` int32 [B/P]. At most `buffer_size` + 1 of them are in memory besides those that the
        caller keeps. Closing it stops its threads; `is_ready()` says whether the next one is assembled.

    Raises:
        ValueError: the order and the source differ in size, or the batch cannot be shared equally.
        SourceError: an image cannot be read; raised where the batch is asked for.
    """
    if order.num_instances != len(source):
        raise ValueError(
            f"expected an order over the {len(source)} images of {name_of(source)}, got one over {order.num_instances}"
        )
    if order.update_size % process_count:
        raise ValueError(
            f"expected an update_size that {process_count} processes share equally, got {order.update_size}"
        )
    local_size = order.update_size // process_count
    part = slice(process_index * local_size, (process_index + 1) * local_size)
    own = (np.arange(order.update_size) if positions is None else positions)[part]
    read = make_reader(source)

    def assemble(step: int, stopped: Stopped) -> Batch:
        return read(order.indices(step)[own], stopped) | {"epoch": np.array(order.epoch(step), np.int32)}

    buffer_size = _buffer_size(source, local_size) if buffer_size is None else buffer_size
    return Ahead(assemble, range(start, stop), num_threads=num_threads, buffer_size=buffer_size)


def sequential(
    source: Source,
    batch_size: int,
    *,
    indices: np.ndarray | None = None,
    num_threads: int = 2,
    buffer_size: int | None = None,
) -> Ahead:
    """Yield every image once, in order, in batches of one shape.

    Args:
        source: where the images come from.
        batch_size: instances in a batch.
        indices: int [n > 0], the instances to yield, in this order; by default all.
        num_threads: batches assembled at once.
        buffer_size: batches assembled ahead of the one in use, by default as for `iterate`.

    Returns:
        An iterator of dicts: `image` uint8 [batch_size, h, w, c], `id` int32 [batch_size], `mask` bool [batch_size]
        and, where the source has labels, `label` int32 [batch_size]. The last batch is filled up with
        repeats of its last image, whose mask is False.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size: expected at least 1, got {batch_size}")

    chosen = np.arange(len(source)) if indices is None else indices
    read = make_reader(source)

    def assemble(start: int, stopped: Stopped) -> Batch:
        positions = np.arange(start, start + batch_size)
        mask = positions < len(chosen)
        return read(chosen[np.minimum(positions, len(chosen) - 1)], stopped) | {"mask": mask}

    buffer_size = _buffer_size(source, batch_size) if buffer_size is None else buffer_size
    return Ahead(assemble, range(0, len(chosen), batch_size), num_threads=num_threads, buffer_size=buffer_size)


def _buffer_size(source: Source, batch_size: int) -> int:
    return max(1, num_ahead(batch_bytes(source, batch_size), _MOST_ASSEMBLED))


def prefetch(
    iterator: Iterable[_Host],
    place: Callable[[_Host], _Placed],
    size: int = 2,
    *,
    waiting: Callable[[], contextlib.AbstractContextManager[object]] = contextlib.nullcontext,
) -> Generator[_Placed, None, None]:
    """Yield `place(batch)` of every batch, with the next `size` already on their way to the devices.

    A batch that is placed never waits for a later one: where the next is not assembled yet, fewer are on their way. At
    most `size` + 2 placed batches are in memory, that of the caller included. Closing the generator closes `iterator`.

    Args:
        iterator: batches on the host. If it has `is_ready`, as that of `iterate`, it is asked for no batch before its
            time.
        place: starts the transfer of a batch to the devices and returns without waiting, as `jax.device_put` does.
        size: placed batches in flight besides the one in use.
        waiting: makes a context that is entered for as long as there is no batch to yield.
    """
    batches = iter(iterator)
    is_ready = getattr(batches, "is_ready", lambda: True)
    placed: collections.deque[_Placed] = collections.deque()
    try:
        while True:
            while len(placed) <= size and (is_ready() or not placed):
                with contextlib.nullcontext() if is_ready() else waiting():
                    batch = next(batches, None)
                if batch is None:
                    yield from _drain(placed)
                    return
                placed.append(place(batch))
                del batch
            yield placed.popleft()
    finally:
        if hasattr(batches, "close"):
            batches.close()


def _drain(placed: collections.deque[_Placed]) -> Iterator[_Placed]:
    while placed:
        yield placed.popleft()


def num_placed(source: Source, batch_size: int) -> int:
    """How many batches of a source wait on the devices besides the one in use: 2, or as many as fit in 1 GiB.

    Args:
        source: where the images come from.
        batch_size: instances in a batch of this process.

    Example:
        >>> from contrastive_jax.data import sources
        >>> num_placed(sources.load("digits", split="train"), 256)
        2
    """
    return num_ahead(batch_bytes(source, batch_size), _MOST_PLACED)
