"""Errors of sockets mean the same whatever words the version of Python, OpenSSL or the C library has for them."""

from __future__ import annotations

import errno
import ssl

import pymysql
import pytest

from lambda_dbconn.drivers.mysql import _meaning
from lambda_dbconn.drivers.socket_errors import openssl_name, words_of
from lambda_dbconn.errors import ConnectError, ConnectTimeoutError, LambdaDbConnError, TlsError


def unverified(code: int) -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, "some words")
    error.verify_code = code
    return error


def cut_off() -> ssl.SSLError:
    error = ssl.SSLError(1, "some words")
    error.reason = "UNEXPECTED_EOF_WHILE_READING"
    return error


# An error, the class it becomes, and whether a retry may help.
ERRORS = [
    (unverified(62), TlsError, False),
    (unverified(64), TlsError, False),
    (unverified(19), TlsError, False),
    (ssl.SSLZeroReturnError(6, "TLS/SSL connection has been closed (EOF) (_ssl.c:992)"), ConnectError, True),
    (ssl.SSLEOFError(8, "some words"), ConnectError, True),
    (cut_off(), ConnectError, True),
    (ssl.SSLError(1, "legacy sigalg disallowed or unsupported (_ssl.c:992)"), TlsError, False),
    (TimeoutError("some words"), ConnectTimeoutError, True),
    (TimeoutError(errno.ETIMEDOUT, "Operation timed out"), ConnectTimeoutError, True),
    (ConnectionRefusedError(errno.ECONNREFUSED, "some words"), ConnectError, True),
    (ConnectionResetError(errno.ECONNRESET, "some words"), ConnectError, True),
    (BrokenPipeError(errno.EPIPE, "some words"), ConnectError, True),
    (OSError(errno.EHOSTUNREACH, "Host is unreachable"), ConnectError, True),
    (OSError(errno.ENETUNREACH, "Network unreachable"), ConnectError, False),
    (OSError(errno.EMFILE, "some words"), ConnectError, False),
    (ValueError("some words"), ConnectError, False),
]
IDS = [f"{type(error).__name__}-{number}" for number, (error, _, _) in enumerate(ERRORS)]


def as_pymysql_connects(error: BaseException) -> Exception:
    failure = pymysql.err.OperationalError(2003, f"Can't connect to MySQL server on 'x' ({error})")
    failure.original_exception = error  # type: ignore[attr-defined] # as PyMySQL does
    return failure


@pytest.mark.parametrize(("error", "cls", "is_retryable"), ERRORS, ids=IDS)
def test_a_failure_to_connect_is_classified_by_class_and_number(
    error: Exception, cls: type[LambdaDbConnError], *, is_retryable: bool
) -> None:
    for failure in (error, as_pymysql_connects(error)):
        found = _meaning(failure, None, "db", is_token=False)
        assert (type(found), found.retryable) == (cls, is_retryable)
        assert str(error.args[-1]) in found.message


def test_a_failure_while_reading_is_classified_by_its_context() -> None:
    failure = pymysql.err.OperationalError(2013, "Lost connection to MySQL server during query (some words)")
    failure.__context__ = TimeoutError("some words")
    assert type(_meaning(failure, None, "db", is_token=False)) is ConnectTimeoutError


def test_what_was_being_handled_before_is_no_part_of_the_failure() -> None:
    outer = TimeoutError("of another connection")
    failure = pymysql.err.OperationalError(2013, "Lost connection to MySQL server during query")
    failure.__context__ = outer
    assert type(_meaning(failure, outer, "db", is_token=False)) is ConnectError


def test_a_sockets_number_is_not_taken_for_a_servers() -> None:
    found = _meaning(OSError(1045, "some words"), None, "db", is_token=True)
    assert type(found) is ConnectError
    assert found.message.endswith(": some words")


def test_what_is_no_error_of_a_socket_means_nothing() -> None:
    assert [words_of(error) for error in (None, ValueError("timed out"), OSError(errno.EMFILE, "x"))] == [""] * 3


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        ("TLSV1_ALERT_PROTOCOL_VERSION", "[SSL: TLSV1_ALERT_PROTOCOL_VERSION] tlsv1 alert protocol version (_ssl.c:1)"),
        (None, "[SSL] tlsv1 alert protocol version (_ssl.c:992)"),
        (None, "tlsv1 alert protocol version"),
    ],
)
def test_an_error_has_openssls_name_also_where_python_does_not_know_it(reason: str | None, text: str) -> None:
    error = ssl.SSLError(1, text)
    error.reason = reason  # type: ignore[assignment] # None where it is not known
    assert openssl_name(error) == "TLSV1_ALERT_PROTOCOL_VERSION"
