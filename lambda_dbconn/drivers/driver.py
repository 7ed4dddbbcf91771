"""`Driver`: all that the rest of the package knows of a database driver. Only type checkers import it."""

from __future__ import annotations

from lambda_dbconn._values import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from lambda_dbconn.credentials import Credentials
    from lambda_dbconn.deadline import CancelScope
    from lambda_dbconn.drivers import ErrorKind, SessionState
    from lambda_dbconn.settings import Settings
    from lambda_dbconn.tls import Trust

C = TypeVar("C")


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

    def has_unseen(self, connection: C) -> bool:
        """Say whether anything was sent, since `watch`, whose text was not shown. Never blocks."""

    def remember_tracked(self, connection: C, names: Iterable[str]) -> None:
        """Remember the values of variables that the next statement changes: at most one round trip. For RDS Proxy."""

    def put_back_tracked(self, connection: C, *, timeout_s: float) -> None:
        """Put them back, without pinning: one round trip or two, none if nothing was changed.

        Raises whatever comes when it fails or takes too long.
        """

    def read_rest(self, connection: C, *, within_s: Callable[[], float]) -> None:
        """Read what is left of the last statement's results, if it is little; free when there is nothing.

        Raises the server's error among them: it belongs to the caller.
        """

    def has_sent(self, connection: C) -> bool:
        """Say whether anything of the caller's was sent since login or the last `send_reset`. Never blocks."""

    def has_left_transaction(self, connection: C) -> bool:
        """Say whether the transaction of `begin` has ended, so that something may be committed. Never blocks."""

    def state(self, connection: C, *, within_s: Callable[[], float]) -> SessionState:
        """Say what the session is in; free when clean, a round trip or two where the driver cannot know.

        Args:
            connection: It has come back.
            within_s: Returns the seconds that each round trip may take; called only if there is one.
        """

    def begin(self, connection: C, *, read_only: bool, isolation: str | None) -> None:
        """Begin a transaction: one round trip (MySQL: up to three with `isolation`)."""

    def commit(self, connection: C) -> None:
        """Commit: one round trip.

        Raises:
            TransactionAbortedError: The transaction had failed and was rolled back, or had ended inside its block.
        """

    def rollback(self, connection: C, *, timeout_s: float) -> None:
        """Roll back: one round trip; raises whatever comes when it fails or takes too long."""

    def can_defer_reset(self, connection: C) -> bool:
        """Say whether the answer to a reset may be read at the next acquire. Never blocks."""

    def send_reset(self, connection: C, *, timeout_s: float) -> None:
        """Send what puts a session at rest back to its state after login, and do not wait for the answer.

        From before the first byte on, `state` says UNUSABLE until `finish_reset` has succeeded.
        """

    def finish_reset(self, connection: C, *, timeout_s: float) -> None:
        """Read the answer; raises whatever comes when the server refuses, or the time is over."""

    def restore(self, connection: C) -> None:
        """Put the attributes of the connection object back that a caller may set. Sends nothing, raises nothing."""

    def bind_scope(self, connection: C, scope: CancelScope) -> None:
        """Let every wait of the caller's, from now on, end when `scope` does, by what `scope.expire` then returns.

        Said once of a connection; the scope's end is moved with each loan.
        """

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

    def classify(self, connection: C, error: BaseException) -> ErrorKind:
        """Say what an error means that the driver raised on this connection. Never blocks."""
