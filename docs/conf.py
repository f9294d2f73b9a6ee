"""Sphinx's configuration: `python -m sphinx -W -b html docs docs/_build/html`."""

from __future__ import annotations

from pathlib import Path

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
    "sphinx_gallery.gen_gallery",
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

# The applications as they are: they run for minutes on downloaded data, so that what they drew is
# kept in pictures/ and nothing runs here. What holds no `main` is a part that several share.
applications = Path(__file__).parents[1] / "examples" / "applications"
shared = [p.stem for p in applications.glob("*.py") if "training.run(main)" not in p.read_text()]
sphinx_gallery_conf = {
    "examples_dirs": str(applications),
    "gallery_dirs": "gallery",
    "ignore_pattern": rf"^({'|'.join(shared)})\.py$",
    "plot_gallery": "False",
    "image_scrapers": (),
    "reset_modules": (),
    "within_subsection_order": "FileNameSortKey",
    "show_memory": False,
    "write_computation_times": False,
    "download_all_examples": False,
}

html_theme = "furo"
html_favicon = "favicon.svg"
html_title = f"fastrnn {release}"
html_static_path: list[str] = []
html_theme_options = {"navigation_with_keys": True}
