"""Sphinx's configuration: `python -m sphinx -W -b html docs docs/_build/html`."""

from __future__ import annotations

import fastrnn

project = "fastrnn"
author = "The fastrnn authors"
copyright = "The fastrnn authors"
version = release = fastrnn.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
]
exclude_patterns = ["_build"]
templates_path = ["_templates"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
default_role = "code"
nitpicky = False

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4

autosummary_generate = True
autodoc_typehints = "none"
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False

html_theme = "furo"
html_favicon = "favicon.svg"
html_title = f"fastrnn {release}"
html_static_path: list[str] = []
html_theme_options = {"navigation_with_keys": True}
