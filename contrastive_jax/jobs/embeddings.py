"""Pairs of embeddings in files of NumPy, from any framework; memory-mapped where the file allows it."""

import math
import struct
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from contrastive_jax import metrics
from contrastive_jax.errors import UsageError
from contrastive_jax.parts import reason

_EXPECTED = "arrays u and v [n, d], or x [n, d] and labels with --pairs=labels"
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_LOCAL_HEADER = 30  # bytes of a zip member's own header before its name
_MAX_EXPANSION = 100  # embeddings hardly shrink when compressed; beyond this it is a bomb
_ALWAYS_BYTES = 2**30  # no bomb, however small the file
_NAMES = ("u", "v", "labels", "ids")


class Pairs(NamedTuple):
    """Two sets of embeddings, row by row."""

    u: metrics.Rows  # [n, d]
    v: metrics.Rows
    labels: np.ndarray | None  # [n]
    ids: np.ndarray | None  # [n]; equal ones are never each other's negatives
    rows: tuple[np.ndarray, np.ndarray] | None  # int64 [n] each, where u_i and v_i are in the file; None for row i
    alone: int  # rows of the file without a partner of their label


class TakenRows:
    """Rows of an array in another order, taken when they are asked for."""

    def __init__(self, rows: metrics.Rows, indices: np.ndarray) -> None:
        self._rows, self._indices = rows, indices
        self.shape, self.dtype = (len(indices), *rows.shape[1:]), rows.dtype

    def __getitem__(self, key: Any) -> np.ndarray:
        wanted, place = np.unique(self._indices[key], return_inverse=True)
        return np.asarray(self._rows[wanted])[place.reshape(-1)]


def read_pairs(
    paths: Sequence[str],
    *,
    pairs: str = "rows",
    array: str = "x",
    labels: str | None = None,
    ids: str | None = None,
    seed: int = 0,
) -> Pairs:
    """Open the files that hold two sets of embeddings. Nothing in them is ever unpickled.

    Args:
      paths: one .npz with `u` and `v`, optional `labels` and `ids`, or with `x` and `labels`; or two .npy files; or one
        .npy file with `pairs="labels"`.
      pairs: `"rows"`: u_i and v_i are a pair; `"labels"`: each row of x and another of its label, drawn at random.
      array: the name in the .npz of what is `x` here.
      labels: a .npy file of labels, in place of those in the .npz.
      ids: a .npy file of ids, in the same way.
      seed: of the drawing.

    Returns:
      `Pairs`. Arrays that are stored uncompressed are memory-mapped.

    Raises:
      UsageError: a file that cannot be read, holds objects, or lacks an array; the message is one line.
    """
    arrays = _open_all(paths, pairs, array)
    for name, path in (("labels", labels), ("ids", ids)):
        if path is not None:
            arrays[name] = _open_npy(Path(path))
    where = " ".join(paths)
    for name in ("labels", "ids"):
        if name in arrays:
            arrays[name] = _read_names(f"{where}: {name}", arrays[name])
    if pairs == "labels":
        return _pair_by_label(where, arrays, array, seed)
    if not {"u", "v"} <= arrays.keys():
        raise UsageError(f"{where}: expected {_EXPECTED}, got {', '.join(sorted(arrays)) or 'none of them'}.")
    return Pairs(arrays["u"], arrays["v"], arrays.get("labels"), arrays.get("ids"), None, 0)


def _open_all(paths: Sequence[str], pairs: str, array: str) -> dict[str, Any]:
    files = [Path(path) for path in paths]
    if len(files) == 1 and files[0].suffix != ".npy":
        arrays = _open_npz(files[0], [*_NAMES, *([array] if pairs == "labels" else [])])
        return {"x" if name == array else name: x for name, x in arrays.items()}
    names = {("rows", 2): ("u", "v"), ("labels", 1): ("x",)}.get((pairs, len(files)))
    if names is None:
        raise UsageError(
            f"expected one .npz, two .npy files, or one .npy file with --pairs=labels, got "
            f"{' '.join(paths) or 'no file'}."
        )
    return {name: _open_npy(file) for name, file in zip(names, files, strict=True)}


