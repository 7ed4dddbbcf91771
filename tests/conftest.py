"""The fixtures that all tests may use."""

import gc
import re
import signal
from pathlib import Path

import pytest

pytest_plugins = ["tests.support.fixtures"]

_MARKS = ("once", "long", "walk")  # what they mark runs in one environment each, the rest in several
_REST = " and ".join(f"not {mark}" for mark in _MARKS)
_MARK_OF_ALL = re.compile(rf"^pytestmark = \[?\s*pytest\.mark\.({'|'.join(_MARKS)})\b", re.MULTILINE)


def pytest_configure() -> None:
    """Take SIGINT as a terminal's run does: a shell's background job ignores it, and so would all that it starts."""
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
    return (wanted in ("long", "walk") and f"pytest.mark.{wanted}" not in text) or None
