"""Files that are written whole or not at all."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replace_atomically(path: str | os.PathLike) -> Iterator[Path]:
    """`with replace_atomically(path) as temporary:` write to `temporary`; it replaces `path` whole, or not at all.

    The temporary file lies beside `path` and keeps its suffix, by which writers tell the format. The folder is
    made if it is not there.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.partial{path.suffix}")
    try:
        yield temporary
        with open(temporary, "r+b") as file:
            os.fsync(file.fileno())  # or, after a loss of power, the name may be there before the content
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
