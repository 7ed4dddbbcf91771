"""psycopg's connection, all of whose waits can be given one common end, and whose statements can be watched.

A connection that is neither limited nor watched is psycopg's own, and costs nothing: it takes on another class while it
is, and only then.
"""

from __future__ import annotations

from functools import lru_cache

import psycopg

from lambda_dbconn._typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from psycopg.abc import PQGen

    from lambda_dbconn.deadline import Cutoff

    Connection = psycopg.Connection[Any]
else:
    Connection = psycopg.Connection

_HAS_TIMEOUT = "timeout" in psycopg.Connection.wait.__code__.co_varnames  # from psycopg 3.3 on


def _wait(
    connection: Any, wait: Callable[..., Any], gen: PQGen[Any], arguments: tuple[Any, ...], options: dict[str, Any]
) -> Any:
    """Drive one of psycopg's generators by the connection's own `wait`, to the end of the invocation's time at most."""
    cutoff: Cutoff = connection.cutoff
    try:
        if _HAS_TIMEOUT:
            own_s = options.get("timeout")  # of `notifies`
            left_s = max(0.0, cutoff.left_s())
            options["timeout"] = left_s if own_s is None else min(own_s, left_s)
            return wait(gen, *arguments, **options)
        return wait(_until(cutoff, gen), *arguments, **options)
    except psycopg.OperationalError as error:
        if error.sqlstate is not None or cutoff.left_s() > 0:
            raise
        try:
            raise cutoff.cut(connection) from error
        finally:
            connection.pgconn.finish()


def _until(cutoff: Cutoff, gen: PQGen[Any]) -> PQGen[Any]:
    """Hand on what a generator waits for until the time is over; psycopg wakes it ten times a second."""
    try:
        wanted = next(gen)
        while True:
            ready = yield wanted
            if cutoff.left_s() <= 0:
                raise psycopg.OperationalError("the time is over")
            wanted = gen.send(ready)
    except StopIteration as end:
        return end.value


class WatchedConnection(Connection):
    """psycopg's connection, whose cursors show each text to `see` before it is sent.

    A cursor is made as ever, by `cursor_factory` or `server_cursor_factory`, and becomes an instance of a subclass of
    its own class. Not seen is what does not come from `cursor()` or `execute()`: a cursor class that is called
    directly, and psycopg's own COMMIT, SAVEPOINT, two-phase commands and `DEALLOCATE`.
    """

    see: Callable[[str | bytes], None]

    def cursor(self, *args: Any, **kwargs: Any) -> Any:
        """Return a new cursor, watched."""
        cursor: Any = super().cursor(*args, **kwargs)
        cursor.__class__ = _watched(cursor.__class__)
        return cursor


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


def watch(connection: Any, see: Callable[[str | bytes], None]) -> None:
    """Let `see` be called with each text before it is sent; a connection that is not limited yet."""
    if not (hasattr(psycopg.Cursor, "_execute_send") and hasattr(psycopg.Cursor, "_send_prepare")):
        _warn_of_blindness()
    connection.__class__ = WatchedConnection
    connection.see = see


class _Watching:
    """Stands before a cursor's own class.

    psycopg 3.2.13 to 3.3.9 send by these two methods whatever the way (execute, executemany, stream, copy, DECLARE) and
    whatever the cursor; only there the text is what will be sent, with a client-side cursor's values merged in.
    """

    __slots__ = ()
    connection: WatchedConnection

    def __init_subclass__(cls, **options: Any) -> None:
        """Keep from the user's classes that they have a subclass: they may register it, or ask for arguments."""

    def _execute_send(self, query: Any, **options: Any) -> None:
        self.connection.see(query.query)
        super()._execute_send(query, **options)  # type: ignore[misc]

    def _send_prepare(self, name: bytes, query: Any) -> None:
        self.connection.see(query.query)
        super()._send_prepare(name, query)  # type: ignore[misc]


@lru_cache(maxsize=32)
def _watched(kind: Any) -> Any:
    """Return the subclass of a cursor class that is watched; the same one each time."""
    if issubclass(kind, _Watching):
        return kind
    names = {"__slots__": (), "__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
    return type(kind)(kind.__name__, (_Watching, kind), names)


def _warn_of_blindness() -> None:
    import warnings

    from lambda_dbconn.errors import LambdaDbConnWarning

    warnings.warn(
        f"statements that pin are not seen: psycopg {psycopg.__version__} sends them in a way that this version of "
        "lambda_dbconn does not know",
        LambdaDbConnWarning,
        stacklevel=3,
    )
