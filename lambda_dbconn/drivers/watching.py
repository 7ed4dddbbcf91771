"""psycopg's cursors, made to show what they send; the same for `Connection` and `AsyncConnection`.

Rests on psycopg 3.2.13 to 3.3.9, whose cursors all send by two methods, whatever the way: execute, executemany,
stream, copy, DECLARE.
"""

from __future__ import annotations

from functools import lru_cache

import psycopg

from lambda_dbconn.light import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class Seeing(Protocol):
    """A connection whose cursors are watched."""

    see: Callable[[str | bytes], None]


class Factory:
    """Takes the place of a connection's `cursor_factory`: whatever class is set, its subclass that is watched is got.

    Of any other callable, which psycopg takes as well, what it makes becomes an instance of a watched class. Cursors
    show each text to their connection's `see` before it is sent. To read the attribute is as quick as ever: without a
    `__get__` here Python looks into the connection's own dictionary. Not seen is what does not come from a
    connection's `cursor()`, `execute()` or factories: a cursor class that is called directly, and psycopg's own COMMIT,
    SAVEPOINT, two-phase commands, `DEALLOCATE` and FETCH.
    """

    def __set_name__(self, _owner: type, name: str) -> None:
        """Keep the class where psycopg does."""
        self._name = name

    def __set__(self, connection: Any, kind: Any) -> None:
        """Make a class, or what a callable makes, watched."""
        if isinstance(kind, type):
            kind = _watched(kind)
        elif not isinstance(kind, _WatchedCallable):
            kind = _WatchedCallable(kind)
        connection.__dict__[self._name] = kind


def see_nothing(_text: str | bytes) -> None:
    """Be a connection's `see` that nobody watches."""


def watch(connection: Any, see: Callable[[str | bytes], None]) -> None:
    """Watch the cursors of a connection whose class has factories such as these."""
    if not (hasattr(psycopg.Cursor, "_execute_send") and hasattr(psycopg.Cursor, "_send_prepare")):
        _warn_of_blindness()
    connection.see = see
    connection.cursor_factory = connection.cursor_factory
    connection.server_cursor_factory = connection.server_cursor_factory


class _WatchedCallable:
    """A callable that takes a cursor class's place, and whose cursors are watched."""

    def __init__(self, make: Callable[..., Any]) -> None:
        self._make = make

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Make a cursor."""
        cursor: Any = self._make(*arguments, **options)
        cursor.__class__ = _watched(cursor.__class__)
        return cursor


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
    if issubclass(kind, _WatchedCursor):
        return kind
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
