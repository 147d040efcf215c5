"""In which room a line belongs: imports point downwards, and a private file is imported in its own folder alone."""

import ast
import sys
from pathlib import Path

import pytest

PACKAGE = Path("contrastive_jax")
LAYERS = (
    ("errors",),
    ("extras", "parts", "jax_versions", "closures", "sequential"),
    ("explicit_axes", "spmd"),
    ("pairwise",),
    ("theory",),
    ("losses", "metrics"),
    ("data", "models"),
    ("evaluation", "training"),
    ("jobs",),
)
NEEDS_JAX_ALONE = tuple(name for names in LAYERS[:6] for name in names if name not in ("extras", "parts"))
FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]
HEIGHT = {name: height for height, names in enumerate(LAYERS) for name in names}


def imports(path):
    """The dotted modules that a file imports; `from a import b` counts as a.b."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room(dotted):
    return dotted.split(".")[1]


def test_every_room_has_its_layer():
    assert {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in FILES} == HEIGHT.keys()


@pytest.mark.parametrize("path", FILES, ids=str)
def test_imports_point_downwards(path):
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for dotted in imports(path):
        if dotted.startswith("contrastive_jax."):
            below = HEIGHT[room(dotted)] < HEIGHT[own]
            assert below or room(dotted) == own, f"{path} imports {dotted}"
            private = [name for name in dotted.split(".")[2:] if name.startswith("_")]
            assert not private or room(dotted) == own, f"{path} imports {dotted}"
        elif own in NEEDS_JAX_ALONE:
            assert dotted.split(".")[0] in {"jax", "numpy", "scipy"} or is_standard(dotted), f"{path} imports {dotted}"


def is_standard(dotted):
    return dotted.split(".")[0] in sys.stdlib_module_names
