"""Every fenced block of the documentation is run, parsed, or says why it is not."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hcl2
import pytest
import yaml

from tests.support.shell import commands, faults
from tests.support.snippets import FATES, ROOT, Snippet, SnippetError, all_snippets, fate, named_by, pages, snippets_of

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.once

SNIPPETS = all_snippets()
PARSERS: dict[str, Callable[[str], Any]] = {
    "hcl": hcl2.loads,
    "json": json.loads,
    "python": lambda code: compile(code, "snippet", "exec"),
    "toml": tomllib.loads,
    "yaml": yaml.safe_load,
}


def of(*languages: str) -> pytest.MarkDecorator:
    found = [snippet for snippet in SNIPPETS if snippet.language in languages]
    return pytest.mark.parametrize("snippet", found, ids=lambda snippet: snippet.name)


def of_page(text: str) -> Snippet:
    """Return the one block of a page."""
    (snippet,) = snippets_of(Path("docs/page.md"), text)
    return snippet


# --- the documentation


@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda snippet: snippet.name)
def test_every_block_is_run_or_parsed_or_says_why_not(snippet: Snippet) -> None:
    assert fate(snippet) in FATES


def test_most_blocks_are_run_and_few_are_not() -> None:
    fates = [fate(snippet) for snippet in SNIPPETS]
    assert fates.count("run") > 60
    assert fates.count("parsed") > 20
    assert fates.count("not run") < len(fates) / 5


@of(*PARSERS)
def test_what_is_written_in_a_language_or_format_is_understood_by_its_parser(snippet: Snippet) -> None:
    PARSERS[snippet.language](snippet.code)


@of("sh")
def test_a_shell_block_is_understood_by_the_shell_and_by_the_commands_that_are_known_here(
    snippet: Snippet, tmp_path: Path
) -> None:
    assert faults(snippet.code, tmp_path) == []


@pytest.mark.parametrize("test", sorted({test for snippet in SNIPPETS for test in snippet.noted("run by")}))
def test_a_test_that_is_said_to_run_a_block_names_its_page(test: str) -> None:
    text = named_by(Path(test))
    assert re.search(r"^def test_", text, flags=re.MULTILINE)
    told = {snippet.path for snippet in SNIPPETS if test in snippet.noted("run by")}
    assert [path for path in told if path.name not in text] == []


def test_there_are_pages_with_blocks() -> None:
    assert {"README.md", "CONTRIBUTING.md", "docs/index.md"} <= {str(path) for path in pages()}
    fences = sum(len(re.findall(r"^ *```\w", (ROOT / path).read_text(), flags=re.MULTILINE)) for path in pages())
    assert len(SNIPPETS) == fences


# --- whether these tests can fail


@pytest.mark.parametrize(
    ("page", "complaint"),
    [
        ("```text\nout\n```", "page.md:2: nothing runs or parses a block of text"),
        ("```\nout\n```", "a block of no language"),
        ("```sh\nls -l\naws s3 ls\n```", "nothing runs or parses aws, ls"),
        ("```sh\nmake test && curl x\n```", "curl"),
        ("<!-- not  run: why -->\n```text\nout\n```", "the comment before it is no note"),
        ("<!-- not run -->\n```text\nout\n```", "the comment before it is no note"),
        ("<!-- not run: -->\n```text\nout\n```", "the comment before it is no note"),
        ("<!-- text blocks, not  run: why -->\n\n```text\nout\n```", "the note for text blocks is no note"),
        ("<!-- sh blocks, not run: why -->\n\n```text\nout\n```", "nothing runs or parses"),
        ("<!-- not run: why -->\n\nProse.\n\n```text\nout\n```", "nothing runs or parses"),
    ],
)
def test_a_block_that_nothing_runs_or_parses_is_found(page: str, complaint: str) -> None:
    with pytest.raises(SnippetError, match=re.escape(complaint)):
        fate(of_page(page))


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        ("```python\nx = 1\n```", "run"),
        ("```sql\nselect 1\n```", "run"),
        ("```json\n{}\n```", "parsed"),
        ("```sh\nmake test  # a comment\nlambda-dbconn doctor > report.txt\n```", "parsed"),
        ("<!-- not run: why -->\n```text\nout\n```", "not run"),
        ("- item\n\n  <!-- not run: why -->\n  ```sh\n  ls\n  ```", "not run"),
        ("<!-- run by: tests/x.py -->\n```text\nout\n```", "run"),
    ],
)
def test_the_fate_of_a_block_is_its_languages_or_its_notes(page: str, expected: str) -> None:
    assert fate(of_page(page)) == expected


@pytest.mark.parametrize("languages", ["text", "all"])
def test_a_note_may_be_for_all_blocks_that_follow_and_have_none_of_their_own(languages: str) -> None:
    block = "```text\nout\n```\n"
    page = f"{block}<!-- not run: this -->\n{block}<!-- run by: tests/x.py -->\n{block}"
    snippets = snippets_of(Path("page.md"), f"<!-- {languages} blocks, not run: why -->\n\nProse.\n\n{page}")
    assert [snippet.notes for snippet in snippets] == [
        (("not run", "why"),),
        (("not run", "this"),),
        (("run by", "tests/x.py"),),
    ]


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        ("lambda-dbconn doctro", "No such command"),
        ("lambda-dbconn doctor --nothing", "No such option"),
        ("lambda-dbconn layer --python 3.13 --arch arm65 --engine postgresql", "arm65"),
        ("lambda-dbconn pins --engine", "requires an argument"),
        ('eval "$(_X=1 lambda-dbconn --nothing)"', "No such option"),
        ("make demo && make tea", "there is no target tea"),
        ("pip install 'lambda-dbconn[nothing]'", "there is no extra nothing"),
        ("pip install '.[cli,nothing]'", "there is no extra nothing"),
        ("pip install 'a b'", "a b"),
        ("export 1=2", "these are no variables"),
        ("echo 'open", "unexpected EOF"),
        ("pip wheel x --open '", "unexpected EOF"),
        ("if true", "syntax error"),
    ],
)
def test_a_command_that_would_be_refused_is_found(code: str, fault: str, tmp_path: Path) -> None:
    assert fault in "\n".join(faults(code, tmp_path))


def test_a_shell_block_is_taken_apart_into_commands() -> None:
    code = "A=1 one \\\n  two > out  # three\n. ./x && (four 'five six' | seven)\n" + 'eval "$(B=2 eight)"\n'
    assert commands(code) == [["one", "two"], [".", "./x"], ["four", "five six"], ["seven"], ["eight"]]
