"""Every cell of the invocation matrix: what becomes of the connection, what is logged, what the other end sees.

What is expected is written here, by hand; the page in the documentation has to say what was observed.
"""

from __future__ import annotations

import functools
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.support import matrix_page
from tests.support.fixtures import _running
from tests.support.lock_times import make_things
from tests.support.matrix import SITUATIONS, Row, Situation
from tests.support.stage import ENGINES, WAYS, Stage, server_for, stage_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lambda_dbconn.testing.certificates import Certificates
    from lambda_dbconn.testing.servers import LocalServer

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(sys.platform != "linux", reason="awslambdaric has wheels for Linux only"),
]
pytest.importorskip("snapshot_restore_py", reason="the library of the hooks comes with lambda-dbconn[demo]")

OPENED = "INFO ConnectionOpened reason=first"
BEGAN = "sessions: 1 began"
SAME = "sessions: as before"
OTHER = "sessions: 1 ended, 1 began"


def replaced(reason: str) -> tuple[str, ...]:
    return (
        f"DEBUG ConnectionClosed reason={reason}",
        f"DEBUG ConnectionReplaced reason={reason}",
        f"INFO ConnectionOpened reason={reason}",
    )


EXPECTED = {
    "cold": Row(answer="an answer", state="opened", logged=(OPENED,), seen=BEGAN),
    "warm": Row(answer="an answer", state="kept", logged=(), seen=SAME),
    "frozen for 5 minutes": Row(answer="an answer", state="kept", logged=(), seen=f"{SAME}; 1 ping"),
    "frozen, connection cut": Row(answer="an answer", state="replaced", logged=replaced("hang_up"), seen=OTHER),
    "frozen, environment killed": Row(
        answer="an answer",
        state="gone with its environment",
        logged=(OPENED,),
        seen="sessions: 1 ended, 1 without a goodbye, 1 began",
    ),
    "SnapStart restore": Row(
        answer="an answer",
        state="opened at init, then replaced",
        logged=(OPENED, "DEBUG ConnectionClosed reason=closed", OPENED),
        seen=f"before the snapshot 1 began and ended; {BEGAN}",
    ),
    "managed instance's forks": Row(
        answer="an answer",
        state="opened at init, one for each worker",
        logged=(OPENED, OPENED),
        seen="sessions: 2 began",
    ),
    "timeout in a query": Row(
        answer="an answer, after `DeadlineExceededError`",
        state="replaced",
        logged=replaced("deadline"),
        seen=f"{OTHER}; statement stopped, lock free",
    ),
    "error in the handler": Row(
        answer="`ValueError`",
        state="kept",
        logged=("DEBUG TransactionRolledBack is_left_open=False",),
        seen=f"{SAME}; rolled back, lock free",
    ),
}

# Where an engine or a way makes a difference to what the other end sees.
SEEN_INSTEAD = {
    ("timeout in a query", "postgresql", "local proxy"): f"{OTHER}; statement and lock go on",
    ("timeout in a query", "mysql", "local proxy"): f"{OTHER}; statement and lock go on",
}


@pytest.fixture(scope="module")
def database_of(certificates: Certificates) -> Iterator[Callable[[str, str], LocalServer]]:
    """Each engine's server for each way, for this module alone: its sessions are counted."""
    with ExitStack() as stack:

        @functools.cache
        def give(engine: str, _way: str) -> LocalServer:
            server = stack.enter_context(contextmanager(_running)(server_for(engine, certificates)))
            make_things(server)
            return server

        yield give


@pytest.fixture(scope="module")
def stage_of(
    database_of: Callable[[str, str], LocalServer], proxy_certificates: Certificates
) -> Iterator[Callable[[Cell], Stage]]:
    """Each way's function, which serves one situation after another; some have one of their own."""
    with ExitStack() as stack:

        @functools.cache
        def begin(engine: str, way: str, runtime: str, extra: tuple[tuple[str, str], ...]) -> Stage:
            server = database_of(engine, way)
            return stack.enter_context(stage_for(server, way, runtime, proxy_certificates, extra))

        yield lambda cell: begin(cell.engine, cell.way, cell.runtime, cell.situation.variables or ())


class Cell(NamedTuple):
    situation: Situation
    engine: str
    way: str
    runtime: str

    def __str__(self) -> str:
        return f"{self.situation.name}, {ENGINES[self.engine]}, {self.way}, {self.runtime}"


CELLS = [
    Cell(situation, engine, way, runtime)
    for situation in SITUATIONS
    for engine in ENGINES
    for way in WAYS
    for runtime in situation.runtimes
]


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_an_invocation_finds_logs_and_leaves_what_the_matrix_says(
    request: pytest.FixtureRequest, stage_of: Callable[[Cell], Stage], cell: Cell
) -> None:
    if cell.runtime == "emulator":
        request.getfixturevalue("emulator")
    stage = stage_of(cell)
    situation, engine, way, _ = cell
    expected = EXPECTED[situation.name]
    row = situation.observe(stage)
    seen = SEEN_INSTEAD.get((situation.name, engine, way), expected.seen)
    assert row == replace(expected, seen=seen), stage.function.output()
    line = matrix_page.line_of(situation, engine, way, row)
    assert line in matrix_page.PAGE.read_text(encoding="utf-8").splitlines(), "python -m tests.support.matrix_page"
