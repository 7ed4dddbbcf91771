"""psycopg's connection, all of whose waits can be given one common end, and whose statements can be watched.

To be unlimited costs a call in Python with each wait. To take on another class would cost more: CPython reads the
attributes of an object that has done so in a slower way; so it does with what its class has, too.
"""

from __future__ import annotations

import time

import psycopg
from psycopg import pq, waiting

from lambda_dbconn.deadline import UNLIMITED_S
from lambda_dbconn.drivers import watching
from lambda_dbconn.light import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from psycopg.abc import PQGen

    from lambda_dbconn.deadline import Cutoff

    _Base = psycopg.Connection[Any]
else:
    _Base = psycopg.Connection

WAKE_UP_S = 0.1  # how often psycopg looks up from a wait, by default
_HAS_TIMEOUT = "timeout" in psycopg.Connection.wait.__code__.co_varnames  # from psycopg 3.3 on


def within(gen: PQGen[Any], interval: float, limit_s: float | None) -> tuple[Any, ...]:
    """Return a generator and more arguments for psycopg's waits, such that they end with the limit."""
    if limit_s is None:
        return gen, interval
    if _HAS_TIMEOUT:
        return gen, interval, limit_s if limit_s > 0 else 0.0
    return _until(time.monotonic() + limit_s, gen), interval


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


def _wait_within(connection: Connection, gen: PQGen[Any], interval: float, timeout: float | None) -> Any:
    return psycopg.Connection.wait(connection, *within(gen, interval, timeout))


def _drive_within(gen: PQGen[Any], fileno: int, interval: float, timeout: float) -> Any:
    return waiting.wait(_until(time.monotonic() + timeout, gen), fileno, interval)


# Each statement is driven by one of these: not by way of a tuple of arguments where psycopg takes the limit itself.
_wait: Any = psycopg.Connection.wait if _HAS_TIMEOUT else _wait_within
_drive: Any = waiting.wait if _HAS_TIMEOUT else _drive_within


class Connection(_Base):
    """psycopg's connection, all of whose waits can be given one common end.

    Attributes:
        cutoff: When they end; None while it belongs to nobody who would say so.
        see: What is shown each statement, if it is watched.
    """

    cutoff: Cutoff | None
    see: Callable[[str | bytes], None]

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.cutoff = None
        self.see = watching.see_nothing
        super().__init__(*arguments, **options)

    def wait(self, gen: PQGen[Any], interval: float = WAKE_UP_S, timeout: float | None = None) -> Any:
        """Drive one of psycopg's generators, to the end of the invocation's time at most.

        Without an end it is psycopg's own. With one, who is interrupted (Ctrl-C) does not wait for the server, as
        there: the server is asked to stop, and the connection is closed.
        """
        cutoff = self.cutoff
        if cutoff is None or cutoff.ends_at == UNLIMITED_S:
            return _wait(self, gen, interval, timeout)
        left_s = cutoff.ends_at - cutoff.monotonic()
        try:
            limit_s = left_s if timeout is None or left_s < timeout else timeout
            return _drive(gen, self.pgconn.socket, interval, limit_s)
        except psycopg.OperationalError as error:
            if not ended_in_vain(error, cutoff):
                raise
            try:
                raise cutoff.cut(self) from error
            finally:
                self.pgconn.finish()
        except KeyboardInterrupt:
            if self.pgconn.transaction_status == pq.TransactionStatus.ACTIVE:
                try:
                    cutoff.interrupt(self)
                finally:
                    self.pgconn.finish()
            raise


class WatchedConnection(Connection):
    """The same, whose statements are seen."""

    cursor_factory: Any = watching.Factory()
    server_cursor_factory: Any = watching.Factory()
