"""What proxy and servers say when they refuse a connection, and what it means: one table.

psycopg's connect errors carry no SQLSTATE and RDS Proxy says much of what it means in words only, so texts are
matched: in lower case, anywhere in the driver's text, and without apostrophes (the proxy's own are typographic).

Sources: RDS user guide, "Troubleshooting for RDS Proxy"; PostgreSQL's and MySQL's own messages, as their servers
sent them to the drivers in this project's tests.
"""

from __future__ import annotations

from lambda_dbconn._typing import TYPE_CHECKING
from lambda_dbconn.errors import (
    AuthenticationError,
    ConfigurationError,
    ConnectError,
    ConnectTimeoutError,
    ProxyBusyError,
    ProxyRefusedError,
    TlsError,
)

if TYPE_CHECKING:
    from lambda_dbconn.errors import LambdaDbConnError

_NEED_TLS = "Leave SSLMODE at verify-full."
_IAM = (
    "Check that the function's role may rds-db:connect as this user on this proxy or database, that the token is "
    "signed for this host, port, user and region, and that it is not older than 15 minutes."
)
_REGISTER = "Register a secret for this user with the proxy, and check that its password is the database's."
_AUTH_MODE = "Set AUTH to what the proxy is configured for."
_CAPACITY = "Raise the proxy's or server's limit, or lower the function's concurrency."
_POOL = "Raise MaxConnectionsPercent or look for pinned sessions and long transactions that hold connections."
_STARTING = "Wait: the server is starting, stopping or failing over."
_DATABASE = "Check NAME: the database must exist and the user must be allowed to connect to it."
_NO_TLS_SERVER = "Switch TLS on at the server; SSLMODE=disable is for development only."
_WRONG_CA = "Check that SSLROOTCERT holds the authority that signed the server's certificate."
_WRONG_NAME = (
    "Connect by a name that the certificate contains; for an alias or a tunnel set SIGNING_HOST to the proxy's or "
    "RDS host's own name."
)
_OTHER_ENGINE = "Check ENGINE and PORT: what answers there is not PostgreSQL."
_ACCESS_DENIED = 1045
_UNREACHABLE = "Check that the server is up and listening, and that HOST and PORT are right."


