"""psycopg's cursors, made to show what they send; the same for `Connection` and `AsyncConnection`.

Rests on private names that psycopg 3.2.13 and 3.3.9 share: all its cursors send by `_execute_send` and `_send_prepare`,
whatever the way (execute, executemany, stream, COPY, DECLARE), and each way is a generator function of the cursor's.
"""

from __future__ import annotations

from functools import lru_cache

import psycopg

from lambda_dbconn._values import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


_CURSORS: tuple[Any, ...] = (psycopg.Cursor, psycopg.AsyncCursor)  # all others are subclasses of one of these


class Seeing(Protocol):
    """A connection whose statements are watched."""

    has_unseen: bool
    see: Callable[[str | bytes], None]


def watch(connection: Any, see: Callable[[str | bytes], None]) -> None:
    """Let `see` be called with the text of each statement of the connection's cursors before it is sent.

    Not shown are psycopg's own COMMIT, SAVEPOINT, FETCH and `DEALLOCATE`, and its two-phase commands.
    """
    if not (hasattr(psycopg.Cursor, "_execute_send") and hasattr(psycopg.Cursor, "_send_prepare")):
        _warn_of_blindness()
    connection.see = see
    connection.look = _look


def _look(connection: Seeing, gen: Any) -> None:
    """Let the cursor whose generator is about to be driven show what it sends, however the cursor was made.

    Any other generator of psycopg's sends only commands of its own, or goes on with what a cursor has begun. One that
    is somebody else's may send anything: it counts as unseen.
    """
    frame = getattr(gen, "gi_frame", None)
    if frame is None:  # a function in C, which is psycopg's
        return
    owner: Any = frame.f_locals.get("self")
    if isinstance(owner, _CURSORS):
        if not isinstance(owner, _WatchedCursor):
            owner.__class__ = _watched(owner.__class__)
    elif frame.f_globals["__name__"].partition(".")[0] != "psycopg":
        connection.has_unseen = True


class _WatchedCursor:
    """Stands before a cursor's own class; only here the text is what will be sent, with merged values in it."""

    __slots__ = ()
    _conn: Seeing

    def __init_subclass__(cls, **options: Any) -> None:
        """Keep from the user's classes that they have a subclass: they may register it, or ask for arguments."""

    def _execute_send(self, query: Any, *, force_extended: bool = False, binary: bool | None = None) -> None:
        self._conn.see(query.query)
        super()._execute_send(query, force_extended=force_extended, binary=binary)  # type: ignore[misc] # the cursor's own

    def _send_prepare(self, name: bytes, query: Any) -> None:
        self._conn.see(query.query)
        super()._send_prepare(name, query)  # type: ignore[misc] # as above


@lru_cache(maxsize=32)
def _watched(kind: Any) -> Any:
    """Return the subclass of a cursor class that is watched; the same one each time."""
    names = {"__slots__": (), "__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
    return type(kind)(kind.__name__, (_WatchedCursor, kind), names)


def _warn_of_blindness() -> None:
    import warnings

    from lambda_dbconn.errors import LambdaDbConnWarning

    warnings.warn(
        "statements that pin, or leave something in the session, are not seen: psycopg "
        f"{psycopg.__version__} sends them in a way that this version of lambda_dbconn does not know",
        LambdaDbConnWarning,
        stacklevel=3,
    )
