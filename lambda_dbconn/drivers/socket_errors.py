"""What a socket's error means, in the words of the table in `proxy_messages`: by its class and its number.

The words in the error itself are Python's, OpenSSL's or the C library's, and differ by version.
"""

from __future__ import annotations

import errno
import ssl

_MISMATCHES = {62: "hostname mismatch", 64: "ip address mismatch"}  # by OpenSSL's number
_END_IN_THE_MIDDLE = "UNEXPECTED_EOF_WHILE_READING"  # OpenSSL's name
_NUMBERS = {
    errno.ECONNREFUSED: "connection refused",
    errno.ECONNRESET: "connection reset",
    errno.EPIPE: "broken pipe",
    errno.EHOSTUNREACH: "no route to host",
    errno.ENETUNREACH: "network is unreachable",
}


def openssl_name(error: ssl.SSLError) -> str:
    """Return OpenSSL's name for an error, made from its text where this Python does not know the name."""
    name: str | None = getattr(error, "reason", None)  # an SSLError that OpenSSL did not cause has no such attribute
    return name or str(error).removeprefix("[SSL] ").partition(" (_ssl.c")[0].upper().replace(" ", "_")


def is_cut_off(error: ssl.SSLError) -> bool:
    """Say whether the connection ended in the middle: Python 3.11.2 to 3.14 and OpenSSL have three forms for it."""
    return isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError)) or openssl_name(error) == _END_IN_THE_MIDDLE


def words_of(error: BaseException | None) -> str:
    """Return the table's words for an error; none for what is not a socket's."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _MISMATCHES.get(error.verify_code, "certificate_verify_failed")
    if isinstance(error, ssl.SSLError):
        return "eof occurred in violation of protocol" if is_cut_off(error) else "[ssl"
    if isinstance(error, TimeoutError):
        return "timed out"
    return _NUMBERS.get(error.errno or 0, "") if isinstance(error, OSError) else ""
