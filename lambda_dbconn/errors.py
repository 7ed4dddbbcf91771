"""What can go wrong, as one tree.

Query errors are the driver's own and pass through untouched; these are ours::

    LambdaDbConnError
    ├── ConfigurationError (also ValueError)
    ├── CredentialsError
    ├── ConnectError                      before any user SQL: always safe to repeat
    │   ├── ConnectTimeoutError (also TimeoutError)
    │   ├── AuthenticationError           a fresh credential was refused
    │   ├── TlsError                      certificate or host name
    │   ├── ProxyBusyError                borrow timeout, connection or rate limit
    │   └── ProxyRefusedError             the proxy does not support what was asked
    ├── DeadlineExceededError (also TimeoutError)
    ├── ConnectionInUseError              would wait for itself, or waited in vain for a free connection
    ├── TransactionLeftOpenError
    ├── TransactionAbortedError           COMMIT was not sent: failed, rolled back or ended inside
    ├── CommitUnknownError
    └── SessionPinnedError                only with ON_PIN=raise

All can be pickled.
"""

from __future__ import annotations

from lambda_dbconn._values import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable

E = TypeVar("E", bound=BaseException)

_LONGEST_EXCERPT = 500  # characters

BORROW_TIMEOUT_REMEDY = (
    "Raise MaxConnectionsPercent or look for pinned sessions and long transactions that hold connections."
)


class LambdaDbConnError(Exception):
    """The root of the tree.

    Attributes:
        message: What happened: where, how long, how many attempts.
        remedy: What to check next, one sentence.
        retryable: Whether a later try may succeed with nothing changed on this side.
    """

    remedy: str = ""
    retryable: bool = False

    def __init__(self, message: str, *, remedy: str | None = None, retryable: bool | None = None) -> None:
        super().__init__(message)
        self.message = message
        if remedy is not None:
            self.remedy = remedy
        if retryable is not None:
            self.retryable = retryable

    def __str__(self) -> str:
        return f"{self.message.rstrip('.')}. {self.remedy}" if self.remedy else self.message


class ConfigurationError(LambdaDbConnError, ValueError):
    """The settings, an argument or an installation is not right; found before anything was sent.

    Attributes:
        faults: Every fault found, one sentence each.
    """

    remedy = "Correct what is named here."

    def __init__(
        self,
        message: str,
        *,
        faults: Iterable[str] = (),
        remedy: str | None = None,
        retryable: bool | None = None,
    ) -> None:
        super().__init__(message, remedy=remedy, retryable=retryable)
        self.faults = tuple(faults) or (message,)


class CredentialsError(LambdaDbConnError):
    """IAM or Secrets Manager gave no credential; `retryable` when it was throttling or an outage."""

    remedy = "Check which identity the function runs with, and what it may do."


class ConnectError(LambdaDbConnError):
    """No connection could be opened. No SQL of the caller's has been sent: always safe to repeat."""

    remedy = "Check that the server is up and listening, and that HOST and PORT are right."


class ConnectTimeoutError(ConnectError, TimeoutError):
    """The server did not answer, or did not finish the login, in time."""

    remedy = (
        "Check the security groups and subnets between the function and the database, and that the host is "
        "up; raise CONNECT_TIMEOUT_S if it is merely slow."
    )
    retryable = True


class AuthenticationError(ConnectError):
    """The server refused a fresh credential."""

    remedy = "Check the user name and the credential that the server or proxy knows for it."


class TlsError(ConnectError):
    """TLS could not be had, or the server's certificate or name could not be verified."""

    remedy = (
        "Check that SSLROOTCERT holds the authority that signed the server's certificate, and that the host "
        "is written as the certificate names it."
    )


class ProxyBusyError(ConnectError):
    """The proxy or server is at a limit: borrow timeout, connections, or their rate."""

    remedy = "Check the proxy's DatabaseConnections metrics and the limits that the message names."
    retryable = True


class ProxyRefusedError(ConnectError):
    """The proxy does not support what was asked of it."""

    remedy = "Remove the setting that the message names, or set it on the role, database or proxy instead."


class DeadlineExceededError(LambdaDbConnError, TimeoutError):
    """The invocation's time, less the reserve, is over: something was not sent, or a wait was cut."""

    remedy = "Give the function a longer timeout, or do less per invocation."
    retryable = True


class ConnectionInUseError(LambdaDbConnError):
    """This thread or task has a connection already, or none became free in time, which is `retryable`."""

    remedy = (
        "Pass the connection that is already lent on to the code that needs it, or raise MAX_CONNECTIONS for "
        "handlers that use threads."
    )


class TransactionLeftOpenError(LambdaDbConnError):
    """A `connection()` block ended inside a transaction: it was rolled back."""

    remedy = "Commit before the block ends, or use transaction(), which commits by itself."


class TransactionAbortedError(LambdaDbConnError):
    """A `transaction()` block ended normally, but its transaction had failed, was rolled back, or had ended inside."""

    remedy = "Let the statement's error leave the block, or wrap the statement in a savepoint."


class CommitUnknownError(LambdaDbConnError):
    """The connection was lost while COMMIT was on its way: it may or may not have taken effect."""

    remedy = "Look whether the transaction's effect is there before doing it again, or make it idempotent."


class SessionPinnedError(LambdaDbConnError):
    """A statement would pin the session on RDS Proxy, and ON_PIN is `raise`: it was not sent."""

    remedy = "Set on the role, the database or the proxy what the statement would set in the session."


class LambdaDbConnWarning(UserWarning):
    """Something works but is probably not what was meant; a misspelt variable, for example."""


def excerpt(text: str) -> str:
    """Return what a server said as one printable line of about 500 characters at most.

    Whoever answers may not be the server: before TLS anyone can send megabytes, or codes that a terminal obeys.
    """
    line = " ".join(text[: 4 * _LONGEST_EXCERPT].split())
    if not line.isprintable():
        line = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in line)
    if len(line) > _LONGEST_EXCERPT or len(text) > 4 * _LONGEST_EXCERPT:
        return f"{line[:_LONGEST_EXCERPT]}… ({len(text)} characters)"
    return line


def without_frames(error: E, *, outer: BaseException | None) -> E:
    """Return the error without the tracebacks of its chain: frames of drivers and SDKs hold secrets in local variables.

    Texts of the chain that are too long or not printable become excerpts: they may be a server's.

    Args:
        error: Somebody else's, to be raised from.
        outer: What was being handled before (`sys.exception()`): it and what is behind it belong to the caller.
    """
    pending: list[BaseException | None] = [error]
    seen = {id(outer)}
    while pending:
        current = pending.pop()
        if current is not None and id(current) not in seen:
            seen.add(id(current))
            current.__traceback__ = None
            if any(isinstance(said, str) and said != excerpt(said) for said in current.args):
                current.args = tuple(excerpt(said) if isinstance(said, str) else said for said in current.args)
            pending += [current.__cause__, current.__context__]
    return error
