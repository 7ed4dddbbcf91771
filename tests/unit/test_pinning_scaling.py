"""What looks at a user's text takes time in proportion to its length, whatever the text.

Quadratic time takes a hundred times as long for ten times the text, linear time ten times. The factor between them that
is allowed here, and the minima of several runs, leave room for a machine that is busy.
"""

from __future__ import annotations

import time
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from lambda_dbconn.cli.pins.search import search
from lambda_dbconn.proxy import find, is_harmless, pin, tracked
from lambda_dbconn.proxy.guard import PinGuard
from lambda_dbconn.proxy.statements import statements
from tests.support.command_line import run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

KB, MB = 1024, 1024 * 1024
MOST_TIMES = 35.0  # for ten times the text
TOO_QUICK_S = 0.002  # to be compared with anything
MOST_AT_ONCE_S = 0.5  # for a text on its way to the server: some ms were seen

PIECES = {
    "comments": "/* a */ -- b\n",
    "comments that never end": "/*",
    "executable comments": "/*!1 ",
    "quotes": "'",
    "quoted": "'a' \"b\" `c` ",
    "parentheses": "(",
    "calls": "a()",
    "backslashes": "\\",
    "strings with backslashes": "E'\\'",
    "dollar quotes": "$a$ $b$ ",
    "dollars": "$",
    "assignments": "set a = 1, @b := 2, ",
    "statements": "set a = 1;",
    "words of rules": "create or replace temp into @",
    "blanks": " \t\n",
    "mixed": "/* ' */ $q$ \" \\ ( E'\\'' -- ` ; @a := $q$ ) /*! */ set # \n ",
}
STARTS = ("", "SELECT nextval(", "SET a = ")


def text_of(start: str, piece: str, size: int) -> str:
    return (start + piece * (size // len(piece) + 1))[:size]


def least_s(function: Callable[[str], object], text: str, *, runs: int = 3) -> float:
    """Return how long the quickest run takes of this thread's own time."""
    times_s = []
    for _ in range(runs):
        started_s = time.thread_time()
        function(text)
        times_s.append(time.thread_time() - started_s)
    return min(times_s)


def assert_linear(function: Callable[[str], object], start: str, piece: str, *sizes: int, runs: int = 3) -> None:
    """Compare each size with the one before, a tenth of it."""
    times_s = [least_s(function, text_of(start, piece, size), runs=runs) for size in sizes]
    for shorter_s, longer_s in pairwise(times_s):
        assert longer_s <= max(shorter_s, TOO_QUICK_S) * MOST_TIMES, times_s


def scan(engine: str, text: str) -> int:
    """Do what is done of a text of a script, or of a Python program: cut it, and judge each statement."""
    return sum(1 for _ in statements(engine, text)) + sum(1 for _ in find(engine, text))


def search_python(engine: str, text: str) -> int:
    return sum(1 for _ in search(engine, "python", f"cursor.execute({text!r})\n"))


@pytest.mark.once
@pytest.mark.parametrize("piece", PIECES.values(), ids=PIECES)
@pytest.mark.parametrize("engine", ["postgresql", "mysql"])
def test_to_scan_and_judge_a_text_takes_linear_time(engine: str, piece: str) -> None:
    for start in STARTS[:2]:
        assert_linear(lambda text: scan(engine, text), start, piece, KB, 10 * KB, 100 * KB, runs=2)


@pytest.mark.soak
@pytest.mark.parametrize("piece", PIECES.values(), ids=PIECES)
@pytest.mark.parametrize("engine", ["postgresql", "mysql"])
def test_to_scan_and_judge_a_megabyte_takes_linear_time(engine: str, piece: str) -> None:
    for function in (scan, search_python):
        assert_linear(lambda text, function=function: function(engine, text), "", piece, 100 * KB, MB, runs=1)  # type: ignore[misc]


@pytest.mark.once
@pytest.mark.parametrize("piece", PIECES.values(), ids=PIECES)
@pytest.mark.parametrize("engine", ["postgresql", "mysql"])
def test_to_judge_a_text_that_is_about_to_be_sent_takes_linear_time_and_not_much(engine: str, piece: str) -> None:
    judges: list[Callable[[str], object]] = [
        lambda text: pin(engine, text),
        lambda text: pin(engine, text.encode()),
        lambda text: tracked(engine, text),
        lambda text: is_harmless(engine, text),
        guarded(engine),
    ]
    for start in STARTS:
        for judge in judges:
            assert_linear(judge, start, piece, KB, 10 * KB, 100 * KB, MB)
            assert least_s(judge, text_of(start, piece, MB)) < MOST_AT_ONCE_S


def guarded(engine: str) -> Callable[[str], object]:
    """Return what a connection behind RDS Proxy shows each text to."""

    class Slot:
        has_pinned = False
        evict_reason: str | None = None

        def will_change(self, names: object) -> None:
            pass

    guard = PinGuard(engine, "proxy:5432", action="warn", closes=True, emit=lambda _: None)
    return guard.watcher(Slot())


@pytest.mark.once
@pytest.mark.parametrize("engine", ["postgresql", "mysql"])
def test_the_command_reads_a_megabyte_of_anything(engine: str, tmp_path: Path) -> None:
    for suffix in (".sql", ".py"):
        times_s = []
        for size in (100 * KB, MB):
            text = text_of("", PIECES["mixed"], size)
            file = tmp_path / f"some{suffix}"
            file.write_text(text if suffix == ".sql" else f"cursor.execute({text!r})\n", encoding="utf-8")
            started_s = time.thread_time()
            outcome = run("pins", "--engine", engine, str(file))
            times_s.append(time.thread_time() - started_s)
            assert outcome.exit_code in (0, 1), outcome.stderr
        assert times_s[1] <= times_s[0] * MOST_TIMES
