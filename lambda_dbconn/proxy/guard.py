"""`PinGuard`: looks at each statement before it is sent, reports those that pin, or refuses them.

Imported only behind RDS Proxy, or where `DB_ON_PIN` is `warn` or `raise`.
"""

from __future__ import annotations

import sys

from lambda_dbconn._values import TYPE_CHECKING
from lambda_dbconn.errors import SessionPinnedError
from lambda_dbconn.events import SessionPinned
from lambda_dbconn.proxy import pin, tracked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Protocol

    from lambda_dbconn.events import Event
    from lambda_dbconn.proxy import Pin

    class Marked(Protocol):
        """What a statement that pins leaves its mark on: a slot of the cache."""

        has_pinned: bool
        evict_reason: str | None

        def will_change(self, names: Iterable[str]) -> None:
            """Remember variables that the next statement changes and RDS Proxy tracks."""


# What is remembered takes a megabyte or so at most: it is forgotten as a whole when it is full.
_MOST_TEXTS = 256
_LONGEST_TEXT = 4096  # characters; longer ones are judged each time
_MOST_REPORTED = 256
_NOT_THE_CALLER = ("lambda_dbconn", "psycopg", "psycopg_pool", "pymysql", "contextlib")


class PinGuard:
    """Judges the statements of one endpoint's connections. Threads may share it.

    Args:
        engine: `postgresql` or `mysql`.
        where: `host:port`, for events and errors.
        action: `raise` instead of sending the statement, `warn` with an event, or `ignore` it.
        closes: Mark the connection, to be closed when it comes back.
        emit: Called with a `SessionPinned`.
    """

    def __init__(self, engine: str, where: str, *, action: str, closes: bool, emit: Callable[[Event], None]) -> None:
        self._engine = engine
        self._where = where
        self._action = action
        self._closes = closes
        self._emit = emit
        self._known: dict[str | bytes, Pin | frozenset[str] | None] = {}
        self._reported: set[str] = set()

    def watcher(self, slot: Marked) -> Callable[[str | bytes], None]:
        """Return a function to call with each text before it is sent on the slot's connection.

        A text that was seen before costs a look into a dictionary.

        Raises (the function returned):
            SessionPinnedError: The text must not be sent.
        """
        known = self._known

        def see(text: str | bytes) -> None:
            try:
                found = known[text]
            except KeyError:
                found = self._judge(text)
            if found is None:
                return
            if isinstance(found, frozenset):
                slot.will_change(found)
            else:
                self._found(slot, found)

        return see

    def _judge(self, text: str | bytes) -> Pin | frozenset[str] | None:
        """Return what the text pins, or which variables it changes that the proxy tracks, or None."""
        found: Pin | frozenset[str] | None = pin(self._engine, text)
        if found is None and self._closes:
            found = tracked(self._engine, text) or None
        if len(text) <= _LONGEST_TEXT:
            if len(self._known) >= _MOST_TEXTS:
                self._known.clear()
            self._known[text] = found
        return found

    def _found(self, slot: Marked, found: Pin) -> None:
        if self._action == "raise":
            rule = found.rule
            raise SessionPinnedError(
                f"{found.shown} ({_place()}) would pin the session on {self._where}: {rule.reason}", remedy=rule.fix
            )
        if self._action == "warn":
            self._report(found, is_first_of_loan=not slot.has_pinned)
        slot.has_pinned = True
        if self._closes:
            slot.evict_reason = slot.evict_reason or "pinned"

    def _report(self, found: Pin, *, is_first_of_loan: bool) -> None:
        is_first = found.fingerprint not in self._reported
        if not (is_first or is_first_of_loan):
            return
        if len(self._reported) >= _MOST_REPORTED:
            self._reported.clear()
        self._reported.add(found.fingerprint)
        self._emit(
            SessionPinned(
                endpoint=self._where,
                statement=found.shown,
                rule=found.rule.id,
                reason=found.rule.reason,
                remedy=found.rule.fix,
                fingerprint=found.fingerprint,
                place=_place(),
                is_first=is_first,
            )
        )


def _place() -> str:
    """Return file and line of the code that sends the statement: the first that is neither ours nor the driver's."""
    frame = sys._getframe(1)  # noqa: SLF001 - documented, though with an underscore
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _NOT_THE_CALLER:
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
