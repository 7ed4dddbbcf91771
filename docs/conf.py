"""How Sphinx makes a site of the Markdown: `make docs`.

Its source is the repository's root, so that a relative link means the same in the site as it does on GitHub.
"""

from __future__ import annotations

import sys
from importlib.metadata import version as version_of
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

project = "lambda_dbconn"
author = "The lambda_dbconn maintainers"
copyright = author  # noqa: A001 - Sphinx's name for it
release = version_of("lambda-dbconn")
version = release

extensions = ["myst_parser", "_site.navigation", "_site.source_pages"]
root_doc = "docs/index"
include_patterns = ["*.md", "docs/**.md", "examples/**.md"]
# Sphinx does not look into these folders at all, which takes longer than the rest if they are there.
exclude_patterns = [".*", "build", "dist", "site", "lambda_dbconn", "tests", "benchmarks", "**/node_modules"]

nitpicky = True
myst_heading_anchors = 6

html_theme = "furo"
html_title = "lambda_dbconn"
html_extra_path = ["_site/root"]  # begins where the index is, which is not at the top
html_static_path = ["_site/static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": False}
