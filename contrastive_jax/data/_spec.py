"""What a data set is called: a kind, a name or path, and options after a question mark."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import NamedTuple

from contrastive_jax.errors import SourceError

KINDS = ("digits", "tfds", "folder", "npz")
_OPTIONS = re.compile(r"\?(\w+=[^?&=]*(?:&\w+=[^?&=]*)*)$")
_EXPECTED = "labels=none or, of tfds:NAME, split=NAME"


class Spec(NamedTuple):
    """A data set's name, taken apart.

    Attributes:
        kind: what stands before the colon.
        rest: what stands after it, without the options.
        labels: False if the images are to be read without labels.
        split: the split of TensorFlow Datasets to train on; None for `train`.
    """

    kind: str
    rest: str
    labels: bool = True
    split: str | None = None


def parse(spec: str) -> Spec:
    """Take a data set's name apart. A path may hold a question mark: what exists as it is written is a path.

    Raises:
        SourceError: an option that does not exist, or has another value.

    Example:
        >>> parse("tfds:stl10?split=unlabelled")
        Spec(kind='tfds', rest='stl10', labels=True, split='unlabelled')
        >>> parse("folder:/photos, 2023?labels=none").rest
        '/photos, 2023'
    """
    kind, _, rest = spec.partition(":")
    found = _OPTIONS.search(spec)
    if not found or kind.partition("?")[0] not in KINDS or (rest and os.path.exists(os.path.expanduser(rest))):
        return Spec(kind, rest)
    kind, _, rest = spec[: found.start()].partition(":")
    options = dict(option.split("=", 1) for option in found[1].split("&"))
    labels, split = options.pop("labels", None), options.pop("split", None)
    if options or labels not in (None, "none") or (split is not None and (kind != "tfds" or not split)):
        raise SourceError(f"{spec}: expected {_EXPECTED} after the question mark, got {found[1]}")
    return Spec(kind, rest, labels is None, split)


def parse_folders(rest: str) -> list[str]:
    """The paths of `folder:PATH`, one, or of `folder:["PATH", "PATH"]`, a JSON list.

    Raises:
        SourceError: a list of another form, or folders that lie in each other.

    Example:
        >>> parse_folders("/photos, 2023"), parse_folders('["/photos, 2023", "/more photos"]')
        (['/photos, 2023'], ['/photos, 2023', '/more photos'])
    """
    if not rest.startswith("[") or os.path.isdir(os.path.expanduser(rest)):
        return [str(Path(rest).expanduser())]
    try:
        paths = json.loads(rest)
    except ValueError:
        paths = None
    if not isinstance(paths, list) or not paths or not all(isinstance(path, str) and path for path in paths):
        raise SourceError(f'folder:{rest}: expected a folder, or several as JSON, folder:["PATH", "PATH"], got neither')
    paths = [str(Path(path).expanduser()) for path in paths]
    real = [os.path.realpath(path) for path in paths]
    for k, path in enumerate(real):
        for other in real[:k]:
            if os.path.commonpath([path, other]) in (path, other):
                raise SourceError(f"folder:{rest}: expected folders apart from each other, got {other} and {path}")
    return paths