def _pair_by_label(where: str, arrays: dict[str, Any], array: str, seed: int) -> Pairs:
    if not {"x", "labels"} <= arrays.keys():
        got = ", ".join(sorted(arrays)) or "none of them"
        raise UsageError(f"{where}: expected {array} [n, d] and labels [n] for --pairs=labels, got {got}.")
    x, labels = arrays["x"], arrays["labels"]
    if len(x.shape) != 2 or labels.shape != x.shape[:1]:
        raise UsageError(
            f"{where}: expected {array} [n, d] and labels [n] for --pairs=labels, got {list(x.shape)} and "
            f"{list(labels.shape)}."
        )
    rows, partners = metrics.pair_by_label(labels, seed=seed)
    kept = labels[rows]
    return Pairs(TakenRows(x, rows), TakenRows(x, partners), kept, kept, (rows, partners), len(labels) - len(rows))


def _read_names(what: str, array: np.ndarray) -> np.ndarray:
    if array.ndim != 1 or array.dtype.kind not in "iuUSb":
        raise UsageError(
            f"{what}: expected integers or strings of shape [n], got {array.dtype} of shape {list(array.shape)}."
        )
    return np.char.decode(array, "utf-8", "replace") if array.dtype.kind == "S" else np.array(array)


def _open_npy(file: Path) -> np.ndarray:
    try:
        with open(file, "rb") as stream:
            size = file.stat().st_size
            return _map(file, stream, size)
    except FileNotFoundError as error:
        raise UsageError(f"{file}: expected a .npy file, got no such file.") from error
    except Exception as error:  # whatever NumPy raises, this file is why
        raise UsageError(f"{file}: expected a .npy file, got one that cannot be read: {reason(error)}.") from error


def _open_npz(file: Path, names: Sequence[str]) -> dict[str, Any]:
    try:
        with zipfile.ZipFile(file) as archive:
            members = {name: archive.getinfo(f"{name}.npy") for name in names if f"{name}.npy" in archive.namelist()}
            packed = sum(m.file_size for m in members.values() if m.compress_type != zipfile.ZIP_STORED)
            if packed > max(_ALWAYS_BYTES, _MAX_EXPANSION * file.stat().st_size):
                raise ValueError(f"it would expand to {packed} bytes, more than {_MAX_EXPANSION} times its own size")
            return {name: _open_member(file, archive, member) for name, member in members.items()}
    except FileNotFoundError as error:
        raise UsageError(f"{file}: expected an .npz with {_EXPECTED}, got no such file.") from error
    except Exception as error:  # whatever zipfile, zlib and NumPy raise, this file is why
        raise UsageError(
            f"{file}: expected an .npz with {_EXPECTED}, got one that cannot be read: {reason(error)}."
        ) from error


def _open_member(file: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    if member.compress_type == zipfile.ZIP_STORED:
        with open(file, "rb") as stream:
            stream.seek(member.header_offset)
            name, extra = struct.unpack("<26xHH", stream.read(_LOCAL_HEADER))
            stream.seek(name + extra, 1)
            return _map(file, stream, member.file_size)
    with archive.open(member) as stream:
        _read_header(stream, member.file_size)
    with archive.open(member) as stream:
        return np.lib.format.read_array(stream, allow_pickle=False)


def _map(file: Path, stream: IO[bytes], size: int) -> np.ndarray:
    """The array that begins here and takes so many bytes, memory-mapped."""
    shape, fortran, dtype = _read_header(stream, size)
    if math.prod(shape) == 0:
        return np.empty(shape, dtype)
    return np.memmap(file, dtype, "r", stream.tell(), shape, "F" if fortran else "C")


def _read_header(stream: IO[bytes], size: int) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether columns come first, and dtype, once they are known to be no objects and as long as announced."""
    start = stream.tell()
    read = _HEADERS.get(version := np.lib.format.read_magic(stream))
    if read is None:
        raise ValueError(f"it is of .npy version {version}")
    shape, fortran, dtype = read(stream)
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which could run code")
    announced, held = math.prod(shape) * dtype.itemsize, size - (stream.tell() - start)
    if announced != held:
        raise ValueError(f"it announces {dtype} of shape {list(shape)}, {announced} bytes; it holds {held}")
    return shape, fortran, dtype
