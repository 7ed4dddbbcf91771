"""What servers, RDS Proxy and drivers say of connections and queries, and what it means: two tables.

psycopg's connect errors carry no SQLSTATE and RDS Proxy says much in words only, so texts are matched: in lower case,
anywhere in the driver's text, and without apostrophes (the proxy's own are typographic). Where a driver hands on a
socket's error, its class and number decide: `socket_errors`. The error of a query stays the driver's own.

Sources: RDS user guide, "Troubleshooting for RDS Proxy"; PostgreSQL's "Error Codes"; MySQL's "Server Error Message
Reference" and "Client Error Message Reference"; messages as servers sent them in this project's tests.
"""

from __future__ import annotations

from lambda_dbconn._values import TYPE_CHECKING
from lambda_dbconn.drivers import ErrorKind
from lambda_dbconn.errors import (
    BORROW_TIMEOUT_REMEDY,
    AuthenticationError,
    ConfigurationError,
    ConnectError,
    ConnectTimeoutError,
    ProxyBusyError,
    ProxyRefusedError,
    TlsError,
    excerpt,
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
_RENEW = "Renew the certificate at the server (RDS: choose a new certificate authority), or set this machine's clock."
_TOO_WEAK = "Give the server a certificate with a key of 2,048 bits or more and a signature that is not SHA-1 or MD5."
_TOO_OLD = "Let the server speak TLS 1.2 or later (ssl_min_protocol_version, tls_version in the parameter group)."
_ONLY_TLS = "Set SSLMODE to verify-full: the server takes this login over TLS only; or allow it in pg_hba.conf."
_PLUGIN = "Give the user an authentication plugin that the server has and PyMySQL knows."
_UNLOCK = "Unlock the user, or log in with another one."
_RSA = "Leave SSLMODE at verify-full, or install PyMySQL[rsa], which can send this password without TLS."
_LOOK_UP = "Look the error up in the server's manual, and look at the server's log."
_OTHER_ENGINE = "Check ENGINE and PORT: what answers there is not PostgreSQL."
_ACCESS_DENIED = 1045
_LONGEST_TEXT = 10_000  # characters that are looked at
_OF_THE_CLIENT = range(2000, 3000)  # MySQL's numbers that are not a server's
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
    ("postgresql", (), "no password supplied", AuthenticationError, False, "Set PASSWORD, SECRET_ID or AUTH=iam."),
    ("postgresql", (), 'requirement "none" failed', AuthenticationError, False, "Set PASSWORD, SECRET_ID or AUTH=iam."),
    ("postgresql", (), "authentication method requirement", AuthenticationError, False, _AUTH_MODE),
    ("postgresql", (), "pam authentication failed", AuthenticationError, False, _IAM),  # RDS's, for a refused token
    ("postgresql", (), "authentication failed", AuthenticationError, False, ""),  # by whatever method
    ("postgresql", (), "no encryption", TlsError, False, _ONLY_TLS),
    ("postgresql", (), ", ssl off", TlsError, False, _ONLY_TLS),  # until PostgreSQL 13
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
    ("postgresql", (), "root certificate file", ConfigurationError, False, "Check SSLROOTCERT."),
    ("postgresql", (), "channel binding is required", ConfigurationError, False, "Unset PGCHANNELBINDING."),
    ("postgresql", (), "definition of service", ConfigurationError, False, "Unset PGSERVICE, or check its file."),
    ("postgresql", (), "invalid response to ssl negotiation", ConnectError, False, _OTHER_ENGINE),
    ("", (), "certificate has expired", TlsError, False, _RENEW),
    ("", (), "certificate is not yet valid", TlsError, False, _RENEW),
    ("", (), "key too small", TlsError, False, _TOO_WEAK),
    ("", (), "too weak", TlsError, False, _TOO_WEAK),
    ("", (), "protocol version", TlsError, False, _TOO_OLD),
    ("", (), "unsupported protocol", TlsError, False, _TOO_OLD),
    ("", (), "version too low", TlsError, False, _TOO_OLD),
    ("", (), "no protocols available", TlsError, False, _TOO_OLD),
    ("", (), "handshake failure", TlsError, False, _TOO_OLD),
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
    ("mysql", (1045, 1698, 1873), "", AuthenticationError, False, ""),
    ("mysql", (2059,), "asks for the password in clear", TlsError, False, _NEED_TLS),
    ("mysql", (), "package is required for sha256_password", ConfigurationError, False, _RSA),
    ("mysql", (1251, 1275, 1524, 2059), "", AuthenticationError, False, _PLUGIN),
    ("mysql", (1130,), "", AuthenticationError, False, "Grant the user access from this address."),
    ("mysql", (3118, 3955, 4150, 4151), "", AuthenticationError, False, _UNLOCK),  # the last two are MariaDB's
    ("mysql", (1820, 1862), "", AuthenticationError, False, "Change the user's expired password."),
    ("mysql", (1129,), "", ConnectError, False, "Run FLUSH HOSTS on the server."),  # whoever logs in
    ("mysql", (1203, 1226), "", ProxyBusyError, True, _CAPACITY),
    ("mysql", (1053, 1927, 3032), "", ConnectError, True, _STARTING),
    ("mysql", (), "hostname mismatch", TlsError, False, _WRONG_NAME),
    ("mysql", (), "ip address mismatch", TlsError, False, _WRONG_NAME),
    ("mysql", (), "certificate_verify_failed", TlsError, False, _WRONG_CA),
    ("mysql", (), "eof occurred in violation of protocol", ConnectError, True, _STARTING),
    ("mysql", (2026,), "", TlsError, False, _NO_TLS_SERVER),
    ("mysql", (), "[ssl", TlsError, False, ""),
    ("", (), "timed out", ConnectTimeoutError, True, ""),
    ("mysql", (1158, 1159, 1160, 1161, 2006, 2013, 2055), "", ConnectError, True, _STARTING),
    # The network
    ("", (), "connection refused", ConnectError, True, _UNREACHABLE),
    ("", (), "connection reset", ConnectError, True, _UNREACHABLE),
    ("", (), "broken pipe", ConnectError, True, _UNREACHABLE),
    ("", (), "closed the connection unexpectedly", ConnectError, True, _STARTING),
    ("", (), "timeout", ConnectTimeoutError, True, ""),
    ("", (), "no route to host", ConnectError, True, _UNREACHABLE),
    ("", (), "network is unreachable", ConnectError, False, _UNREACHABLE),
    # The same in musl's words, which the wheels of psycopg for Alpine have.
    ("postgresql", (), "host is unreachable", ConnectError, True, _UNREACHABLE),
    ("postgresql", (), "network unreachable", ConnectError, False, _UNREACHABLE),
)


