"""Variables that are probably meant to be another one."""

from __future__ import annotations

from lambda_dbconn.errors import LambdaDbConnWarning
from lambda_dbconn.light import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

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
