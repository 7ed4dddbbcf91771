"""A link to a file that is no page, such as an example's code or the licence, leads to a page that shows the file.

Sphinx would offer it as a download, whose address has a hash in it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from docutils import nodes
from pygments.lexers import get_lexer_for_filename
from pygments.util import ClassNotFound
from sphinx.addnodes import download_reference

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sphinx.application import Sphinx
    from sphinx.util.typing import ExtensionMetadata

_BEFORE_SPHINX_COLLECTS_DOWNLOADS = 100
_linked: set[str] = set()


def link_to_pages(app: Sphinx, doctree: nodes.document) -> None:
    """Replace downloads by links; a file that is not there stays one, and Sphinx complains."""
    here = app.env.docname
    for download in list(doctree.findall(download_reference)):
        name, path = app.env.relfn2path(download["reftarget"], here)
        if Path(path).is_file():
            link = nodes.reference(refuri=app.builder.get_relative_uri(here, name), internal=True)
            link.extend(download.children)
            download.replace_self(link)
            _linked.add(name)


def pages(app: Sphinx) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Return a page for each file that is linked."""
    for name in sorted(_linked):
        text = (Path(app.srcdir) / name).read_text(encoding="utf-8")
        try:
            language = get_lexer_for_filename(name).aliases[0]
        except ClassNotFound:
            language = "text"
        code = app.builder.highlighter.highlight_block(text, language)  # type: ignore[attr-defined]  # of HTML builders
        yield name, {"title": name, "body": f"<h1><code>{name}</code></h1>{code}"}, "page.html"


def setup(app: Sphinx) -> ExtensionMetadata:
    """Tell Sphinx."""
    _linked.clear()
    app.connect("doctree-read", link_to_pages, priority=_BEFORE_SPHINX_COLLECTS_DOWNLOADS)
    app.connect("html-collect-pages", pages)
    return {"parallel_read_safe": False}
