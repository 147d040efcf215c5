"""Embed every image of a data set into one file, in parts, so that a pass that was cut short goes on."""

import contextlib
import json
import os
import sys
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from contrastive_jax.data import batches, sources
from contrastive_jax.errors import SourceError, UsageError
from contrastive_jax.jobs.encoder import Encoder
from contrastive_jax.jobs.logs.counter import Counter
from contrastive_jax.jobs.machine import files, storage

PART_SIZE = 4096  # images of a part; what a pass that is cut short has to do again
_PLAN, _ABOUT = "plan.json", "about"


class _Plan(NamedTuple):
    """What a file of embeddings is made of, and in which parts; only parts of the same make belong together."""

    source: str
    data: dict[str, Any]  # fingerprint
    digest: str  # of the encoder
    encoder: str
    step: int
    part_size: int  # of a pass that goes on, that of before


def embed(
    encoder: Encoder,
    source: str,
    out: str | os.PathLike[str],
    *,
    data_dir: str | os.PathLike[str] | None = None,
    part_size: int = PART_SIZE,
) -> Path:
    """Write the features and projections of every image of a data set to an `.npz`; a second call goes on.

    The file holds `features` float32 [n, f], `projections` float32 [n, d] (not normalised), `names` [n], `labels` int32
    [n] where the data set has any, and `about`, JSON that says which encoder and which data these are. Until it is
    whole, its parts are in the folder `OUT.parts` beside it. No more than a part is in memory.

    Args:
      encoder: of `load`.
      source: the data set, see `data.sources.load_whole`; stored as the run stores its own images.
      out: the `.npz`.
      data_dir: where TensorFlow Datasets keeps its data.
      part_size: images of a part; a pass that goes on keeps that of before.

    Returns:
      The path of the file.

    Raises:
      UsageError: the data set cannot be read, the file or the parts that are there are of other data or of another
        encoder, or another process writes them.
      StorageError: no space, no permission, too many open files.
    """
    out = Path(out)
    if out.suffix != ".npz":
        raise UsageError(f"--out={out}: expected a name that ends in .npz.")
    data = encoder.config.data
    try:
        opened = sources.load_whole(
            source, image_size=data.image_size, stored_size=data.stored_size, data_dir=data_dir or data.directory
        )
        encoder.check_source(opened, f"--source={source}")
        fingerprint = sources.fingerprint(opened)
        plan = _Plan(source, fingerprint, encoder.digest, encoder.which, encoder.step, part_size)
        with storage.explain_refusals(encoder.workdir):
            if not _is_done(out, plan) or (_parts_of(out) / _PLAN).exists():
                _make(out, encoder, opened, plan)
            else:
                _say_done(out)
    except SourceError as error:
        raise UsageError(f"--source={source}: {error}") from None
    return out


def _make(out: Path, encoder: Encoder, source: sources.Source, plan: _Plan) -> None:
    """Make the file from its parts, or remove the parts of one that is done; no other process does so meanwhile."""
    parts = _parts_of(out)
    _refuse_other_files(parts)
    with storage.hold_lock(parts, option="--out", given=out):
        if _is_done(out, plan):  # by the process that held the lock before, or that ended between its last two lines
            _say_done(out)
        else:
            plan = _claim_parts(parts, plan)
            _embed_missing(encoder, source, parts, plan.part_size)
            _join(out, parts, source, plan)
        _remove_files(parts)
    with contextlib.suppress(OSError):  # some file systems remove no file that is open, so this comes last
        (parts / storage.LOCK).unlink()
        parts.rmdir()


def _remove_files(parts: Path) -> None:
    for path in parts.iterdir():
        if path.is_file() and path.name != storage.LOCK:
            path.unlink()


def _say_done(out: Path) -> None:
    print(f"{out} is there already, of these images and this encoder.", file=sys.stderr)


def _is_done(out: Path, plan: _Plan) -> bool:
    if not out.exists():
        return False
    try:
        with np.load(out, allow_pickle=False) as arrays:
            there = json.loads(arrays[_ABOUT].item())
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        there = {}
    _compare(out, there, plan, "Give another --out, or remove the file")
    return True


def _refuse_other_files(folder: Path) -> None:
    """Refuse a folder that holds files but no plan; hidden files are the lock, and what a killed process left."""
    theirs = folder.is_dir() and not (folder / _PLAN).exists()
    if theirs and any(not path.name.startswith(".") for path in folder.iterdir()):
        raise UsageError(f"{folder}: expected parts of embeddings, got other files. Give another --out.")


def _claim_parts(folder: Path, plan: _Plan) -> _Plan:
    """The plan that the parts belong to: that of a pass that was cut short, or a new one."""
    if (folder / _PLAN).exists():
        try:
            there = json.loads((folder / _PLAN).read_text(encoding="utf-8"))
        except ValueError:
            there = {}
        _compare(folder, there, plan, "Give another --out or the --step of before, or remove the folder to begin again")
        return _Plan(**there)
    with files.replace_atomically(folder / _PLAN) as temporary:
        temporary.write_text(json.dumps(plan._asdict(), indent=2) + "\n", encoding="utf-8")
    return plan


