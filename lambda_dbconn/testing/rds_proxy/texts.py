"""What RDS Proxy says when it refuses, with its codes.

Source: RDS user guide, "Troubleshooting for RDS Proxy". The real PostgreSQL proxy writes "doesn't" with a
typographic apostrophe, which the guide does not, and its text about `options` is not in the guide: both are from
users' reports (psycopg/psycopg2#1577, apache/superset#24684).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

RefusalKind = Literal[
    "tls_required",
    "iam_needs_tls",
    "protocol_version",
    "replication",
    "command_line_options",
    "startup_option",
    "user_missing",
    "no_credentials",
    "wrong_password",
    "wrong_token",
    "iam_rate",
    "connection_rate",
    "connection_limit",
    "borrow_timeout",
    "database_error",
    "unknown_error",
    "terminated",
    "unsupported_command",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """An error as a client gets it.

    Attributes:
        number: MySQL's error number; 0 for PostgreSQL.
        state: SQLSTATE.
        text: The message.
    """

    number: int = 0
    state: str
    text: str


class RefusedError(Exception):
    """A client is to be told no."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.text)
        self.refusal = refusal


_NOT_SUPPORTED = "Feature not supported: RDS Proxy"
_DOES_NOT = "currently doesn\N{RIGHT SINGLE QUOTATION MARK}t support"

_POSTGRESQL: dict[RefusalKind, tuple[str, str]] = {
    "tls_required": ("28000", "This RDS Proxy requires TLS connections."),
    "iam_needs_tls": ("28000", "IAM authentication is allowed only with SSL connections."),
    "protocol_version": ("0A000", f"{_NOT_SUPPORTED} supports only version 3.0 of the PostgreSQL messaging protocol."),
    "replication": ("0A000", f"{_NOT_SUPPORTED} {_DOES_NOT} streaming replication mode."),
    "command_line_options": ("0A000", f"{_NOT_SUPPORTED} {_DOES_NOT} command-line options."),
    "startup_option": ("0A000", f"{_NOT_SUPPORTED} {_DOES_NOT} the option {{option}}."),
    "user_missing": (
        "28000",
        "A user name is missing from the connection startup packet. Provide a user name for this connection.",
    ),
    "no_credentials": (
        "28000",
        "This RDS proxy has no credentials for the role {user}. Check the credentials for this role and try again.",
    ),
    "wrong_password": ("28P01", "The password that was provided for the role {user} is wrong."),
    "wrong_token": (
        "28P01",
        "The IAM authentication failed for the role {user}. Check the IAM token for this role and try again.",
    ),
    "iam_rate": ("53300", "The IAM authentication failed because of too many competing requests."),
    "connection_rate": ("53300", "Rate of connection to proxy exceeded {limit}."),
    "connection_limit": ("53300", "The maximum number of client connections to the proxy exceeded {limit}."),
    "borrow_timeout": ("08000", "Timed-out waiting to acquire database connection."),
    "database_error": ("XX000", "Request returned an error: {error}."),
    "unknown_error": ("XX000", "Unknown error."),
    "terminated": ("57P01", "terminating connection due to administrator command"),  # PostgreSQL's own
}

_DENIED = (1045, "28000", "Access denied for user '{user}'@'%' (using password: YES)")

_MYSQL: dict[RefusalKind, tuple[int, str, str]] = {
    "tls_required": (3159, "HY000", "This RDS Proxy requires TLS connections."),
    "iam_needs_tls": (3159, "HY000", "This RDS Proxy requires TLS connections."),
    "no_credentials": _DENIED,
    "wrong_password": _DENIED,
    "wrong_token": _DENIED,
    "iam_rate": (1040, "HY000", "IAM authentication rate limit exceeded"),
    "connection_rate": (1040, "HY000", "Connections rate limit exceeded ({limit})"),
    "connection_limit": (1040, "HY000", "Number simultaneous connections exceeded ({limit})"),
    "borrow_timeout": (9501, "HY000", "Timed-out waiting to acquire database connection"),
    "database_error": (1105, "HY000", "{error}"),
    "unknown_error": (1105, "HY000", "Unknown error"),
    "unsupported_command": (1047, "08S01", "Unknown command"),  # MySQL's own
}


def refused(engine: str, kind: RefusalKind, **details: object) -> RefusedError:
    """Make the error for one reason; `details` fill the blanks in its text.

    Raises:
        ValueError: The engine's proxy has no such error.
    """
    row = _POSTGRESQL.get(kind) if engine == "postgresql" else _MYSQL.get(kind)
    if row is None:
        raise ValueError(f"RDS Proxy has no error {kind!r} for {engine}")
    *number, state, text = row
    return RefusedError(Refusal(number=int(number[0]) if number else 0, state=state, text=text.format(**details)))