def connect_error(
    engine: str, where: str, text: str, *, number: int = 0, is_token: bool = False, meaning: str = ""
) -> LambdaDbConnError:
    """Return the error that a failed connect means; the caller raises it from the driver's own.

    Args:
        engine: `postgresql` or `mysql`.
        where: Host, port, user and database, for the message.
        text: What the driver said.
        number: MySQL's error number, if there is one.
        is_token: An IAM token was given: MySQL's words for a refused one are those for a wrong password.
        meaning: What happened, in the table's words, where it is known otherwise than by the driver's words.
    """
    plain = " ".join(f"{text[:_LONGEST_TEXT]} {meaning}".split()).lower()
    text = excerpt(text)
    said = f"error {number}: {text}" if number else text
    for row_engine, numbers, needle, error, is_retryable, remedy in _ROWS:
        if row_engine in ("", engine) and (not numbers or number in numbers) and needle in plain:
            is_refused_token = is_token and number == _ACCESS_DENIED
            return error(
                f"cannot connect to {where}: {said}",
                remedy=_IAM if is_refused_token else remedy or error.remedy,
                retryable=is_retryable,
            )
    if (number and number not in _OF_THE_CLIENT) or (engine == "postgresql" and "fatal: " in plain):
        return ConnectError(
            f"cannot connect to {where}: the server answered with {said}", remedy=_LOOK_UP, retryable=False
        )
    return ConnectError(f"cannot connect to {where}: {said}", remedy=_UNREACHABLE, retryable=False)


# (engine, codes, text in lower case or "", what it means). Codes are SQLSTATEs, or the two characters of a class of
# them, or MySQL's numbers. The first row that fits counts; what is not here is `OTHER`.
ROWS: tuple[tuple[str, tuple[str, ...], str, ErrorKind], ...] = (
    ("postgresql", ("08000",), "timed-out waiting to acquire", ErrorKind.BUSY),
    ("postgresql", ("08", "57P01", "57P02", "57P03", "57P04", "57P05", "25P03", "25P04", "58"), "", ErrorKind.LOST),
    ("postgresql", ("40001", "40P01", "55P03"), "", ErrorKind.CONFLICT),
    ("postgresql", ("25006",), "", ErrorKind.READ_ONLY),
    ("mysql", ("9501",), "", ErrorKind.BUSY),
    ("mysql", ("0", "2001", "2002", "2003", "2004", "2006", "2012", "2013", "2026", "2055"), "", ErrorKind.LOST),
    ("mysql", ("1053", "1077", "1079", "1152", "1158", "1159", "1160", "1161", "1184"), "", ErrorKind.LOST),
    ("mysql", ("1927", "3032", "4031"), "", ErrorKind.LOST),
    ("mysql", ("1820",), "", ErrorKind.REFUSED),
    ("mysql", ("1205", "1213"), "", ErrorKind.CONFLICT),
    ("mysql", ("1792", "1836"), "", ErrorKind.READ_ONLY),
    ("mysql", ("1290",), "read-only", ErrorKind.READ_ONLY),  # the number is that of any "running with the --… option"
)


def classify(engine: str, code: object, text: str) -> ErrorKind:
    """Look an error up by its code, a SQLSTATE or a number, and its text."""
    for row_engine, codes, needle, failure in ROWS:
        if row_engine == engine and (str(code) in codes or str(code)[:2] in codes) and needle in text.lower():
            return failure
    return ErrorKind.OTHER
