"""The fixtures that all tests may use, and which tests run on which Python."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

pytest_plugins = ["tests.support.fixtures"]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave what is marked `once` to the Python of LAMBDA_DBCONN_ONCE_ON, if it is set; it counts as deselected."""
    once_on = os.environ.get("LAMBDA_DBCONN_ONCE_ON")
    if once_on is None or once_on == f"{sys.version_info.major}.{sys.version_info.minor}":
        return
    left = [item for item in items if item.get_closest_marker("once")]
    config.hook.pytest_deselected(items=left)
    items[:] = [item for item in items if item not in left]