def _parts_of(out: Path) -> Path:
    return out.with_name(f"{out.name}.parts")


def _compare(where: Path, there: Any, plan: _Plan, advice: str) -> None:
    ours, theirs = _flatten(json.loads(json.dumps(plan._asdict()))), _flatten(there)
    differ = [
        f"{name} (there {theirs.get(name)!r}, here {ours.get(name)!r})"
        for name in sorted(ours.keys() | theirs.keys())
        if ours.get(name) != theirs.get(name) and (name != "part_size" or name not in theirs)
    ]
    if differ:
        raise UsageError(
            f"{where}: expected embeddings of the same images by the same encoder, got others: {', '.join(differ)}. "
            f"{advice}."
        )


def _flatten(plan: Any) -> dict[str, Any]:
    """A plan as it was read, whatever that is, with the fields of its data beside the others."""
    plan = plan if isinstance(plan, dict) else {}
    data = plan["data"] if isinstance(plan.get("data"), dict) else {}
    return {name: x for name, x in plan.items() if name != "data"} | {f"data.{name}": x for name, x in data.items()}


def _embed_missing(encoder: Encoder, source: sources.Source, folder: Path, part_size: int) -> None:
    ranges = _ranges(len(source), part_size)
    missing = [k for k, indices in enumerate(ranges) if _read_part(folder, k, len(indices)) is None]
    if not missing:
        return
    wanted = np.concatenate([np.array(ranges[k]) for k in missing])
    waiting: list[tuple[np.ndarray, np.ndarray]] = []  # what is embedded and not yet written
    with Counter("Embedding", len(source), start=len(source) - len(wanted)) as counter:
        for batch in batches.sequential(source, encoder.batch_size, indices=wanted):
            features, projections = encoder.embed(batch["image"])
            waiting.append((features[batch["mask"]], projections[batch["mask"]]))
            counter.add(len(waiting[-1][0]))
            while missing and sum(len(x) for x, _ in waiting) >= len(ranges[missing[0]]):
                k = missing.pop(0)
                rows = [np.concatenate(arrays) for arrays in zip(*waiting, strict=True)]
                _write_part(folder, k, *(x[: len(ranges[k])] for x in rows))
                waiting = [(rows[0][len(ranges[k]) :], rows[1][len(ranges[k]) :])]


def _ranges(count: int, part_size: int) -> list[range]:
    return [range(start, min(start + part_size, count)) for start in range(0, count, part_size)]


def _part_path(folder: Path, k: int) -> Path:
    return folder / f"{k:06d}.npz"


def _write_part(folder: Path, k: int, features: np.ndarray, projections: np.ndarray) -> None:
    with files.replace_atomically(_part_path(folder, k)) as temporary:
        np.savez(temporary, features=features, projections=projections)


def _read_part(folder: Path, k: int, count: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Features and projections of a part; None where it is not there, or not whole."""
    try:
        with np.load(_part_path(folder, k), allow_pickle=False) as arrays:
            found = arrays["features"], arrays["projections"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError) as error:
        if storage.find_refusal(error) is not None:
            raise
        return None
    return found if all(len(x) == count for x in found) else None


def _join(out: Path, folder: Path, source: sources.Source, plan: _Plan) -> None:
    """Write the whole file from its parts, one at a time."""
    ranges = _ranges(len(source), plan.part_size)

    def read(k: int) -> tuple[np.ndarray, np.ndarray]:
        found = _read_part(folder, k, len(ranges[k]))
        if found is None:
            raise UsageError(f"{_part_path(folder, k)}: expected a whole part, got a damaged one. Run it again.")
        return found

    def stream(which: int) -> Iterator[np.ndarray]:
        return (read(k)[which] for k in range(len(ranges)))

    first = read(0)
    names, labels = np.array(sources.names_of(source)), sources.labels_of(source)
    with files.replace_atomically(out) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for which, name in enumerate(("features", "projections")):
            _write_array(archive, name, (len(source), first[which].shape[1]), first[which].dtype, stream(which))
        _write_array(archive, "names", names.shape, names.dtype, [names])
        if labels is not None:
            _write_array(archive, "labels", labels.shape, labels.dtype, [labels])
        about = np.array(json.dumps(plan._asdict()))
        _write_array(archive, _ABOUT, about.shape, about.dtype, [about])


def _write_array(
    archive: zipfile.ZipFile, name: str, shape: tuple[int, ...], dtype: np.dtype[Any], rows: Iterable[np.ndarray]
) -> None:
    """Write an array to an `.npz`, some rows at a time."""
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
        np.lib.format.write_array_header_1_0(file, header)
        for part in rows:
            file.write(np.ascontiguousarray(part).tobytes())
