"""The two drivers behind one protocol, what they have in common, and what their errors mean.

The cache and the doctor import it; importing this package imports neither driver.
"""

from __future__ import annotations

from enum import Enum

from lambda_dbconn._values import TYPE_CHECKING
from lambda_dbconn.errors import ConfigurationError, ConnectError, excerpt
from lambda_dbconn.settings import environment

if TYPE_CHECKING:
    from typing import Any

    from lambda_dbconn.drivers.driver import Driver
    from lambda_dbconn.errors import LambdaDbConnError

_LONGEST_APPLICATION_NAME = 63  # bytes: PostgreSQL cuts off what is beyond
_ISOLATION_LEVELS = ("read uncommitted", "read committed", "repeatable read", "serializable")


ENDED_INSIDE = (
    "the transaction ended inside its block: a COMMIT, a ROLLBACK or a statement that commits by itself (DDL on MySQL) "
    "was sent; what came before it may be committed, and what came after it was not part of the transaction"
)


class SessionState(Enum):
    """What a connection's session is in the middle of."""

    CLEAN = "nothing: autocommit, no transaction"
    IN_TRANSACTION = "a transaction, failed or not"
    UNUSABLE = "closed, lost, or in a state that no statement can leave"


class ErrorKind(Enum):
    """What a driver's error says about the connection and about trying again."""

    LOST = "the connection is gone"
    REFUSED = "the session takes no statement of this login's: its password has expired"
    READ_ONLY = "the server does not take writes: it was demoted"
    CONFLICT = "the transaction lost against another one and may be run again"
    BUSY = "RDS Proxy had no database connection for it: it was not run, and the session goes on"
    OTHER = "anything else"


def load_driver(engine: str) -> Driver[Any]:
    """Import and return the driver for `postgresql` or `mysql`: about 150 or 40 ms, paid once, by the one used.

    Raises:
        ConfigurationError: The driver is not installed, with the extra that brings it.
    """
    try:
        if engine == "postgresql":
            from lambda_dbconn.drivers.postgresql import PostgresqlDriver

            return PostgresqlDriver()
        from lambda_dbconn.drivers.mysql import MysqlDriver

        return MysqlDriver()
    except ImportError as exc:
        raise _missing(engine, exc) from exc


def load_async_driver() -> Driver[Any]:
    """Import and return the driver for asyncio, which is PostgreSQL's.

    Raises:
        ConfigurationError: psycopg is not installed, with the extra that brings it.
    """
    try:
        from lambda_dbconn.drivers.async_postgresql import AsyncPostgresqlDriver
    except ImportError as exc:
        raise _missing("postgresql", exc) from exc
    # What may wait is a coroutine there: whoever lends with it awaits its steps.
    driver: Driver[Any] = AsyncPostgresqlDriver()  # type: ignore[assignment]
    return driver


def _missing(engine: str, exc: ImportError) -> ConfigurationError:
    package = {"postgresql": "psycopg", "mysql": "PyMySQL"}[engine]
    return ConfigurationError(
        f"the engine is {engine}, but its driver cannot be imported ({exc})",
        remedy=f"Install lambda-dbconn[{engine}], which brings {package}, into the function or its layer.",
    )


def connect_error(
    engine: str, where: str, text: str, *, number: int = 0, is_token: bool = False, met: BaseException | None = None
) -> LambdaDbConnError:
    """Say what a failure to connect means, as `proxy_messages` does, which the happy path does not import.

    `met` is the error of the socket, if the driver hands it on.
    """
    try:
        from lambda_dbconn.drivers import errors
        from lambda_dbconn.drivers.socket_errors import words_of
    except OSError:  # no file descriptor is left, which may be why it failed at all
        return ConnectError(f"no connection to {where}: {excerpt(text)}", retryable=True)
    meaning = words_of(met)
    return errors.connect_error(engine, where, text, number=number, is_token=is_token, meaning=meaning)


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
