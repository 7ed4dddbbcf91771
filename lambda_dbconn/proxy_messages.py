"""What proxy and servers say when they refuse a connection, and what it means: one table.

psycopg's connect errors carry no SQLSTATE and RDS Proxy says much of what it means in words only, so texts are
matched: in lower case, anywhere in the driver's text, and without apostrophes (the proxy's own are typographic).

Sources: RDS user guide, "Troubleshooting for RDS Proxy"; PostgreSQL's and MySQL's own messages, as their servers
sent them to the drivers in this project's tests.
"""

from __future__ import annotations

from lambda_dbconn.errors import (
    BORROW_TIMEOUT_REMEDY,
    AuthenticationError,
    ConfigurationError,
    ConnectError,
    ConnectTimeoutError,
    ProxyBusyError,
    ProxyRefusedError,
    TlsError,
)
from lambda_dbconn.light import TYPE_CHECKING

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
_STARTING = "Wait: the server is starting, stopping or failing over."
_PROXY_FAULT = "Look in the proxy's own log, with enhanced logging switched on, for what went wrong inside it."
_NO_WRITER = "Use the primary cluster's proxy: a secondary cluster of a global database takes no writes."
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


# (engine or "" for both, MySQL error numbers, text in lower case or "", error, retryable, remedy or "" for that of the
# error's class). The first row that fits counts: a number and a text must both fit where both are given.
_ROWS: tuple[tuple[str, tuple[int, ...], str, type[LambdaDbConnError], bool, str], ...] = (
    # RDS Proxy, PostgreSQL
    ("postgresql", (), "allowed only with ssl connections", TlsError, False, _NEED_TLS),
    ("", (), "requires tls connections", TlsError, False, _NEED_TLS),
    ("postgresql", (), "has no credentials for the role", AuthenticationError, False, _REGISTER),
    ("postgresql", (), "rds supports only iam, md5, or scram", AuthenticationError, False, _AUTH_MODE),
    ("postgresql", (), "a user name is missing", ConfigurationError, False, "Set USER."),
    ("postgresql", (), "enable iam authentication for the client", AuthenticationError, False, _AUTH_MODE),
    ("postgresql", (), "configure iam authentication as the", AuthenticationError, False, _AUTH_MODE),
    ("postgresql", (), "iam authentication failed because of too many", ProxyBusyError, True, _CAPACITY),
    ("postgresql", (), "iam authentication failed for", AuthenticationError, False, _IAM),
    ("postgresql", (), "the password that was provided for the role", AuthenticationError, False, _REGISTER),
    ("postgresql", (), "maximum number of client connections", ProxyBusyError, True, _CAPACITY),
    ("postgresql", (), "rate of connection to proxy exceeded", ProxyBusyError, True, _CAPACITY),
    ("postgresql", (), "timed-out waiting to acquire", ProxyBusyError, True, BORROW_TIMEOUT_REMEDY),
    ("postgresql", (), "feature not supported: rds proxy", ProxyRefusedError, False, ""),
    ("", (), "any associated read/write instances", ProxyRefusedError, False, _NO_WRITER),
    ("postgresql", (), "request returned an error: password", AuthenticationError, False, _REGISTER),
    ("postgresql", (), "unknown error", ConnectError, True, _PROXY_FAULT),
    # RDS Proxy, MySQL
    ("mysql", (1040,), "", ProxyBusyError, True, _CAPACITY),
    ("mysql", (9501,), "", ProxyBusyError, True, BORROW_TIMEOUT_REMEDY),
    ("mysql", (3159,), "", TlsError, False, _NEED_TLS),
    ("mysql", (1231,), "", ProxyRefusedError, False, ""),
    ("mysql", (1105,), "", ConnectError, True, _PROXY_FAULT),
    ("mysql", (2026,), "internal server error", TlsError, False, _PROXY_FAULT),
    # PostgreSQL
    ("postgresql", (), "password authentication failed", AuthenticationError, False, ""),
    ("postgresql", (), "no password supplied", AuthenticationError, False, "Set PASSWORD, SECRET_ID or AUTH=iam."),
    ("postgresql", (), 'requirement "none" failed', AuthenticationError, False, "Set PASSWORD, SECRET_ID or AUTH=iam."),
    ("postgresql", (), "authentication method requirement", AuthenticationError, False, _AUTH_MODE),
    ("postgresql", (), "pam authentication failed", AuthenticationError, False, _IAM),  # RDS's, for a refused token
    ("postgresql", (), "pg_hba.conf rejects", AuthenticationError, False, "Allow user and address in pg_hba.conf."),
    ("postgresql", (), "no pg_hba.conf entry", AuthenticationError, False, "Allow user and address in pg_hba.conf."),
    ("postgresql", (), "too many connections for", ProxyBusyError, True, _CAPACITY),
    ("postgresql", (), 'role "', AuthenticationError, False, ""),
    ("postgresql", (), 'database "', ConnectError, False, _DATABASE),
    ("postgresql", (), "the database system is", ConnectError, True, _STARTING),
    ("postgresql", (), "terminating connection", ConnectError, True, _STARTING),
    ("postgresql", (), "too many clients already", ProxyBusyError, True, _CAPACITY),
    ("postgresql", (), "remaining connection slots are reserved", ProxyBusyError, True, _CAPACITY),
    ("postgresql", (), "does not support ssl", TlsError, False, _NO_TLS_SERVER),
    ("postgresql", (), "does not match host name", TlsError, False, _WRONG_NAME),
    ("postgresql", (), "could not read root certificate", ConfigurationError, False, "Check SSLROOTCERT."),
    ("postgresql", (), "channel binding is required", ConfigurationError, False, "Unset PGCHANNELBINDING."),
    ("postgresql", (), "definition of service", ConfigurationError, False, "Unset PGSERVICE, or check its file."),
    ("postgresql", (), "invalid response to ssl negotiation", ConnectError, False, _OTHER_ENGINE),
    ("postgresql", (), "certificate verify failed", TlsError, False, _WRONG_CA),
    # A server that goes away in the middle of a handshake or login says nothing about TLS.
    ("postgresql", (), "ssl connection has been closed unexpectedly", ConnectError, True, _STARTING),
    ("postgresql", (), "unexpected eof while reading", ConnectError, True, _STARTING),
    ("postgresql", (), "ssl syscall error: eof detected", ConnectError, True, _STARTING),
    ("postgresql", (), "ssl error", TlsError, False, ""),
    # What RDS Proxy hands on from the database, if none of the database's own words above is in it.
    ("postgresql", (), "request returned an error", ConnectError, False, _DATABASE),
    # MySQL and MariaDB
    ("mysql", (1044, 1049), "", ConnectError, False, _DATABASE),
    ("mysql", (1045, 1698), "", AuthenticationError, False, ""),
    ("mysql", (1251,), "", AuthenticationError, False, "Give the user an authentication plugin that PyMySQL knows."),
    ("mysql", (2059,), "asks for the password in clear", TlsError, False, _NEED_TLS),
    ("mysql", (1130,), "", AuthenticationError, False, "Grant the user access from this address."),
    ("mysql", (1129,), "", AuthenticationError, False, "Run FLUSH HOSTS on the server."),
    ("mysql", (1820, 1862), "", AuthenticationError, False, "Change the user's expired password."),
    ("mysql", (1203, 1226), "", ProxyBusyError, True, _CAPACITY),
    ("mysql", (1053, 1927, 3032), "", ConnectError, True, _STARTING),
    ("mysql", (), "hostname mismatch", TlsError, False, _WRONG_NAME),
    ("mysql", (), "ip address mismatch", TlsError, False, _WRONG_NAME),
    ("mysql", (), "certificate_verify_failed", TlsError, False, _WRONG_CA),
    ("mysql", (), "eof occurred in violation of protocol", ConnectError, True, _STARTING),
    ("mysql", (2026,), "", TlsError, False, _NO_TLS_SERVER),
    ("mysql", (), "[ssl", TlsError, False, ""),
    ("mysql", (), "timed out", ConnectTimeoutError, True, ""),
    ("mysql", (1158, 1159, 1160, 1161, 2006, 2013, 2055), "", ConnectError, True, _STARTING),
    # The network
    ("", (), "connection refused", ConnectError, True, _UNREACHABLE),
    ("", (), "connection reset", ConnectError, True, _UNREACHABLE),
    ("", (), "broken pipe", ConnectError, True, _UNREACHABLE),
    ("", (), "closed the connection unexpectedly", ConnectError, True, _STARTING),
    ("", (), "timeout", ConnectTimeoutError, True, ""),
    ("", (), "no route to host", ConnectError, True, _UNREACHABLE),
    ("", (), "network is unreachable", ConnectError, False, _UNREACHABLE),
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
    for row_engine, numbers, needle, error, is_retryable, remedy in _ROWS:
        if row_engine in ("", engine) and (not numbers or number in numbers) and needle in plain:
            is_refused_token = is_token and number == _ACCESS_DENIED
            return error(
                f"cannot connect to {where}: {text}",
                remedy=_IAM if is_refused_token else remedy or error.remedy,
                retryable=is_retryable,
            )
    return ConnectError(f"cannot connect to {where}: {text}", remedy=_UNREACHABLE, retryable=False)
