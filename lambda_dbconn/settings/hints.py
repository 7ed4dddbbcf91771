"""Hints about settings: likely typos, and what to do instead of a start-up parameter that RDS Proxy refuses.

Source: RDS user guide, "Connecting to a database through RDS Proxy" and "Quotas and limitations for RDS Proxy".
"""

from __future__ import annotations

from lambda_dbconn._values import TYPE_CHECKING
from lambda_dbconn.errors import LambdaDbConnWarning

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


_MISTAKEN_NAMES = {
    "HOSTNAME": "HOST",
    "ENDPOINT": "HOST",
    "ADDRESS": "HOST",
    "SERVER": "HOST",
    "DATABASE": "NAME",
    "DBNAME": "NAME",
    "SCHEMA": "NAME",
    "USERNAME": "USER",
    "LOGIN": "USER",
    "PASS": "PASSWORD",
    "PASSWD": "PASSWORD",
    "PWD": "PASSWORD",
    "SECRET": "SECRET_ID",
    "SECRET_ARN": "SECRET_ID",
    "SECRET_NAME": "SECRET_ID",
    "SSL": "SSLMODE",
    "SSL_MODE": "SSLMODE",
    "SSL_CA": "SSLROOTCERT",
    "TIMEOUT": "CONNECT_TIMEOUT_S",
    "POOL_SIZE": "MAX_CONNECTIONS",
}


def misspelt(unknown: Iterable[str], prefix: str, fields: tuple[str, ...]) -> dict[str, str]:
    """Warn of variables that look like a misspelling; return which variable may be meant for which field."""
    meant: dict[str, str] = {}
    for suffix in unknown:
        name = _MISTAKEN_NAMES.get(suffix)
        if name is None:
            from difflib import get_close_matches

            close = get_close_matches(suffix, [field.upper() for field in fields], n=1, cutoff=0.8)
            name = close[0] if close else None
        if name is not None:
            meant[name.lower()] = prefix + suffix
            _warn(f"{prefix}{suffix} is not a setting of lambda_dbconn: is {prefix}{name} meant?")
    return meant


def _warn(message: str) -> None:
    import warnings

    warnings.warn(message, LambdaDbConnWarning, stacklevel=5)


# What the proxy accepts, and libpq sends when it finds the variable; none of it pins.
_VARIABLES = {
    "application_name": "PGAPPNAME",
    "client_encoding": "PGCLIENTENCODING",
    "datestyle": "PGDATESTYLE",
    "timezone": "PGTZ",
}
_INSTEAD = {
    "postgresql": (
        "what a session is to be set to belongs in the role's defaults (ALTER ROLE … SET), in RDS Proxy's "
        "initialization query, or, for one transaction, in SET LOCAL"
    ),
    "mysql": (
        "what a session is to be set to belongs in RDS Proxy's initialization query or the parameter group; "
        "time_zone, sql_mode and the other variables that the proxy tracks may also be SET"
    ),
}
# libpq's variables that RDS Proxy does not go along with, the values that do no harm, and what to do instead.
_NOT_WITH_A_PROXY = (
    ("PGOPTIONS", (), _INSTEAD["postgresql"]),
    ("PGGEQO", (), _INSTEAD["postgresql"]),
    ("PGSERVICE", (), "unset it: a service file may hold what the proxy refuses; " + _INSTEAD["postgresql"]),
    ("PGMINPROTOCOLVERSION", ("3.0",), "unset it: the proxy speaks no other version of the protocol than 3.0"),
    ("PGSSLNEGOTIATION", ("postgres",), "unset it: the proxy knows no other TLS negotiation than PostgreSQL's own"),
    ("PGTARGETSESSIONATTRS", ("any",), "unset it, and use the proxy's read-only endpoint as READER_HOST for reads"),
)


def instead_of(parameter: str, engine: str) -> str:
    """Say what to do instead of a parameter that is not a setting of ours."""
    variable = _VARIABLES.get(parameter.lower()) if engine == "postgresql" else None
    return f"set the variable {variable}" if variable else _INSTEAD[engine]


def faults_with_a_proxy(read: Callable[[str], str | None]) -> Iterator[tuple[str, str]]:
    """Yield what is wrong, behind RDS Proxy, with libpq's own environment variables, each with its name.

    Args:
        read: Returns a variable's value, or None.
    """
    for variable, harmless, instead in _NOT_WITH_A_PROXY:
        value = read(variable)
        if value is not None and value not in harmless:
            yield variable, f"{variable} is set, which RDS Proxy does not accept: {instead}"
