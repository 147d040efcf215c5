"""What the folders of a sweep hold: which runs are done, which are damaged or foreign, and the table of all."""

import csv
import json
from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from contrastive_jax.data import sources
from contrastive_jax.errors import UsageError
from contrastive_jax.jobs import config as config_lib
from contrastive_jax.jobs.machine import files
from contrastive_jax.jobs.sweeps.grid import Cell
from contrastive_jax.jobs.workdir import CONFIG, DATA, describe_differences, is_evaluated_again, may_differ

RESULTS, SUMMARY, OUTPUT = "results.csv", "summary.json", "output"
_MAX_NAMED = 3  # folders in one line


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None if there is no such file.

    Raises:
      UsageError: if the file holds anything else.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: expected the JSON that a run wrote, got damaged text ({error}).") from None
    if not isinstance(found, dict):
        raise UsageError(f"{path}: expected a JSON object, got {type(found).__name__}.")
    return found


def is_done(cell: Cell, workdir: Path, *, steps: int | None = None) -> bool:
    """Whether a cell's run has taken all steps and was evaluated as its configuration says.

    Args:
      cell: the cell.
      workdir: of the sweep.
      steps: where the runs stop, if before their end.

    A damaged summary counts as missing.
    """
    folder = workdir / cell.name
    try:
        summary, recorded = read_json(folder / SUMMARY), read_json(folder / CONFIG)
    except UsageError:
        return False
    if summary is None or recorded is None or _is_to_be_evaluated(cell, recorded):
        return False
    # A run writes the configuration again before it is evaluated by other settings.
    if (folder / SUMMARY).stat().st_mtime_ns < (folder / CONFIG).stat().st_mtime_ns:
        return False
    whole = summary.get("steps_of_the_whole_run", 0)
    wanted = whole if steps is None else min(steps, whole)
    return summary.get("steps", -1) >= wanted


def _is_to_be_evaluated(cell: Cell, recorded: Mapping[str, Any]) -> bool:
    """Whether a run that is done was evaluated by other settings than its cell's, or is no run of this cell."""
    ours, theirs = config_lib.flatten(_as_recorded(cell.config)), config_lib.flatten(recorded)
    differ = [path for path in ours.keys() | theirs.keys() if ours.get(path) != theirs.get(path)]
    return any(not may_differ(path, theirs) or is_evaluated_again(path, ours[path]) for path in differ)


def _as_recorded(config: ConfigDict) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(config.to_json())
    return found


def check_folders(cells: Sequence[Cell], workdir: Path) -> list[str]:
    """Check the folders of all cells before any run starts.

    Args:
      cells: of the sweep.
      workdir: of the sweep.

    Returns:
      A line for each thing that the sweep passes over: a damaged summary, which is made again, and folders that belong
      to no cell.

    Raises:
      UsageError: a line for each folder with a damaged configuration, or with a run of another one.
    """
    faults, notes = [], []
    for cell in cells:
        folder = workdir / cell.name
        try:
            recorded = read_json(folder / CONFIG)
        except UsageError as error:
            faults.append(f"{error} Move {folder} away to run this cell again.")
            continue
        differ = describe_differences(_as_recorded(cell.config), recorded) if recorded is not None else []
        if differ:
            faults.append(
                f"{folder}: expected the run of this cell, got one that differs in {', '.join(differ)}. "
                "Restore these fields, or give another workdir."
            )
        try:
            read_json(folder / SUMMARY)
        except UsageError as error:
            notes.append(f"{error} The run is evaluated again.")
    if faults:
        raise UsageError("\n".join(faults))
    return notes + _find_foreign(cells, workdir)


def name_data(config: ConfigDict) -> str:
    """What a configuration says of its training images."""
    return repr({path: value for path, value in config_lib.flatten(config).items() if path.startswith("data.")})


def check_data(
    cells: Sequence[Cell], workdir: Path, opened: Mapping[str, Mapping[str, Any]], *, done: Container[str]
) -> None:
    """Check that runs whose configurations name the same images have them.

    Args:
      cells: of the sweep.
      workdir: of the sweep.
      opened: {`name_data`: {split: fingerprint}} of the images of the runs that are left.
      done: the names of the cells whose runs are done; the others are yet to be evaluated, on images that may differ.

    Raises:
      UsageError: a line for each run that began with other training images, or was evaluated on others.
    """
    known = {(name, split): (found, "") for name, splits in opened.items() for split, found in splits.items()}
    faults = []
    for cell in cells:
        folder = workdir / cell.name
        for split, recorded in (read_json(folder / DATA) or {}).items():
            if split != "train" and cell.name not in done:
                continue
            where = f" in {folder}"
            expected, where = known.setdefault((name_data(cell.config), split), (recorded, where))
            if differs := sources.compare_fingerprints(recorded, expected):
                faults.append(f"{folder}: {split} images: {differs}{where}. Restore them, or give another workdir.")
    if faults:
        raise UsageError("\n".join(faults))


def _find_foreign(cells: Sequence[Cell], workdir: Path) -> list[str]:
    known = {cell.name for cell in cells} | {OUTPUT}
    found = sorted(path.name for path in workdir.iterdir() if path.is_dir()) if workdir.is_dir() else []
    foreign = [name for name in found if name not in known]
    if not foreign:
        return []
    named = ", ".join(foreign[:_MAX_NAMED]) + (", ..." if len(foreign) > _MAX_NAMED else "")
    return [f"{workdir}: {RESULTS} leaves out what is no run of this grid: {named} ({len(foreign)} in all)."]


def write_results(cells: Sequence[Cell], workdir: Path, *, done: Container[str]) -> Path:
    """Write `results.csv`: a row for each run that is done, its fields of the grid, and every number of its summary.

    Args:
      cells: of the sweep.
      workdir: of the sweep.
      done: the names of the cells whose runs are done.

    Returns:
      The file.
    """
    table = []
    for cell in cells:
        if cell.name not in done:
            continue
        try:
            summary = read_json(workdir / cell.name / SUMMARY)
        except UsageError:
            continue
        if summary is not None:
            table.append({"run": cell.name, **cell.values, **dict(_list_numbers(summary))})
    columns = dict.fromkeys(["run", *cells[0].values, *(name for row in table for name in row)])
    with (
        files.replace_atomically(workdir / RESULTS) as temporary,
        open(temporary, "w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, list(columns))
        writer.writeheader()
        writer.writerows(table)
    return workdir / RESULTS


def _list_numbers(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every number of a summary by its dotted path; null, which stands for a number that is not finite, is empty."""
    if isinstance(tree, Mapping | list):
        items = tree.items() if isinstance(tree, Mapping) else enumerate(tree)
        for name, value in items:
            yield from _list_numbers(value, f"{path}.{name}" if path else str(name))
    elif tree is None or (isinstance(tree, int | float) and not isinstance(tree, bool)):
        yield path, tree
