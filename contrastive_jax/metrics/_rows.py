"""Reading the rows of two sets of embeddings piece by piece: which are usable, their norms, their moments."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np

from contrastive_jax.metrics._moments import RowMoments, merge_row_moments, row_moments

CHUNK_ENTRIES = 2**17  # numbers of one set that are held at a time: in float64 1 MB, which fits a core's cache
_MOST_ENTRIES = 2**21  # where d rows of d are more: a product of fewer rows costs as much
OnProgress = Callable[[str, int, int], None]  # (stage, done, total)


class Rows(Protocol):
    """A NumPy array, a memory-mapped one, or whatever else has a shape, a dtype and gives rows by slice or indices."""

    @property
    def shape(self) -> tuple[int, ...]:
        """[n, d]."""

    @property
    def dtype(self) -> Any:
        """Of the numbers."""

    def __getitem__(self, rows: Any) -> Any:
        """The rows of a slice, or of an array of ascending indices."""


class RowReport(NamedTuple):
    """What is in the rows of one set. Rows are counted from 0."""

    not_finite: np.ndarray  # int64, the rows with NaN or infinity
    zero: np.ndarray  # int64, the rows of zeros, which have no direction
    repeated: np.ndarray  # int64 [r, 2], rows that equal an earlier one, and the first that they equal
    norms: np.ndarray  # float64 [n], before normalising, at most the largest float64; NaN where not finite


class Read(NamedTuple):
    """What one pass over both sets finds. All but the reports is of the pairs that are kept."""

    reports: tuple[RowReport, RowReport]
    kept: np.ndarray  # int64 [k], the pairs whose rows are finite and not zero in both sets
    positive: np.ndarray  # float64 [k], their similarities
    squared_distance: float  # mean of |u_i - v_i|^2
    moments: tuple[RowMoments, RowMoments]


def chunk_rows(d: int) -> int:
    """How many rows of d numbers are held at a time."""
    return max(1, CHUNK_ENTRIES // d, min(d, _MOST_ENTRIES // d))


def chunks(n: int, d: int) -> Iterator[slice]:
    """Slices that cover n rows of d numbers."""
    size = chunk_rows(d)
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def unit_rows(rows: Any) -> np.ndarray:
    """Rows [k, d] of any float dtype, of length 1 in float64; a row of zeros stays zero."""
    return _normalize(np.asarray(rows).astype(np.float64))[0]


def _normalize(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Unit rows and lengths, at any scale: `pairwise.normalize` by NumPy, because not every accelerator has float64."""
    peak = np.abs(rows).max(axis=1)
    part = rows / np.where(peak > 0, peak, 1)[:, None]
    length = np.sqrt(np.sum(np.square(part), axis=1))
    with np.errstate(over="ignore"):  # a length may be more than float64 holds
        norms = np.minimum(peak * length, np.finfo(np.float64).max)
    return part / np.where(peak > 0, length, 1)[:, None], norms


def read(u: Rows, v: Rows, on_progress: OnProgress) -> Read:
    """Read both sets once, a chunk at a time."""
    n, d = u.shape
    norms, hashes = np.empty((2, n)), np.empty((2, n), np.uint64)
    finite, zero = np.empty((2, n), bool), np.empty((2, n), bool)
    positive, distance = np.full(n, np.nan), 0.0
    moments = [row_moments(np.empty((0, d)))] * 2
    for part in chunks(n, d):
        units = []
        for k, rows in enumerate((u, v)):
            raw = np.asarray(rows[part]).astype(np.float64)
            finite[k, part] = np.isfinite(raw).all(axis=1)
            hashes[k, part] = _hash(raw)
            unit, norms[k, part] = _normalize(np.where(finite[k, part, None], raw, 0))
            zero[k, part] = finite[k, part] & ~unit.any(axis=1)
            units.append(unit)
        keep = (finite[:, part] & ~zero[:, part]).all(axis=0)
        a, b = (unit[keep] for unit in units)
        positive[part][keep] = np.sum(a * b, axis=1)
        distance += np.sum(np.square(a - b))
        moments = [merge_row_moments(so_far, row_moments(x)) for so_far, x in zip(moments, (a, b), strict=True)]
        on_progress("rows", part.stop, n)
    kept = np.flatnonzero((finite & ~zero).all(axis=0))
    reports = [
        RowReport(
            np.flatnonzero(~finite[k]),
            np.flatnonzero(zero[k]),
            _find_repeated(rows, np.flatnonzero(finite[k] & ~zero[k]), hashes[k]),
            np.where(finite[k], norms[k], np.nan),
        )
        for k, rows in enumerate((u, v))
    ]
    return Read((reports[0], reports[1]), kept, positive[kept], distance / max(len(kept), 1), (moments[0], moments[1]))


def _hash(rows: np.ndarray) -> np.ndarray:
    """64 bits of each row [k, d] of float64; equal rows have equal ones, and 0.0 equals -0.0."""
    with np.errstate(all="ignore"):
        words: Any = np.ascontiguousarray(rows + 0.0).view(np.uint64)
        words = words + np.arange(1, rows.shape[1] + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):  # SplitMix64's finaliser
            words = (words ^ (words >> np.uint64(shift))) * np.uint64(factor)
        return np.asarray(np.sum(words ^ (words >> np.uint64(31)), axis=1, dtype=np.uint64))


def _find_repeated(rows: Rows, usable: np.ndarray, hashes: np.ndarray) -> np.ndarray:
    """[r, 2]: usable rows that equal an earlier usable one, and the first of those."""
    _, first, which = np.unique(hashes[usable], return_index=True, return_inverse=True)
    earliest = usable[first][which.reshape(-1)]
    later = usable != earliest
    pairs = np.stack([usable[later], earliest[later]], axis=1)
    size, same = chunk_rows(rows.shape[1]), np.empty(len(pairs), bool)
    for start in range(0, len(pairs), size):  # equal hashes are a hint: the rows are compared
        part = slice(start, start + size)
        same[part] = np.all(take(rows, pairs[part, 0]) == take(rows, pairs[part, 1]), axis=1)
    return pairs[same]


def take(rows: Rows, indices: np.ndarray) -> np.ndarray:
    """Rows in any order, with repetitions, of what gives them in ascending order alone."""
    distinct, place = np.unique(indices, return_inverse=True)
    return np.asarray(rows[distinct])[place.reshape(-1)]
