"""Build the documentation's site, strictly: `python -m tests.support.site FOLDER`. And read what was built."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).parents[2]

# What a browser fetches by itself, by element; a link is followed by people only.
_LOADED_BY = {"audio", "embed", "iframe", "image", "img", "input", "link", "object", "script", "source", "use", "video"}
_ADDRESSES = {"data", "href", "poster", "src", "srcset", "xlink:href"}


class BuildError(Exception):
    """The build had something to complain of."""


def build(folder: Path, *, source: Path = ROOT) -> None:
    """Make the site anew; every warning is an error, of an unknown link or anchor, or of a page in no navigation.

    Raises:
        BuildError: With all that Sphinx said.
    """
    strict = ["--nitpicky", "--fail-on-warning", "--keep-going"]
    with tempfile.TemporaryDirectory() as work:
        anew = ["--fresh-env", "--write-all", "--doctree-dir", work]
        command = [sys.executable, "-m", "sphinx", "--builder", "html", *strict, *anew, "--quiet", "--no-color"]
        arguments = ["--conf-dir", str(source / "docs"), str(source), str(folder)]
        run = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
    if run.returncode != 0:
        raise BuildError(run.stdout + run.stderr)


class Reference(NamedTuple):
    """One address in a page.

    Attributes:
        element: That has it.
        address: As it is written.
        is_loaded: Whether a browser fetches it by itself.
    """

    element: str
    address: str
    is_loaded: bool


class Page(HTMLParser):
    """What a page refers to, and where one may refer to in it.

    Attributes:
        anchors: Its ids.
        references: In order.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.references: list[Reference] = []
        self.feed(text)
        for style in re.findall(r"<style[^>]*>(.*?)</style>", text, flags=re.DOTALL):
            self.references += [Reference("style", address, is_loaded=True) for address in loaded_by_style(style)]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take a note of an element."""
        for name, value in attrs:
            if name == "id" and value is not None:
                self.anchors.add(value)
            elif name in _ADDRESSES and value is not None:
                self.references.append(Reference(tag, value, tag in _LOADED_BY))
            elif name == "style" and value is not None:
                self.references += [Reference(tag, address, is_loaded=True) for address in loaded_by_style(value)]


def loaded_by_style(style: str) -> list[str]:
    """Return the addresses that a style sheet, or a part of one, makes a browser fetch."""
    found = re.findall(r"""url\(\s*["']?([^"')]*)|@import\s+["']([^"']*)""", style)
    return [first or second for first, second in found]


def pages(folder: Path) -> dict[Path, Page]:
    """Read every page of a site."""
    return {path: Page(path.read_text(encoding="utf-8")) for path in sorted(folder.rglob("*.html"))}


def is_foreign(address: str) -> bool:
    """Tell whether an address leads to another host."""
    return urlsplit(address).scheme not in {"", "data"} or address.startswith("//")


def broken_references(site: dict[Path, Page]) -> list[str]:
    """Return the references inside a site that lead nowhere, each with its page."""
    broken = []
    for path, page in site.items():
        for reference in page.references:
            parts = urlsplit(reference.address)
            if is_foreign(reference.address) or parts.scheme or not (parts.path or parts.fragment):
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            is_there = target.is_file()
            if is_there and parts.fragment and target in site:
                is_there = unquote(parts.fragment) in site[target].anchors
            if not is_there:
                broken.append(f"{path.name}: {reference.address}")
    return broken


if __name__ == "__main__":
    try:
        build(Path(sys.argv[1]))
    except BuildError as error:
        sys.exit(str(error))
