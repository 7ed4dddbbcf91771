"""How libpq is told to connect: everything that matters is said, so that nothing in the environment decides it.

libpq reads some forty variables, `~/.pgpass`, `~/.postgresql` and service files for whatever it is not told.
"""

from __future__ import annotations

import os

from psycopg import pq
from psycopg.conninfo import make_conninfo

from lambda_dbconn._values import TYPE_CHECKING
from lambda_dbconn.drivers import addresses, application_name
from lambda_dbconn.errors import ConfigurationError, ConnectError
from lambda_dbconn.settings import environment

if TYPE_CHECKING:
    from typing import Any

    from lambda_dbconn.credentials import Credentials
    from lambda_dbconn.errors import LambdaDbConnError
    from lambda_dbconn.secret import Secret
    from lambda_dbconn.settings import Settings
    from lambda_dbconn.tls import Trust

# What may be answered to a server's demand: a password never in clear, a token (which is sent so) to nothing else.
_METHODS_FOR_PASSWORDS = "scram-sha-256,md5,none"
_METHODS_FOR_TOKENS = "password"
_METHODS_FOR_NOTHING = "none"
_OLDEST = 160000  # has require_auth, without which a server may ask for the password in clear, and sslcertmode
_LIBPQ_18 = 180000
_ASKED = "connection to server"  # begins whatever libpq says once it has begun to connect
_NO_FILE = "/dev/null/none"
_MADE_PARAMETERS = ("PGTZ", "PGDATESTYLE", "PGGEQO")  # go into the start-up packet, past libpq's table of options


def parameters(settings: Settings, credentials: Credentials, trust: Trust, address: str) -> dict[str, Any]:
    """Return what libpq is told of a connection to one address, all but the password.

    Raises:
        ConfigurationError: libpq is too old, or a text cannot be sent.
    """
    if pq.version() < _OLDEST:
        raise ConfigurationError(
            f"psycopg uses libpq {_shown(pq.version())}; the oldest that can refuse to send a password in clear is "
            f"{_shown(_OLDEST)}",
            remedy="Install psycopg[binary], which brings its own libpq, or a newer libpq.",
        )
    found: dict[str, Any] = {
        "host": settings.server_name,  # only for the certificate: `hostaddr` says where to connect
        "hostaddr": address,
        "port": settings.port,
        "dbname": settings.name or credentials.user,
        "user": credentials.user,
        "fallback_application_name": application_name(),  # PGAPPNAME wins
        "gssencmode": "disable",
        "passfile": _NO_FILE,
        "target_session_attrs": "any",
        "load_balance_hosts": "disable",
        "keepalives_idle": addresses.KEEPALIVE_IDLE_S,
        "keepalives_interval": addresses.KEEPALIVE_INTERVAL_S,
        "keepalives_count": addresses.KEEPALIVE_COUNT,
        "tcp_user_timeout": addresses.UNACKNOWLEDGED_LIMIT_MS,
        "sslmode": "verify-full" if trust.is_verified else "disable",
        "sslcertmode": "disable",  # else it looks into ~/.postgresql, and fails if it may not
        "ssl_min_protocol_version": "TLSv1.3" if environment("PGSSLMINPROTOCOLVERSION") == "TLSv1.3" else "TLSv1.2",
        "require_auth": _METHODS_FOR_PASSWORDS if credentials.password else _METHODS_FOR_NOTHING,
    }
    if pq.version() >= _LIBPQ_18:
        # All that RDS Proxy speaks; libpq 19 is to ask for more by itself.
        found |= {"min_protocol_version": "3.0", "max_protocol_version": "3.0"}
    if trust.is_verified:
        found["sslrootcert"] = trust.cafile
    if credentials.password and settings.auth == "iam":
        found |= {"require_auth": _METHODS_FOR_TOKENS, "channel_binding": "disable"}
    _check(found)
    return found


def start(found: dict[str, Any], password: Secret | None) -> pq.abc.PGconn:
    """Begin a non-blocking connect. The password is in no variable here: a traceback may show locals.

    Without one, libpq is told an empty one: it would look for PGPASSWORD.
    """
    return pq.PGconn.connect_start(make_conninfo(**found, password=password.reveal() if password else "").encode())


def explain(error: LambdaDbConnError, found: dict[str, Any]) -> LambdaDbConnError:
    """Name in an error the variables that libpq obeyed because it was told nothing else.

    Args:
        error: Why there is no connection, in libpq's words.
        found: What libpq was told.
    """
    variables = [
        option.envvar.decode()
        for option in pq.Conninfo.get_defaults()
        if option.envvar and option.keyword.decode() not in found and option.keyword != b"password"
    ]
    names = ", ".join(name for name in (*variables, *_MADE_PARAMETERS) if name in os.environ)
    if not names:
        return error
    message = f"{error.message} (libpq reads from the environment: {names})"
    remedy = f"Correct or unset {names}: libpq reads it from the environment."
    if not isinstance(error, ConnectError) or _ASKED not in error.message:  # it did not even ask a server
        return ConfigurationError(message, remedy=remedy)
    error.message = message
    if type(error) is ConnectError and not error.retryable:
        error.remedy = remedy
    return error


def _check(found: dict[str, Any]) -> None:
    """Raise for a text that cannot be sent; `Credentials` have been checked when they were made."""
    for name, value in found.items():
        if isinstance(value, str) and not _can_be_sent(value):
            raise ConfigurationError(f"libpq's parameter {name} is {value!r}, which {_UNSENDABLE}")


_UNSENDABLE = "has a character that cannot be sent; accepted: text in UTF-8 without a zero byte or a lone surrogate"


def _can_be_sent(text: str) -> bool:
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False


def _shown(version: int) -> str:
    return f"{version // 10000}.{version % 10000}"
