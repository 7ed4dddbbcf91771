"""Sphinx and Selenium are a dependency group of their own: `tox -e docs` installs them."""

from __future__ import annotations

import importlib.util
import os
from typing import TYPE_CHECKING

import pytest

from tests.support.site import build

if TYPE_CHECKING:
    from pathlib import Path

TOOLS = ["furo", "myst_parser", "selenium", "sphinx"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a tool that is not here; fail instead where the tools are required."""
    missing = [name for name in TOOLS if importlib.util.find_spec(name) is None]
    if not missing:
        return
    if os.environ.get("LAMBDA_DBCONN_REQUIRE_DOCS"):
        raise pytest.UsageError(f"these are required and not installed: {', '.join(missing)}")
    here = [item for item in items if "tests/site/" in item.path.as_posix()]
    for item in here:
        item.add_marker(pytest.mark.skip(reason=f"no {', '.join(missing)}: `tox -e docs` has them"))


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site, strictly."""
    folder = tmp_path_factory.mktemp("site")
    build(folder)
    return folder
