"""Files that are written completely or not at all."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replace_atomically(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Replace a file atomically: `with replace_atomically(path) as temporary:`, write to `temporary`.

    On exit the temporary file replaces `path`; after an exception `path` stays as it was. The temporary file is in the
    same folder and has the same suffix, from which writers infer the format. The folder is created if it does not
    exist.

    Args:
      path: the file to replace.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.partial{path.suffix}")
    try:
        yield temporary
        with open(temporary, "r+b") as file:
            os.fsync(file.fileno())  # without it, a power failure may leave an empty file
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
