"""`Driver`: all that the rest of the package knows of a database driver."""

from __future__ import annotations

from enum import Enum

from lambda_dbconn._typing import TYPE_CHECKING, Protocol, TypeVar
from lambda_dbconn.errors import ConfigurationError
from lambda_dbconn.settings import environment

if TYPE_CHECKING:
    from collections.abc import Callable

    from lambda_dbconn.credentials import Credentials
    from lambda_dbconn.deadline import Cutoff
    from lambda_dbconn.settings import Settings
    from lambda_dbconn.tls import Trust

C = TypeVar("C")

_LONGEST_APPLICATION_NAME = 63  # bytes: PostgreSQL cuts off what is beyond
_ISOLATION_LEVELS = ("read uncommitted", "read committed", "repeatable read", "serializable")


class SessionState(Enum):
    """What a connection's session is in the middle of."""

    CLEAN = "nothing: autocommit, no transaction"
    IN_TRANSACTION = "a transaction, failed or not"
    UNUSABLE = "closed, lost, or in a state that no statement can leave"


class Failure(Enum):
    """What a driver's error says about the connection and about trying again."""

    LOST = "the connection is gone"
    READ_ONLY = "the server does not take writes: it was demoted"
    CONFLICT = "the transaction lost against another one and may be run again"
    BUSY = "RDS Proxy had no database connection for it: it was not run, and the session goes on"
    OTHER = "anything else"


class Driver(Protocol[C]):
    """One database driver. Everything but `open` is called by the thread that holds the connection.

    No method retries. Time limits are seconds; those of `open` cover TCP, TLS and login together.
    """

    def open(self, settings: Settings, credentials: Credentials, trust: Trust, *, timeout_s: float) -> C:
        """Connect and log in, in autocommit mode; sends no SQL but what the driver itself must.

        Raises:
            ConnectError: With the cause and its remedy; `retryable` says whether a later try may succeed.
        """

    def watch(self, connection: C, see: Callable[[str | bytes], None]) -> None:
        """Let `see` be called with the text of each statement before it is sent; what it raises must keep it back.

        Called once, before anyone else has the connection; never without a reason, for it costs each statement.
        """

    def fileno(self, connection: C) -> int:
        """Return the socket's file descriptor, for `poll()`. Never blocks."""

    def is_open(self, connection: C) -> bool:
        """Say whether the driver still believes in the connection. Never blocks."""

    def drain(self, connection: C) -> bool:
        """Read what the server said unasked; return False when that shows the session is over. Never blocks."""

    def ping(self, connection: C, *, timeout_s: float) -> None:
        """Make one round trip to the database; raises whatever comes when it fails or takes too long."""

    def state(self, connection: C, *, timeout_s: float) -> SessionState:
        """Say what the session is in; free when clean, a round trip or two where the driver cannot know."""

    def begin(self, connection: C, *, read_only: bool, isolation: str | None) -> None:
        """Begin a transaction: one round trip (MySQL: up to three with `isolation`)."""

    def commit(self, connection: C) -> None:
        """Commit: one round trip.

        Raises:
            TransactionAbortedError: The transaction had failed; it was rolled back.
        """

    def rollback(self, connection: C, *, timeout_s: float) -> None:
        """Roll back: one round trip; raises whatever comes when it fails or takes too long."""

    def reset(self, connection: C, *, timeout_s: float) -> None:
        """Put a clean session back to what it was at login; raises whatever comes when it fails or takes too long.

        PostgreSQL: one round trip; MySQL: two or three.
        """

    def cut_off(self, connection: C, cutoff: Cutoff | None) -> None:
        """Let every wait of the caller's end at `cutoff`, by what `cutoff.cut` then returns; None takes that back."""

    def interrupt(
        self,
        connection: C,
        settings: Settings,
        credentials: Callable[[], Credentials],
        trust: Trust,
        *,
        timeout_s: float,
    ) -> None:
        """Ask the server to stop what the connection is waiting for, over a second one; raises what prevents it."""

    def close(self, connection: C) -> None:
        """Close, politely if the socket takes the words. Never blocks, never raises."""

    def failure(self, connection: C, error: BaseException) -> Failure:
        """Say what an error means that the driver raised on this connection. Never blocks."""


def checked_isolation(isolation: str | None) -> str | None:
    """Return the level in SQL's upper case; this is the only text of a caller's that ever becomes SQL.

    Raises:
        ConfigurationError: It is not one of SQL's four levels.
    """
    if isolation is None:
        return None
    if isolation not in _ISOLATION_LEVELS:
        raise ConfigurationError(
            f"the argument isolation is {isolation!r}; accepted: {', '.join(_ISOLATION_LEVELS)}, or None"
        )
    return isolation.upper()


def application_name() -> str:
    """Return what the server is to know us by: the function's name and version, else the library's name.

    Printable ASCII, as PostgreSQL would make it; what is too long loses the end of the function's name.
    """
    name = environment("AWS_LAMBDA_FUNCTION_NAME")
    if name is None:
        return "lambda_dbconn"
    version = ":" + (environment("AWS_LAMBDA_FUNCTION_VERSION") or "$LATEST")
    text = name[: max(0, _LONGEST_APPLICATION_NAME - len(version))] + version
    printable = (char if char.isascii() and char.isprintable() else "?" for char in text)
    return "".join(printable)[:_LONGEST_APPLICATION_NAME]
