"""The fenced blocks of the documentation, and what becomes of each: `python -m tests.support.snippets` lists them.

A Python or SQL block is run, a shell block of commands that are known here is parsed by what would carry them out, and
so is what is written in a data format. All else needs a note: an HTML comment right before the block, which no reader
of the page sees.

    <!-- not run: needs an AWS account -->        why it is not
    <!-- run by: tests/integration/test_x.py -->  a test of its own, which names the page
    <!-- then: handler({"id": 1}, context) -->    what is evaluated when the block has run; must not be False
    <!-- with: DB_MAX_CONNECTIONS=4 -->           variables that are set before

For all blocks of a language that follow on the page, and have no note of their own; in any place:

    <!-- text blocks, run by: tests/integration/test_x.py -->
    <!-- all blocks, run by: tests/integration/test_x.py -->
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path
from typing import Literal, NamedTuple

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]

Fate = Literal["run", "parsed", "not run"]
FATES: tuple[Fate, ...] = ("run", "parsed", "not run")

RUN = {"python", "sql"}
PARSED = {"hcl", "json", "toml", "yaml"}
KINDS = {"not run", "run by", "then", "with"}

_NOTE = re.compile(r"([a-z ]+): (.+?) -->\s*", flags=re.DOTALL)
_OF_MANY = re.compile(r"<!-- (\w+) blocks, (.*)", flags=re.DOTALL)


class SnippetError(AssertionError):
    """What is wrong with a block, or with the note before it."""


class Snippet(NamedTuple):
    """One fenced block.

    Attributes:
        path: The page's, in the repository.
        line: Of the block's first line of code.
        language: As it is named after the fence.
        code: Without the fence.
        notes: From the comments before it: kind and text.
    """

    path: Path
    line: int
    language: str
    code: str
    notes: tuple[tuple[str, str], ...]

    @property
    def name(self) -> str:
        """Where it is."""
        return f"{self.path}:{self.line}"

    def noted(self, kind: str) -> list[str]:
        """Return the texts of the notes of one kind."""
        return [text for noted, text in self.notes if noted == kind]


def pages() -> list[Path]:
    """Return the Markdown files that readers see."""
    found = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")]
    return sorted(path.relative_to(ROOT) for path in found)


def snippets_of(path: Path, text: str) -> list[Snippet]:
    """Return the blocks of one page.

    Raises:
        SnippetError: There is a comment before a block that is no note.
    """
    found: list[Snippet] = []
    comments: list[str] = []
    of_language: dict[str, list[tuple[str, str]]] = {}
    for token in MarkdownIt("commonmark").parse(text):
        if token.type == "html_block":
            of_many = _OF_MANY.fullmatch(token.content)
            if of_many:
                of_language[of_many[1]] = [_note(of_many[2], f"{path}: the note for {of_many[1]} blocks")]
            else:
                comments.append(token.content)
            continue
        if token.type == "fence":
            assert token.map is not None
            line = token.map[0] + 2
            language = token.info.split()[0] if token.info.strip() else ""
            own = [_note(comment, f"{path}:{line}: the comment before it") for comment in comments]
            notes = own or of_language.get(language) or of_language.get("all", [])
            found.append(Snippet(path, line, language, token.content, tuple(notes)))
        comments = []
    return found


def _note(comment: str, what: str) -> tuple[str, str]:
    match = _NOTE.fullmatch(comment.removeprefix("<!-- "))
    if match is None or match[1] not in KINDS:
        raise SnippetError(f"{what} is no note: {comment.strip()}")
    return match[1], " ".join(match[2].split())


def all_snippets() -> list[Snippet]:
    """Return the blocks of all pages."""
    return [snippet for path in pages() for snippet in snippets_of(path, (ROOT / path).read_text(encoding="utf-8"))]


def fate(snippet: Snippet) -> Fate:
    """Say what becomes of a block.

    Raises:
        SnippetError: Nothing does, and nothing says why.
    """
    from tests.support.shell import unknown_programs

    if snippet.noted("not run"):
        return "not run"
    if snippet.noted("run by") or snippet.language in RUN:
        return "run"
    if snippet.language in PARSED:
        return "parsed"
    if snippet.language != "sh":
        raise SnippetError(f"{snippet.name}: nothing runs or parses a block of {snippet.language or 'no language'}")
    unknown = unknown_programs(snippet.code)
    if unknown:
        raise SnippetError(f"{snippet.name}: nothing runs or parses {', '.join(sorted(unknown))}")
    return "parsed"


def named_by(test: Path) -> str:
    """Return the text of a test file and of the support modules that it imports."""
    text = (ROOT / test).read_text(encoding="utf-8")
    modules = re.findall(r"^from tests\.support\.(\w+) import|^from tests\.support import (\w+)", text, re.MULTILINE)
    return text + "".join(
        (ROOT / "tests" / "support" / f"{first or second}.py").read_text(encoding="utf-8") for first, second in modules
    )


def summary() -> str:
    """Return the counts, and each block that is not run with its reason."""
    fates = [(snippet, fate(snippet)) for snippet in all_snippets()]
    counts = Counter(fate for _, fate in fates)
    lines = [", ".join(f"{counts[fate]} {fate}" for fate in FATES)]
    lines += [f"{snippet.name}: {snippet.noted(kind)[0]}" for snippet, kind in fates if kind == "not run"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(summary())
