"""psycopg's connection, all of whose waits can be given one common end, and whose statements can be watched.

A connection that is neither limited nor watched is psycopg's own, and costs nothing: it takes on another class while it
is, and only then.
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

_HAS_TIMEOUT = "timeout" in psycopg.Connection.wait.__code__.co_varnames  # from psycopg 3.3 on


def within(left_s: float | None, timeout_s: float | None, gen: PQGen[Any]) -> tuple[PQGen[Any], dict[str, Any]]:
    """Return generator and options for psycopg's waits, such that they end with the shorter of the two limits."""
    limit_s = timeout_s if left_s is None or (timeout_s is not None and timeout_s < left_s) else left_s
    if limit_s is None:
        return gen, {}
    if limit_s < 0:
        limit_s = 0.0
    if _HAS_TIMEOUT:
        return gen, {"timeout": limit_s}
    return _until(time.monotonic() + limit_s, gen), {}


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


def _wait(
    connection: Any, wait: Callable[..., Any], gen: PQGen[Any], arguments: tuple[Any, ...], options: dict[str, Any]
) -> Any:
    """Drive one of psycopg's generators by the connection's own `wait`, to the end of the invocation's time at most."""
    cutoff: Cutoff = connection.cutoff
    try:
        gen, limit = within(cutoff.left_s(), options.pop("timeout", None), gen)
        return wait(gen, *arguments, **options, **limit)
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
    """psycopg's connection, while it is lent with a limit."""

    def wait(self, gen: PQGen[Any], *arguments: Any, **options: Any) -> Any:
        """Wait within the limit."""
        return _wait(self, super().wait, gen, arguments, options)


class LimitedWatchedConnection(WatchedConnection):
    """The same, watched."""

    def wait(self, gen: PQGen[Any], *arguments: Any, **options: Any) -> Any:
        """Wait within the limit."""
        return _wait(self, super().wait, gen, arguments, options)


_LIMITED: dict[type[Any], type[Any]] = {
    psycopg.Connection: LimitedConnection,
    WatchedConnection: LimitedWatchedConnection,
}
_UNLIMITED = {limited: plain for plain, limited in _LIMITED.items()}


def limit(connection: Any, cutoff: Cutoff | None) -> None:
    """Let every wait on the connection end at the cutoff, or take that back."""
    kind = type(connection)
    if cutoff is not None:
        connection.__class__ = _LIMITED.get(kind, kind)
        connection.cutoff = cutoff
    else:
        connection.__class__ = _UNLIMITED.get(kind, kind)
