"""How long a function that has no more time keeps its locks: with the library, and without."""

from __future__ import annotations

import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import lambda_dbconn
from tests.support import functions
from tests.support.clients import wait_until
from tests.support.emulator import LocalEmulator
from tests.support.invocations import environment

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lambda_dbconn.testing.runtime_api import Invocation
    from lambda_dbconn.testing.servers import LocalServer

FUNCTIONS = Path(functions.__file__).parent
TIMEOUT_S = 3
STATEMENTS = {"postgresql": "SELECT pg_sleep(6)", "mysql": "SELECT SLEEP(6)"}
TABLE = "matrix_things"
_LIMIT_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LockTime:
    """What came of an invocation whose statement takes longer than its time.

    Attributes:
        invocation: What the invoker got, and when.
        locked_s: How long nobody else could lock the row, as seen from outside.
        locked_after_s: How much of that was after the invoker had its answer.
    """

    invocation: Invocation
    locked_s: float
    locked_after_s: float


def make_things(server: LocalServer) -> None:
    """Make a table whose rows a function may lock."""
    server.execute(f"CREATE TABLE IF NOT EXISTS {TABLE} (name varchar(64) PRIMARY KEY, touched int)")
    if server.engine == "postgresql":
        server.execute(f"GRANT SELECT, UPDATE ON {TABLE} TO {server.user}")


def new_thing(server: LocalServer) -> str:
    """Make a row, and return its name."""
    name = uuid.uuid4().hex
    server.execute(f"INSERT INTO {TABLE} VALUES (%s, 0)", name)
    return name


def is_locked(server: LocalServer, name: str) -> bool:
    """Say whether another session has the row."""
    return not server.query(f"SELECT name FROM {TABLE} WHERE name = %s FOR UPDATE SKIP LOCKED", name)


def touches(server: LocalServer, name: str) -> int:
    """Say how often the row was changed for good."""
    return int(server.query(f"SELECT touched FROM {TABLE} WHERE name = %s", name)[0][0])


def variables(server: LocalServer) -> Mapping[str, str]:
    """Return what a function that uses the server directly needs, and the way to this package."""
    return {**environment(server), "PYTHONPATH": str(Path(lambda_dbconn.__file__).parent.parent)}


def measure(server: LocalServer, handler: str) -> LockTime:
    """Invoke a function for three seconds, in which it locks a row and begins to wait for six.

    Raises:
        RuntimeUnavailableError: There is no emulator.
    """
    name = new_thing(server)
    event = {"name": name, "statement": STATEMENTS[server.engine], "mark": name}
    with (
        LocalEmulator(
            directory=FUNCTIONS, handler=handler, environment=variables(server), timeout_s=TIMEOUT_S
        ) as emulator,
        ThreadPoolExecutor(max_workers=1) as invoker,
    ):
        wait_until(lambda: emulator.invoke({"mark": "first"}).error is None, timeout_s=_LIMIT_S)  # a cold start counts
        invoking = invoker.submit(emulator.invoke, event)
        answered_at: list[float] = []
        invoking.add_done_callback(lambda _: answered_at.append(time.monotonic()))
        wait_until(lambda: is_locked(server, name), timeout_s=_LIMIT_S)
        locked_at = time.monotonic()
        wait_until(lambda: not is_locked(server, name), timeout_s=_LIMIT_S)
        free_at = time.monotonic()
        invocation = invoking.result(_LIMIT_S)
        wait_until(lambda: answered_at)
    return LockTime(
        invocation=invocation,
        locked_s=free_at - locked_at,
        locked_after_s=max(0.0, free_at - answered_at[0]),
    )
