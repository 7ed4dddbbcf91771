"""The navigation is what readers of `docs/index.md` see: its headings, and the lists of links below them.

A page that is not linked there is in no table of contents, which Sphinx warns of; and a warning fails the build.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.util.typing import ExtensionMetadata


def table_of_contents(index: str) -> str:
    """Return a hidden table of contents for each section that has a list of links to pages."""
    parts = re.split(r"^## (.+)$", index, flags=re.MULTILINE)[1:]
    tables = []
    for caption, section in zip(parts[::2], parts[1::2], strict=True):
        links = re.findall(r"^- \[([^]]+)\]\(([^):#]+)\.md\)", section, flags=re.MULTILINE)
        entries = "\n".join(f"{text} <{page}>" for text, page in links)
        if entries:
            tables.append(f"```{{toctree}}\n:caption: {caption}\n:hidden:\n\n{entries}\n```\n")
    return "\n".join(tables)


def add_table_of_contents(app: Sphinx, page: str, content: list[str]) -> None:
    """Append it to the index, as Sphinx reads it."""
    if page == app.config.root_doc:
        content[0] += "\n" + table_of_contents(content[0])


def setup(app: Sphinx) -> ExtensionMetadata:
    """Tell Sphinx."""
    app.connect("source-read", add_table_of_contents)
    return {"parallel_read_safe": True}
