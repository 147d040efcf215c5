"""Sphinx configuration: `sphinx-build -W docs docs/_build`."""

import inspect
import re
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

project = "contrastive_jax"
author = "The contrastive_jax authors"
release = version = metadata.version("contrastive_jax")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.extlinks",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build", "results/minutes", "results/cpu"]  # what pages of results include
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 2
_PYPROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
_COLAB = f"https://colab.research.google.com/github/{_PYPROJECT['tool']['contrastive_jax']['repository']}/blob/main/notebooks"
extlinks = {"colab": (f"{_COLAB}/%s.ipynb", "%s")}  # {colab}`1_your_training_loop`
html_theme = "furo"
html_title = f"contrastive_jax {release}"
html_static_path = ["_static"]
html_css_files = ["tables.css"]
html_show_copyright = False

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings say shapes and dtypes, which the annotations cannot
autodoc_preserve_defaults = True
default_role = "code"  # docstrings write code in single backticks
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # attributes once, not also as the fields of a NamedTuple
napoleon_use_rtype = False  # what comes before a colon in Returns is words, not a type to link

_FIELD = re.compile(r"^    (\w+): [^#\n]*(?:# (.*))?$", re.MULTILINE)


def list_fields(app: Sphinx, what: str, name: str, item: Any, options: Any, lines: list[str]) -> None:
    """List the fields of a NamedTuple that have a comment beside them, unless its docstring lists them."""
    if what != "class" or not hasattr(item, "_fields") or any(line.startswith(":ivar") for line in lines):
        return
    comments = _FIELD.findall(inspect.getsource(item))
    escaped = ((field, text.replace("**", r"\*\*").replace("|", r"\|")) for field, text in comments)
    lines += ["", *(f":ivar {field}: {text}" for field, text in escaped if text)]


def skip_field(app: Sphinx, what: str, name: str, item: Any, skip: bool, options: Any) -> bool | None:
    """Leave out the descriptors of a NamedTuple's fields, which say "Alias for field number 0"."""
    return True if (getattr(item, "__doc__", None) or "").startswith("Alias for field number") else None


def setup(app: Sphinx) -> None:
    app.connect("autodoc-process-docstring", list_fields)
    app.connect("autodoc-skip-member", skip_field)
