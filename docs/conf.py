"""Sphinx configuration: `sphinx-build -W docs docs/_build`."""

from importlib import metadata

project = "contrastive_jax"
author = "The contrastive_jax authors"
release = version = metadata.version("contrastive_jax")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 2
html_theme = "furo"
html_title = f"contrastive_jax {release}"

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings say shapes and dtypes, which the annotations cannot
default_role = "code"  # docstrings write code in single backticks
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # attributes once, not also as the fields of a NamedTuple
napoleon_use_rtype = False  # what comes before a colon in Returns is words, not a type to link
