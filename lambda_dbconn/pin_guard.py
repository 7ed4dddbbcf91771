"""`PinGuard`: is shown each statement before it is sent, tells of those that pin, or refuses them.

Imported only where ON_PIN says `warn` or `raise`, which on an RDS Proxy endpoint is the default.
"""

from __future__ import annotations

import sys

from lambda_dbconn.errors import SessionPinnedError
from lambda_dbconn.events import SessionPinned
from lambda_dbconn.light import TYPE_CHECKING
from lambda_dbconn.pinning import pin

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from lambda_dbconn.events import Event
    from lambda_dbconn.lease import Slot
    from lambda_dbconn.pinning import Pin

# What is remembered takes a megabyte or so at most: it is forgotten as a whole when it is full.
_MOST_TEXTS = 256
_LONGEST_TEXT = 4096  # characters; longer ones are judged each time
_MOST_TOLD = 256
_NOT_THE_CALLER = ("lambda_dbconn", "psycopg", "psycopg_pool", "pymysql", "contextlib")


class PinGuard:
    """Judges the statements of one endpoint's connections. Threads may share it.

    Args:
        engine: `postgresql` or `mysql`.
        where: `host:port`, for events and errors.
        refuses: Raise, instead of letting the statement go.
        tell: Called with a `SessionPinned`.
    """

    def __init__(self, engine: str, where: str, *, refuses: bool, tell: Callable[[Event], None]) -> None:
        self._engine = engine
        self._where = where
        self._refuses = refuses
        self._tell = tell
        self._known: dict[str | bytes, Pin | None] = {}
        self._told: set[str] = set()

    def watcher(self, slot: Slot[Any]) -> Callable[[str | bytes], None]:
        """Return what is to be called with each text before it is sent on the slot's connection.

        A text that was seen before costs a look into a dictionary. When one pins, the slot's connection is marked,
        to be dropped when it comes back.

        Raises (the function returned):
            SessionPinnedError: The text must not be sent.
        """
        known = self._known

        def see(text: str | bytes) -> None:
            try:
                found = known[text]
            except KeyError:
                found = self._judge(text)
            if found is not None:
                self._found(slot, found)

        return see

    def _judge(self, text: str | bytes) -> Pin | None:
        found = pin(self._engine, text)
        if len(text) <= _LONGEST_TEXT:
            if len(self._known) >= _MOST_TEXTS:
                self._known.clear()
            self._known[text] = found
        return found

    def _found(self, slot: Slot[Any], found: Pin) -> None:
        rule = found.rule
        if self._refuses:
            raise SessionPinnedError(
                f"{found.shown} ({_place()}) would pin the session on {self._where}: {rule.reason}", remedy=rule.fix
            )
        is_first = found.fingerprint not in self._told
        if is_first or slot.doom is None:
            if len(self._told) >= _MOST_TOLD:
                self._told.clear()
            self._told.add(found.fingerprint)
            self._tell(
                SessionPinned(
                    endpoint=self._where,
                    statement=found.shown,
                    rule=rule.id,
                    reason=rule.reason,
                    remedy=rule.fix,
                    fingerprint=found.fingerprint,
                    place=_place(),
                    is_first=is_first,
                )
            )
        slot.doom = slot.doom or "pinned"


def _place() -> str:
    """Return file and line of the code that sends the statement: the first that is neither ours nor the driver's."""
    frame = sys._getframe(1)  # noqa: SLF001 - documented, though with an underscore
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _NOT_THE_CALLER:
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