# (engine or "" for both, MySQL error number or 0, text in lower case or "", error, retryable, remedy).
# The first row that fits counts: a number and a text must both fit where both are given.
_ROWS: tuple[tuple[str, int, str, type[LambdaDbConnError], bool, str], ...] = (
    # RDS Proxy, PostgreSQL
    ("postgresql", 0, "allowed only with ssl connections", TlsError, False, _NEED_TLS),
    ("", 0, "requires tls connections", TlsError, False, _NEED_TLS),
    ("postgresql", 0, "has no credentials for the role", AuthenticationError, False, _REGISTER),
    ("postgresql", 0, "rds supports only iam, md5, or scram", AuthenticationError, False, _AUTH_MODE),
    ("postgresql", 0, "a user name is missing", ConfigurationError, False, "Set USER."),
    ("postgresql", 0, "enable iam authentication for the client", AuthenticationError, False, _AUTH_MODE),
    ("postgresql", 0, "configure iam authentication as the", AuthenticationError, False, _AUTH_MODE),
    ("postgresql", 0, "iam authentication failed because of too many", ProxyBusyError, True, _CAPACITY),
    ("postgresql", 0, "iam authentication failed for", AuthenticationError, False, _IAM),
    ("postgresql", 0, "the password that was provided for the role", AuthenticationError, False, _REGISTER),
    ("postgresql", 0, "maximum number of client connections", ProxyBusyError, True, _CAPACITY),
    ("postgresql", 0, "rate of connection to proxy exceeded", ProxyBusyError, True, _CAPACITY),
    ("postgresql", 0, "timed-out waiting to acquire", ProxyBusyError, True, _POOL),
    ("postgresql", 0, "feature not supported: rds proxy", ProxyRefusedError, False, ProxyRefusedError.remedy),
    ("postgresql", 0, "request returned an error", ConnectError, False, _DATABASE),
    # RDS Proxy, MySQL
    ("mysql", 1040, "", ProxyBusyError, True, _CAPACITY),
    ("mysql", 9501, "", ProxyBusyError, True, _POOL),
    ("mysql", 3159, "", TlsError, False, _NEED_TLS),
    ("mysql", 1231, "", ProxyRefusedError, False, ProxyRefusedError.remedy),
    ("mysql", 1105, "", ConnectError, True, _STARTING),
    # PostgreSQL
    (
        "postgresql",
        0,
        "password authentication failed",
        AuthenticationError,
        False,
        AuthenticationError.remedy,
    ),
    (
        "postgresql",
        0,
        "no password supplied",
        AuthenticationError,
        False,
        "Set PASSWORD, SECRET_ID or AUTH=iam.",
    ),
    ("postgresql", 0, "authentication method requirement", AuthenticationError, False, _AUTH_MODE),
    (
        "postgresql",
        0,
        "no pg_hba.conf entry",
        AuthenticationError,
        False,
        "Allow this user and address in pg_hba.conf.",
    ),
    ("postgresql", 0, "too many connections for", ProxyBusyError, True, _CAPACITY),
    ("postgresql", 0, 'role "', AuthenticationError, False, AuthenticationError.remedy),
    ("postgresql", 0, 'database "', ConnectError, False, _DATABASE),
    ("postgresql", 0, "the database system is", ConnectError, True, _STARTING),
    ("postgresql", 0, "terminating connection", ConnectError, True, _STARTING),
    ("postgresql", 0, "too many clients already", ProxyBusyError, True, _CAPACITY),
    ("postgresql", 0, "remaining connection slots are reserved", ProxyBusyError, True, _CAPACITY),
    ("postgresql", 0, "does not support ssl", TlsError, False, _NO_TLS_SERVER),
    ("postgresql", 0, "does not match host name", TlsError, False, _WRONG_NAME),
    ("postgresql", 0, "could not read root certificate", ConfigurationError, False, "Check SSLROOTCERT."),
    ("postgresql", 0, "invalid response to ssl negotiation", ConnectError, False, _OTHER_ENGINE),
    ("postgresql", 0, "certificate verify failed", TlsError, False, _WRONG_CA),
    # A server that goes away in the middle of a handshake or login says nothing about TLS.
    ("postgresql", 0, "ssl connection has been closed unexpectedly", ConnectError, True, _STARTING),
    ("postgresql", 0, "unexpected eof while reading", ConnectError, True, _STARTING),
    ("postgresql", 0, "ssl syscall error: eof detected", ConnectError, True, _STARTING),
    ("postgresql", 0, "ssl error", TlsError, False, TlsError.remedy),
    # MySQL and MariaDB
    ("mysql", 1044, "", ConnectError, False, _DATABASE),
    ("mysql", 1049, "", ConnectError, False, _DATABASE),
    ("mysql", 1045, "", AuthenticationError, False, AuthenticationError.remedy),
    ("mysql", 1698, "", AuthenticationError, False, AuthenticationError.remedy),
    (
        "mysql",
        1251,
        "",
        AuthenticationError,
        False,
        "Give the user an authentication plugin that PyMySQL knows.",
    ),
    ("mysql", 2059, "asks for the password in clear", TlsError, False, _NEED_TLS),
    ("mysql", 1130, "", AuthenticationError, False, "Grant the user access from this address."),
    ("mysql", 1129, "", AuthenticationError, False, "Run FLUSH HOSTS on the server."),
    ("mysql", 1820, "", AuthenticationError, False, "Change the user's expired password."),
    ("mysql", 1862, "", AuthenticationError, False, "Change the user's expired password."),
    ("mysql", 1203, "", ProxyBusyError, True, _CAPACITY),
    ("mysql", 1226, "", ProxyBusyError, True, _CAPACITY),
    ("mysql", 1053, "", ConnectError, True, _STARTING),
    ("mysql", 0, "hostname mismatch", TlsError, False, _WRONG_NAME),
    ("mysql", 0, "ip address mismatch", TlsError, False, _WRONG_NAME),
    ("mysql", 0, "certificate_verify_failed", TlsError, False, _WRONG_CA),
    ("mysql", 0, "eof occurred in violation of protocol", ConnectError, True, _STARTING),
    ("mysql", 2026, "", TlsError, False, _NO_TLS_SERVER),
    ("mysql", 0, "[ssl", TlsError, False, TlsError.remedy),
    ("mysql", 0, "timed out", ConnectTimeoutError, True, ConnectTimeoutError.remedy),
    ("mysql", 2013, "", ConnectError, True, _STARTING),
    # The network
    ("", 0, "connection refused", ConnectError, True, _UNREACHABLE),
    ("", 0, "connection reset", ConnectError, True, _UNREACHABLE),
    ("", 0, "broken pipe", ConnectError, True, _UNREACHABLE),
    ("", 0, "closed the connection unexpectedly", ConnectError, True, _STARTING),
    ("", 0, "timeout", ConnectTimeoutError, True, ConnectTimeoutError.remedy),
    ("", 0, "no route to host", ConnectError, True, _UNREACHABLE),
    ("", 0, "network is unreachable", ConnectError, False, _UNREACHABLE),
)


def connect_error(engine: str, where: str, text: str, *, number: int = 0, is_token: bool = False) -> LambdaDbConnError:
    """Return the error that a failed connect means; the caller raises it from the driver's own.

    Args:
        engine: `postgresql` or `mysql`.
        where: Host, port, user and database, for the message.
        text: What the driver said.
        number: MySQL's error number, if there is one.
        is_token: An IAM token was given: MySQL's words for a refused one are those for a wrong password.
    """
    text = " ".join(text.split())
    plain = text.lower()
    for row_engine, row_number, needle, error, is_retryable, remedy in _ROWS:
        if row_engine in ("", engine) and row_number in (0, number) and needle in plain:
            is_refused_token = is_token and row_number == _ACCESS_DENIED
            return error(
                f"cannot connect to {where}: {text}",
                remedy=_IAM if is_refused_token else remedy,
                retryable=is_retryable,
            )
    return ConnectError(f"cannot connect to {where}: {text}", remedy=_UNREACHABLE, retryable=False)
