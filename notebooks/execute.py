"""Execute the notebooks, and write their outputs into them.

python notebooks/execute.py            # all of them
python notebooks/execute.py 2          # those whose names begin so
python notebooks/execute.py --check    # write nothing: fail on an error (what CI does)
"""

import argparse
import re
import tempfile
import tomllib
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent
HANGS_AFTER = 1800  # seconds of one cell; on two idle cores a notebook takes at most 180


def read_repository() -> str:
    """`owner/name`, which pyproject.toml alone states."""
    return tomllib.loads((HERE.parent / "pyproject.toml").read_text())["tool"]["contrastive_jax"]["repository"]


def point_to_repository(text: str) -> str:
    """The addresses of the badge and of the installation, for the repository of pyproject.toml."""
    return re.sub(r"(github(?:\.com)?)/[\w.-]+/contrastive_jax\b", rf"\1/{read_repository()}", text)


def execute(path: Path) -> Any:
    """The notebook with new outputs.

    Raises:
      nbclient.exceptions.CellExecutionError: with the traceback of the cell that fails.
      nbclient.exceptions.CellTimeoutError: for a cell that hangs.
    """
    notebook = nbformat.reads(point_to_repository(path.read_text()), as_version=4)
    with tempfile.TemporaryDirectory() as folder:  # what a notebook writes is left there
        resources = {"metadata": {"path": folder}}
        NotebookClient(
            notebook, timeout=HANGS_AFTER, record_timing=False, coalesce_streams=True, resources=resources
        ).execute()
    for cell in notebook.cells:
        if cell.cell_type == "code":  # warnings and progress of this machine are no part of the page
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    return notebook


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=[""], help="beginnings of names")
    parser.add_argument("--check", action="store_true", help="write nothing")
    options = parser.parse_args()
    paths = [path for path in sorted(HERE.glob("*.ipynb")) if path.name.startswith(tuple(options.names))]
    if not paths:
        parser.error(f"expected the beginning of a notebook's name, got {' '.join(options.names)}")
    for path in paths:
        notebook = execute(path)
        if not options.check:
            nbformat.write(notebook, path)
        print(path.name, flush=True)


if __name__ == "__main__":
    main()
