"""Long work: a line elsewhere, and on a terminal, which is a real one here, something that moves."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys

import pytest

from lambda_dbconn.cli.progress import step

pytestmark = pytest.mark.once

STEPS = """
import time
from lambda_dbconn.cli import progress
if {is_without_rich}:
    progress.find_spec = lambda name: None
with progress.step("Asking pip"):
    time.sleep(0.3)
with progress.step("Compiling"):
    if {is_failing}:
        raise ValueError("no more")
"""
# Variables for the doctor, who does not get far with them.
NOWHERE = {"DB_HOST": "nowhere.invalid", "DB_USER": "app", "DB_ENGINE": "mysql", "DB_SSLMODE": "disable"}


def on_a_terminal(*command: str) -> tuple[str, str]:
    """Run a program whose standard error is a terminal; return what went to standard output, and to that."""
    ours, theirs = pty.openpty()
    environ = {**os.environ, **NOWHERE, "TERM": "xterm", "COLUMNS": "100", "PYTHON_COLORS": "0"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs, env=environ, text=True)
    os.close(theirs)
    shown = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # as Linux says that nobody writes any more
            break
        if not piece:
            break
        shown += piece
    os.close(ours)
    out, _ = process.communicate(timeout=60)
    return out, shown.decode()


def run(*, is_failing: bool = False, is_without_rich: bool = False) -> tuple[str, str]:
    program = STEPS.format(is_failing=is_failing, is_without_rich=is_without_rich)
    return on_a_terminal(sys.executable, "-c", program)


def test_elsewhere_each_step_is_a_line_and_nothing_moves(capsys: pytest.CaptureFixture[str]) -> None:
    with step("Asking pip"), step("Compiling"):
        pass
    assert capsys.readouterr() == ("", "Asking pip ...\nCompiling ...\n")


def test_on_a_terminal_the_seconds_go_by_and_only_the_lines_stay() -> None:
    out, shown = run()
    assert out == ""
    assert shown.count("0:00:00") >= 3  # rich draws ten times a second
    assert shown.index("Asking pip ...\r\n") < shown.index("0:00:00") < shown.index("Compiling ...\r\n")
    assert shown.rstrip().endswith("\x1b[2K")  # the last that was drawn is erased


def test_a_step_that_fails_gives_the_terminal_back() -> None:
    _, shown = run(is_failing=True)
    assert "ValueError: no more" in shown
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") == 2  # the cursor, hidden and shown


def test_without_rich_there_are_the_lines_alone() -> None:
    assert run(is_without_rich=True) == ("", "Asking pip ...\r\nCompiling ...\r\n")


def test_the_doctor_says_on_a_terminal_which_step_it_is_at() -> None:
    out, shown = on_a_terminal(sys.executable, "-m", "lambda_dbconn", "doctor", "--json", "--timeout", "2")
    assert not json.loads(out)["is_well"]
    assert re.search(r"(settings|passed|failed|skipped) …", shown)
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") == 1
