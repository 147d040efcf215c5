"""Every notebook runs to its end, opens and installs from one address, and is committed with small pictures."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

NOTEBOOKS = sorted(Path("notebooks").glob("*.ipynb"))
REPOSITORY = tomllib.loads(Path("pyproject.toml").read_text())["tool"]["contrastive_jax"]["repository"]
each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def cells_of(path, kind):
    cells = json.loads(path.read_text())["cells"]
    return [cell for cell in cells if cell["cell_type"] == kind]


def source(cell):
    return "".join(cell["source"])


@pytest.mark.slow
@each
def test_it_runs(path):
    usual = {name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "MPLBACKEND")}
    del usual["JAX_DISABLE_MOST_OPTIMIZATIONS"]  # of conftest.py
    usual["PYTHONPATH"] = os.pathsep.join([str(Path.cwd()), usual.get("PYTHONPATH", "")])
    usual["PIP_NO_INDEX"] = "1"  # nothing may be missing here
    command = [sys.executable, "notebooks/execute.py", "--check", path.name]
    done = subprocess.run(command, env=usual, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [path.name]


def test_there_are_notebooks():
    assert [path.name[0] for path in NOTEBOOKS] == [str(k + 1) for k in range(len(NOTEBOOKS))] and NOTEBOOKS


@each
def test_it_opens_in_colab_from_the_one_address(path):
    badge = f"https://colab.research.google.com/github/{REPOSITORY}/blob/main/notebooks/{path.name}"
    assert f"({badge})" in source(cells_of(path, "markdown")[0])
    assert set(re.findall(r"github(?:\.com)?/([\w.-]+/contrastive_jax)\b", path.read_text())) == {REPOSITORY}


@each
def test_it_installs_without_moving_jax_or_numpy(path):
    install, *_ = map(source, cells_of(path, "code"))
    assert '("jax", "jaxlib", "numpy")' in install and "*missing, *held" in install
    assert f"@ git+https://github.com/{REPOSITORY}" in install
    # A package of Colab's own that is there is no reason to install anything.
    assert "importlib.util.find_spec(module) is None" in install


@each
def test_it_needs_no_checkout(path):
    for cell in cells_of(path, "code"):
        assert not re.search(r"^\s*(from|import) (experiments|configs|tests)\b", source(cell), re.MULTILINE)


@each
def test_its_outputs_are_committed_and_small(path):
    code = cells_of(path, "code")
    outputs = [output for cell in code for output in cell["outputs"]]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not [output for output in outputs if output["output_type"] == "error" or output.get("name") == "stderr"]
    # In order, from a fresh start.
    assert [cell["execution_count"] for cell in code] == [k + 1 for k in range(len(code))]
    assert path.stat().st_size < 400_000
