"""The version: said once, in `lambda_dbconn/__init__.py`; everything else has it from there, or agrees."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import lambda_dbconn

ROOT = Path(__file__).parents[2]


def test_what_is_installed_has_the_version_that_the_code_says() -> None:
    assert version("lambda-dbconn") == lambda_dbconn.__version__


def test_the_build_takes_the_version_from_the_code() -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "version" not in pyproject["project"]
    assert pyproject["project"]["dynamic"] == ["version"]
    assert pyproject["tool"]["hatch"]["version"] == {"path": "lambda_dbconn/__init__.py"}


def test_the_changelog_is_about_this_version_first() -> None:
    """Until it is released, the entry for what is not released says which version that will be."""
    headings = re.split(r"^## ", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)[1:]
    unreleased, *released = headings
    assert unreleased.startswith("[Unreleased]\n")
    coming = re.search(r"^To be (\d+\.\d+\.\d+\w*)\b", unreleased, flags=re.MULTILINE)
    last = re.match(r"\[(\d+\.\d+\.\d+\w*)\] - \d{4}-\d\d-\d\d\n", released[0]) if released else None
    newest = coming or last
    assert newest is not None
    assert newest[1] == lambda_dbconn.__version__


def test_the_version_is_one_that_semantic_versioning_knows() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc)\d+)?", lambda_dbconn.__version__)
