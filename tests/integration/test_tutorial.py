"""The tutorial, followed word by word on a machine that has nothing: an empty home, an empty environment."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import ZipFile

import pytest

import lambda_dbconn
from tests.support.local_proxy import ROOT
from tests.support.walkthrough import Walkthrough, pattern_of, steps_of

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not Path("/proc/self/cwd").exists(), reason="needs /proc to see where a shell is"),
]

PAGE = ROOT / "docs" / "tutorial" / "first-function.md"
_PARTS = ("pyproject.toml", "README.md", "LICENSE")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What a clone has that is needed to build the package; the package is the one under test."""
    folder = tmp_path / "checkout"
    package = Path(lambda_dbconn.__file__).parent
    shutil.copytree(package, folder / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in _PARTS:
        shutil.copy2(ROOT / name, folder / name)
    return folder


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


@pytest.fixture
def walkthrough(checkout: Path, home: Path, temporary_directory: Path) -> Iterator[Walkthrough]:
    """Terminals in a checkout, without any variables but those with which this machine finds its package index."""
    kept = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_", "LANG", "LC_"))}
    found = [Path(sys.executable).parent.as_posix(), "/usr/local/bin", "/usr/bin", "/bin"]
    own = Path("~/.config/pip/pip.conf").expanduser()
    if own.exists():
        kept.setdefault("PIP_CONFIG_FILE", str(own))
    environ = kept | {"HOME": str(home), "PATH": os.pathsep.join(found), "TMPDIR": str(temporary_directory)}
    if not _index_is_reached(environ):
        pytest.skip("pip reaches no index")
    walkthrough = Walkthrough(checkout, environ)
    yield walkthrough
    walkthrough.close()


def _index_is_reached(environ: dict[str, str]) -> bool:
    asked = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", environ["HOME"], "tenacity"]
    return subprocess.run(asked, env=environ, capture_output=True, timeout=60, check=False).returncode == 0


@pytest.mark.timeout(600)
def test_the_tutorial_does_what_it_says_word_by_word(
    walkthrough: Walkthrough, home: Path, temporary_directory: Path
) -> None:
    walkthrough.follow(PAGE.read_text(encoding="utf-8"))
    with ZipFile(home / "first-function" / "function.zip") as function:
        names = set(function.namelist())
    assert {"app.py", "lambda_dbconn/__init__.py", "psycopg/__init__.py", "lambda_dbconn/amazon-roots.pem"} <= names
    assert any(name.startswith("psycopg_binary/_psycopg.cpython-313-x86_64") for name in names)
    assert list(temporary_directory.iterdir()) == []


# --- the one who follows


def test_a_block_that_no_words_lead_to_is_an_error() -> None:
    with pytest.raises(AssertionError, match="does not say where"):
        steps_of("Look:\n\n```python\nimport app\n```\n")
    with pytest.raises(AssertionError, match="line 3: nobody knows what to do with 'sql'"):
        steps_of("Look:\n\n```sql\nselect 1\n```\n")
    with pytest.raises(AssertionError, match="has no block"):
        steps_of("Save this as `app.py`.\n\n```sh\n:\n```\n\nSave this as `b.py`.\n")


def test_the_words_of_a_page_are_found_in_their_order_over_the_ends_of_lines() -> None:
    page = "Press\nEnter twice, and wait\ntwenty seconds. In the second terminal, type `fg`. Press Ctrl-Z. In another\n"
    page += "terminal, put `a.b` in place of `c` in `d.py`. In\nthe first terminal:\n\n```sh\nls\n```\n"
    assert [(step.kind, step.text, step.name) for step in steps_of(page)] == [
        ("type", "", ""),
        ("type", "", ""),
        ("wait", "twenty", ""),
        ("terminal", "second", ""),
        ("type", "fg", ""),
        ("control", "Z", ""),
        ("terminal", "another", ""),
        ("edit", "c a.b", "d.py"),
        ("terminal", "first", ""),
        ("sh", "ls\n", ""),
    ]


@pytest.mark.parametrize(
    "page",
    [
        "```sh\necho one\n```\n\n```text\ntwo\n```\n",
        "```sh\necho one; echo two\n```\n\n```text\none\n```\n",
        "```sh\necho two; echo one\n```\n\n```text\none\n```\n",
        "```sh\nfalse\n```\n",
        "```sh\nfalse\ntrue\n```\n",
    ],
    ids=["other output", "more after it", "more before it", "a failing command", "a failing command before another"],
)
def test_what_is_not_as_the_page_says_is_a_failure(tmp_path: Path, page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.support.walkthrough.LIMIT_OF_OUTPUT_S", 0.5)
    walkthrough = Walkthrough(tmp_path, {"PATH": os.environ["PATH"]})
    try:
        with pytest.raises(AssertionError):
            walkthrough.follow(page)
    finally:
        walkthrough.close()


def test_what_is_as_the_page_says_is_none(tmp_path: Path) -> None:
    page = "Save this as `a.py`:\n\n```python\nprint(input('? '))\n```\n\n"
    page += "```sh\ncat a.py |\\\n    wc -l\npython3 a.py\n```\n"
    page += "\nType `yes`:\n\n```text\n? yes\nye…\n```\n"
    walkthrough = Walkthrough(tmp_path, {"PATH": os.environ["PATH"]})
    try:
        walkthrough.follow(page)
    finally:
        walkthrough.close()


@pytest.mark.parametrize(("shown", "is_it"), [("a …", True), ("a …d", False), ("…\na b c", True), ("a", False)])
def test_an_ellipsis_stands_for_what_differs(shown: str, is_it: bool) -> None:
    assert (re.fullmatch(pattern_of(shown), "a b c") is not None) is is_it


@pytest.mark.parametrize(("said", "is_it"), [("[1]+  Stopped    cat", True), ("[1]+ Stopped cat", False)])
def test_how_wide_the_gap_is_before_a_jobs_command_is_the_shells(said: str, is_it: bool) -> None:
    assert (re.fullmatch(pattern_of("[1]+  Stopped        cat"), said) is not None) is is_it
