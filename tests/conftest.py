"""The fixtures that all tests may use."""

import gc
import os
import re
import signal
from pathlib import Path

import pytest

pytest_plugins = ["tests.support.fixtures"]

_MARKS = ("once", "long", "walk", "soak")  # what they mark runs in one environment each, the rest in several
_REST = " and ".join(f"not {mark}" for mark in _MARKS)
_MARK_OF_ALL = re.compile(rf"^pytestmark = \[?\s*pytest\.mark\.({'|'.join(_MARKS)})\b", re.MULTILINE)


# What a package says of its own code on a Python that is newer than itself; the last line that fits counts.
_OURS = "(lambda_dbconn|tests|examples|benchmarks|test_|conftest|__main__)"
_OLD_PACKAGES = [
    f"{action}::{category}:{module}"
    for action, module in (("ignore", ""), ("error", _OURS))
    for category in ("DeprecationWarning", "PendingDeprecationWarning", "SyntaxWarning")
]


def pytest_configure(config: pytest.Config) -> None:
    """Let the oldest dependencies warn of themselves; take SIGINT as a terminal's run does.

    A shell's background job ignores SIGINT, and so would all that it starts.
    """
    if os.environ.get("LAMBDA_DBCONN_TESTS_THE_OLDEST"):
        for line in _OLD_PACKAGES:
            config.addinivalue_line("filterwarnings", line)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Let the collector of garbage pass over what the tests themselves are: it takes a twentieth of their time."""
    gc.collect()
    gc.freeze()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out a file of whose tests none would be selected: to read it would take as long as many tests."""
    wanted = config.option.markexpr
    if collection_path.suffix != ".py" or wanted not in (*_MARKS, _REST):
        return None
    text = collection_path.read_text(encoding="utf-8")
    of_all = _MARK_OF_ALL.search(text)
    if of_all is not None:
        return of_all[1] != wanted or None
    # A fixture's parameter may be marked `once`, and so a test of any file.
    return (wanted in ("long", "walk", "soak") and f"pytest.mark.{wanted}" not in text) or None
