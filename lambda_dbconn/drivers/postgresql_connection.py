"""psycopg's connection, all of whose waits can be given one common end, and whose statements can be watched.

A connection that is neither limited nor watched is psycopg's own, and costs nothing: it takes on another class when it
is for the first time.
"""

from __future__ import annotations

import time

import psycopg

from lambda_dbconn._typing import TYPE_CHECKING
from lambda_dbconn.drivers import watching

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from psycopg.abc import PQGen

    from lambda_dbconn.deadline import Cutoff

    Connection = psycopg.Connection[Any]
else:
    Connection = psycopg.Connection

WAKE_UP_S = 0.1  # how often psycopg looks up from a wait, by default
_HAS_TIMEOUT = "timeout" in psycopg.Connection.wait.__code__.co_varnames  # from psycopg 3.3 on


def within(gen: PQGen[Any], interval: float, limit_s: float | None) -> tuple[Any, ...]:
    """Return a generator and more arguments for psycopg's waits, such that they end with the limit."""
    if limit_s is None:
        return gen, interval
    if _HAS_TIMEOUT:
        return gen, interval, limit_s if limit_s > 0 else 0.0
    return _until(time.monotonic() + limit_s, gen), interval


def shorter(left_s: float, timeout_s: float | None) -> float:
    """Return the shorter one of what is left and a call's own limit, if it has one."""
    return left_s if timeout_s is None or left_s < timeout_s else timeout_s


def ended_in_vain(error: psycopg.OperationalError, cutoff: Cutoff) -> bool:
    """Say whether an error is the end of the invocation's time, and not the server's word."""
    return error.sqlstate is None and cutoff.left_s() <= 0


def _until(ends_at: float, gen: PQGen[Any]) -> PQGen[Any]:
    """Hand on what a generator waits for until the time is over; psycopg wakes it ten times a second."""
    try:
        wanted = next(gen)
        while True:
            ready = yield wanted
            if time.monotonic() >= ends_at:
                raise psycopg.OperationalError("the time is over")
            wanted = gen.send(ready)
    except StopIteration as end:
        return end.value


def _wait(connection: Any, gen: PQGen[Any], interval: float = WAKE_UP_S, timeout: float | None = None) -> Any:
    """Drive one of psycopg's generators, to the end of the invocation's time at most."""
    cutoff: Cutoff | None = connection.cutoff
    if cutoff is None:
        return Connection.wait(connection, *within(gen, interval, timeout))
    try:
        return Connection.wait(connection, *within(gen, interval, shorter(cutoff.left_s(), timeout)))
    except psycopg.OperationalError as error:
        if not ended_in_vain(error, cutoff):
            raise
        try:
            raise cutoff.cut(connection) from error
        finally:
            connection.pgconn.finish()


class WatchedConnection(Connection):
    """psycopg's connection, whose statements are seen."""

    see: Callable[[str | bytes], None]
    cursor_factory = watching.Factory()
    server_cursor_factory = watching.Factory()


# No mixin: Python lets an object take on another class only if that has the same first base.


class LimitedConnection(Connection):
    """psycopg's connection, since it was first lent with a limit."""

    cutoff: Cutoff | None = None
    wait = _wait


class LimitedWatchedConnection(WatchedConnection):
    """The same, watched."""

    cutoff: Cutoff | None = None
    wait = _wait


LIMITED: dict[type[Any], type[Any]] = {
    psycopg.Connection: LimitedConnection,
    WatchedConnection: LimitedWatchedConnection,
}
