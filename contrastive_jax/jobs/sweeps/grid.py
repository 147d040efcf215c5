"""A grid over fields of a configuration: its text, its cells, and their names."""

import contextlib
import hashlib
import io
import itertools
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from contrastive_jax.errors import UsageError
from contrastive_jax.jobs import command_line, parts, validation
from contrastive_jax.jobs import config as config_lib

Grid = Mapping[str, Sequence[str]]  # {field: the texts of its values}
_OPENING, _CLOSING, _QUOTES = "([{", ")]}", "'\""
_MAX_NAME = 120  # of the 255 bytes that file systems allow
_EXAMPLE = '--grid="loss.kwargs.temperature=0.1,0.5 seed=0,1"'


class Cell(NamedTuple):
    """One run of a sweep."""

    number: int  # from 0
    name: str  # of its folder
    texts: dict[str, str]  # {field: value} as on the command line
    values: dict[str, Any]  # the same values, parsed
    config: ConfigDict


def parse_grid(text: str) -> dict[str, list[str]]:
    """Parse `field=value,value field=value`. Brackets and quotes protect commas and spaces.

    Args:
      text: the grid as on the command line.

    Returns:
      The texts of each field's values.

    Raises:
      UsageError: a line for each part that is not `field=value,...`.

    Example:
      >>> parse_grid("seed=0,1 views.crop_scale=(0.2,1.0),(0.5, 1.0)")
      {'seed': ['0', '1'], 'views.crop_scale': ['(0.2,1.0)', '(0.5, 1.0)']}
    """
    grid: dict[str, list[str]] = {}
    faults = []
    for part in _split(text, " \t\n"):
        path, given, values = part.partition("=")
        path = path.removeprefix("--").removeprefix("config.")
        texts = [_unquote(value.strip()) for value in _split(values, ",", keep_empty=True)]
        if not given or not path or not all(texts):
            faults.append(f"--grid: expected FIELD=VALUE,VALUE, got {part!r}; for example {_EXAMPLE}.")
        elif path in grid:
            faults.append(f"--grid: expected each field once, got {path} twice; give all its values together.")
        else:
            grid[path] = texts
    if faults or not grid:
        raise UsageError("\n".join(faults) or f"--grid: expected at least one field, got none; for example {_EXAMPLE}.")
    return grid


def _split(text: str, separators: str, *, keep_empty: bool = False) -> list[str]:
    """Split at separators that are in neither brackets nor quotes."""
    pieces, depth, quote = [""], 0, ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in _QUOTES:
            quote = character
        else:
            depth += (character in _OPENING) - (character in _CLOSING)
        if character in separators and depth <= 0 and not quote:
            pieces.append("")
        else:
            pieces[-1] += character
    return pieces if keep_empty else [piece for piece in pieces if piece]


def _unquote(text: str) -> str:
    quoted = len(text) > 1 and text[0] in _QUOTES and text[0] == text[-1]
    return text[1:-1] if quoted else text


def make_cells(preset: ConfigDict, overrides: Mapping[str, str], grid: Grid) -> list[Cell]:
    """The cells of a grid: the product of all values, the last field the fastest.

    Args:
      preset: the configuration that all cells start from.
      overrides: {field: text} that all cells share.
      grid: {field: texts}.

    Returns:
      The cells, each with its checked configuration.

    Raises:
      UsageError: a line for each fault of any cell.

    Example:
      >>> [cell.name for cell in make_cells(config_lib.default_config(), {}, {"seed": ["0"], "epochs": ["1", "2"]})]
      ['seed=0,epochs=1', 'seed=0,epochs=2']
    """
    faults = {
        f"--grid: config.{path} is given as an option, too; give it once.": None for path in grid if path in overrides
    }
    found, said = [], io.StringIO()
    checked: dict[str, list[str]] = {}
    with contextlib.redirect_stderr(said):
        for index, choice in enumerate(itertools.product(*grid.values())):
            texts = dict(zip(grid, choice, strict=True))
            config = preset.copy_and_resolve_references()
            here = command_line.apply_overrides(config, {**overrides, **texts})
            faults |= dict.fromkeys(here or _check(config, checked))
            if not here:
                flat = config_lib.flatten(config)
                found.append((index, texts, {path: flat[path] for path in grid}, config))
    for line in dict.fromkeys(said.getvalue().splitlines()):
        print(line, file=sys.stderr)
    faults |= dict.fromkeys(_find_twice(grid, [values for _, _, values, _ in found]) if not faults else ())
    if faults:
        raise UsageError("\n".join(faults))
    labels = _label(grid)
    return [Cell(index, _name(values, labels), texts, values, config) for index, texts, values, config in found]


def _check(config: ConfigDict, checked: dict[str, list[str]]) -> list[str]:
    """All that is wrong with a cell, as far as it shows without its images, its devices and their precisions.

    Cells that differ in their seeds alone are checked once: `checked` keeps what was found.
    """
    if faults := [fault for _, fault in validation.field_faults(config)]:
        return faults
    config = config.copy_and_resolve_references()
    config.seed, config.loss.precision = 0, "highest"
    key = repr(config_lib.flatten(config))
    if key not in checked:
        checked[key] = _check_together(config)
    return checked[key]


def _check_together(config: ConfigDict) -> list[str]:
    try:
        validation.check(config, parts.resolve(config, parts.NONE), num_devices=1)
    except UsageError as error:
        return str(error).splitlines()
    return []


def _find_twice(grid: Grid, values: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for path, texts in grid.items():
        if len({repr(cell[path]) for cell in values}) < len(texts):
            yield f"--grid: expected different values of {path}, got one of {', '.join(texts)} twice."


def _label(grid: Grid) -> dict[str, str]:
    """What names of cells call each field: its last part, or all of it where two fields share that."""
    leaves = [path.rpartition(".")[2] for path in grid]
    return {path: leaf if leaves.count(leaf) == 1 else path for path, leaf in zip(grid, leaves, strict=True)}


def _name(values: Mapping[str, Any], labels: Mapping[str, str]) -> str:
    """The name of a cell's folder: its fields and values, with a digest where a value holds what a path may not."""
    name = ",".join(f"{labels[path]}={_format(value)}" for path, value in values.items())
    plain = re.sub(r"[^A-Za-z0-9.,=+()_-]", "_", name)[:_MAX_NAME]
    return plain if plain == name else f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _format(value: Any) -> str:
    if isinstance(value, tuple):
        return f"({','.join(map(_format, value))})"
    return repr(value).removesuffix(".0") if isinstance(value, float) else str(value)
