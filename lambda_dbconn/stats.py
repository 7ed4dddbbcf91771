"""`Recorder`: counts what happens and tells the observer; `Stats`: its counters at one moment."""

from __future__ import annotations

from _thread import allocate_lock

from lambda_dbconn.events import (
    ConnectFailed,
    ConnectionClosed,
    ConnectionOpened,
    ConnectionReplaced,
    PingFailed,
    TransactionRolledBack,
)
from lambda_dbconn.light import TYPE_CHECKING, Value

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lambda_dbconn.events import Event, Observer


class Stats(Value):
    """Counters since the manager was made, in this process.

    Attributes:
        opened: Physical connections opened.
        reused: Loans that took the cached connection.
        replaced: How many connections were replaced, by reason (see `ConnectionReplaced`).
        closed: Physical connections closed.
        connect_failures: Tries to connect that failed.
        ping_failures: Idle connections that did not answer a ping.
        rolled_back: Transactions found open at return.
        open_now: Connections open at this moment.
        lent_now: Connections lent at this moment.
    """

    opened: int
    reused: int
    replaced: Mapping[str, int]
    closed: int
    connect_failures: int
    ping_failures: int
    rolled_back: int
    open_now: int
    lent_now: int


class Recorder:
    """Passes events on to one observer and counts them. Threads may share it; a fork's child counts from zero."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._ignored: tuple[type[Event], ...] = getattr(observer, "ignores", ())
        self._counting = allocate_lock()
        self._counts: dict[type[Event], int] = {}
        self._replaced: dict[str, int] = {}

    def wants(self, event: type[Event]) -> bool:
        """Say whether the observer is to be told events of this class."""
        return event not in self._ignored

    def tell(self, event: Event) -> None:
        """Count an event and tell the observer, whose failure never fails an invocation."""
        with self._counting:
            self._counts[type(event)] = self._counts.get(type(event), 0) + 1
            if isinstance(event, ConnectionReplaced):
                self._replaced[event.reason] = self._replaced.get(event.reason, 0) + 1
        if type(event) in self._ignored:
            return
        try:
            self._observer.on_event(event)
        except Exception:
            import logging

            logging.getLogger("lambda_dbconn").exception("the observer failed on %s", type(event).__name__)

    def stats(self, *, loans: int, open_now: int, lent_now: int) -> Stats:
        """Return the counters, with what only the lender knows."""
        with self._counting:
            counts = dict(self._counts)
            replaced = dict(self._replaced)
        opened = counts.get(ConnectionOpened, 0)
        return Stats(
            opened=opened,
            reused=max(0, loans - opened),
            replaced=replaced,
            closed=counts.get(ConnectionClosed, 0),
            connect_failures=counts.get(ConnectFailed, 0),
            ping_failures=counts.get(PingFailed, 0),
            rolled_back=counts.get(TransactionRolledBack, 0),
            open_now=open_now,
            lent_now=lent_now,
        )

    def renew(self) -> None:
        """Begin anew, with a new lock: in a fork's child a thread that does not exist there may hold the old one."""
        self._counting = allocate_lock()
        self._counts, self._replaced = {}, {}
