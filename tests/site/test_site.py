"""The documentation's site: its strict build, and what the built pages refer to."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.support.site import (
    ROOT,
    BuildError,
    Page,
    broken_references,
    build,
    is_foreign,
    loaded_by_style,
    pages,
)

if TYPE_CHECKING:
    from pathlib import Path


# --- the build


def test_every_markdown_file_for_readers_is_a_page_of_the_site(site: Path) -> None:
    sources = [*(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md"), *ROOT.glob("*.md")]
    missing = [path for path in sources if not (site / path.relative_to(ROOT)).with_suffix(".html").exists()]
    assert missing == []
    assert len(sources) > 40


def test_the_navigation_has_the_parts_of_the_index(site: Path) -> None:
    index = (site / "docs" / "index.html").read_text(encoding="utf-8")
    navigation = index.partition('class="sidebar-tree"')[2].partition("</aside>")[0]
    captions = [part.partition("</span>")[0] for part in navigation.split('<span class="caption-text">')[1:]]
    parts = re.findall(r"^## (.+)$", (ROOT / "docs" / "index.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert captions == [part for part in parts if part != "Sources"]  # which has no pages
    assert {"Learn", "Do", "Look up", "Understand"} <= set(captions)


def test_the_sites_first_address_leads_to_the_index(site: Path) -> None:
    page = Page((site / "index.html").read_text(encoding="utf-8"))
    assert [reference.address for reference in page.references] == ["docs/index.html"]


def test_a_link_to_a_file_leads_to_a_page_that_shows_it(site: Path) -> None:
    page = (site / "docs" / "how-to" / "powertools.html").read_text(encoding="utf-8")
    assert 'href="../../examples/powertools/observed.py.html"' in page
    assert "inject_lambda_context" in (site / "examples" / "powertools" / "observed.py.html").read_text(
        encoding="utf-8"
    )
    assert "Apache License" in (site / "LICENSE.html").read_text(encoding="utf-8")


def small_source(folder: Path, *, faults: dict[str, str] | None = None) -> Path:
    """Make what a site of two pages is built from; faults are appended to pages by name."""
    docs = folder / "docs"
    shutil.copytree(ROOT / "docs" / "_site", docs / "_site")
    shutil.copy(ROOT / "docs" / "conf.py", docs)
    (docs / "index.md").write_text("# Index\n\n## Do\n\n- [This](this.md)\n")
    (docs / "this.md").write_text("# This\n\n[back](index.md#do)\n")
    for name, text in (faults or {}).items():
        with (docs / name).open("a") as page:
            page.write(f"\n{text}\n")
    return folder


def test_a_site_without_a_fault_is_built(tmp_path: Path) -> None:
    build(tmp_path / "site", source=small_source(tmp_path / "source"))


def test_the_build_fails_for_each_thing_that_leads_nowhere_and_for_a_page_in_no_navigation(tmp_path: Path) -> None:
    this = [
        "[page](no-page.md)",
        "[folder](../no-folder)",
        "[anchor of a page](index.md#no-anchor-there)",
        "[anchor](#no-anchor-here)",
        "[file](../no-file.py)",
        "![picture](no-picture.svg)",
    ]
    faults = {"this.md": "\n".join(this), "orphan.md": "# Orphan", "index.md": "- [Listed](no-listed-page.md)"}
    with pytest.raises(BuildError) as caught:
        build(tmp_path / "site", source=small_source(tmp_path / "source", faults=faults))
    complaints = str(caught.value)
    named = re.findall(r"\b(no-[\w-]+)", "\n".join(faults.values()))
    assert [name for name in (*named, "orphan.md") if name not in complaints] == []
    assert complaints.count("WARNING") >= len(named) + 1


# --- what was built


def test_every_address_inside_the_site_leads_somewhere(site: Path) -> None:
    assert broken_references(pages(site)) == []


def test_an_address_that_leads_nowhere_is_found(tmp_path: Path) -> None:
    text = '<p id="here"><a href="#here"><a href="#there"><a href="a.html#here"><a href="b.html"><a href="https://x.y">'
    (tmp_path / "a.html").write_text(text)
    assert broken_references(pages(tmp_path)) == ["a.html: #there", "a.html: b.html"]


def test_nothing_is_loaded_from_another_host(site: Path) -> None:
    loaded = [
        f"{path.name}: {reference.address}"
        for path, page in pages(site).items()
        for reference in page.references
        if reference.is_loaded and is_foreign(reference.address)
    ]
    for path in (*site.rglob("*.css"), *site.rglob("*.svg")):
        addresses = loaded_by_style(path.read_text(encoding="utf-8"))
        loaded += [f"{path.name}: {address}" for address in addresses if is_foreign(address)]
    assert loaded == []


@pytest.mark.parametrize(
    "foreign",
    [
        '<script src="https://cdn.example/x.js"></script>',
        '<script src="//cdn.example/x.js"></script>',
        '<link rel="stylesheet" href="https://cdn.example/x.css">',
        '<img src="http://cdn.example/x.png">',
        '<p style="background: url(https://cdn.example/x.png)">',
        "<style>@import 'https://cdn.example/x.css';</style>",
    ],
)
def test_what_is_loaded_from_another_host_is_found(foreign: str) -> None:
    (reference,) = Page(foreign).references
    assert reference.is_loaded
    assert is_foreign(reference.address)


def test_a_style_sheets_own_loads_are_found() -> None:
    style = "@import 'https://a.example/x.css'; p { src: url(\"//b.example/y.woff\"), url(data:font/woff,z) }"
    assert [address for address in loaded_by_style(style) if is_foreign(address)] == [
        "https://a.example/x.css",
        "//b.example/y.woff",
    ]
