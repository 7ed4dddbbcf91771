"""What a secret says: user and password, and where the database is.

Nothing here raises while the content is in a local variable: a traceback may show those.
Source: Secrets Manager user guide, "JSON structure of AWS Secrets Manager database credential secrets".
"""

from __future__ import annotations

from lambda_dbconn._values import TYPE_CHECKING, Value
from lambda_dbconn.errors import ConfigurationError, CredentialsError
from lambda_dbconn.secret import Secret, unsendable
from lambda_dbconn.settings.fields import HOST, printable, whole

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

_ENGINES = {
    "postgres": "postgresql",
    "postgresql": "postgresql",
    "aurora-postgresql": "postgresql",
    "mysql": "mysql",
    "mariadb": "mysql",
    "aurora-mysql": "mysql",
    "aurora": "mysql",
}
_PORT = whole(1, 65535)
_LONGEST_PORT = 5  # digits
_LONGEST_NUMBER = 20  # digits; Python refuses to read more than 4,300, with an error that is no JSON's
_NAME = printable()
STORE_AS_RDS = "Store it as RDS does: a JSON object with the texts username and password."


class SecretContent(Value):
    """A database secret, read.

    Attributes:
        user: The database user.
        password: Its password.
        engine: As the settings call it.
        host: Of the database itself, never of a proxy.
        port: Of the database itself.
        name: The database's.
        faults: Why a field is None though the secret has its key: pairs of field and sentence, without the value.
    """

    user: str
    password: Secret
    engine: str | None = None
    host: str | None = None
    port: int | None = None
    name: str | None = None
    faults: tuple[tuple[str, str], ...] = ()

    def settings(self) -> dict[str, Any]:
        """Return what it says of the settings, by field: a value, or a `ConfigurationError` that says what is wrong."""
        found = {"engine": self.engine, "host": self.host, "port": self.port, "name": self.name}
        wrong = {field: ConfigurationError(fault) for field, fault in self.faults}
        return {field: value for field, value in found.items() if value is not None} | wrong


def read_content(text: Secret, *, secret_id: str, user_key: str, password_key: str) -> SecretContent:
    """Read a secret's JSON text.

    RDS's own secrets have host, port, engine and dbname too; those that RDS manages have only the first two.

    Raises:
        CredentialsError: It is not such a text; the message shows none of it.
    """
    content = _read(text, secret_id, user_key, password_key)
    if isinstance(content, str):
        raise CredentialsError(f"the secret {secret_id!r} {content}", remedy=STORE_AS_RDS)
    return content


def _read(text: Secret, secret_id: str, user_key: str, password_key: str) -> SecretContent | str:
    """Return the content, or what is wrong with it."""
    import json

    try:
        content = json.loads(text.reveal().removeprefix("\ufeff"), parse_int=_whole)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        return "is not a JSON object"
    for key in (user_key, password_key):
        if not isinstance(content.get(key), str) or not content[key]:
            return f"has no text under the key {key!r}"
        fault = unsendable(content[key])
        if fault is not None:
            return f"has {fault} under the key {key!r}"
    values, faults = _where(content, secret_id)
    return SecretContent(user=content[user_key], password=Secret(content[password_key]), faults=tuple(faults), **values)


def _where(content: Mapping[str, Any], secret_id: str) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Return what the content says of the settings, and what is wrong with it; null and "" say nothing."""
    engine, port, host, name = (content.get(key) for key in ("engine", "port", "host", "dbname"))
    read: dict[str, tuple[str, Any, bool, str]] = {
        "engine": ("engine", *_engine(engine)),
        "host": ("host", host, HOST.is_valid(host), HOST.words),
        "port": ("port", _number(port), _PORT.is_valid(_number(port)), _PORT.words),
        "name": ("dbname", name, _NAME.is_valid(name), _NAME.words),
    }
    values: dict[str, Any] = {}
    faults = []
    for field, (key, value, is_valid, words) in read.items():
        if content.get(key) in (None, ""):
            continue
        if is_valid:
            values[field] = value
        else:
            fault = f"the secret {secret_id!r} has an unusable value under the key {key!r}; accepted: {words}"
            faults.append((field, fault))
    return values, faults


def _engine(value: object) -> tuple[str | None, bool, str]:
    found = _ENGINES.get(value.lower()) if isinstance(value, str) else None
    return found, found is not None, ", ".join(_ENGINES)


def _whole(digits: str) -> float:
    return int(digits) if len(digits) <= _LONGEST_NUMBER else float("inf")


def _number(value: object) -> object:
    """Return a port that is written as a text, as in older secrets, or as 3307.0."""
    if isinstance(value, str):
        digits = value.strip()
        return int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= _LONGEST_PORT else None
    return int(value) if isinstance(value, float) and value.is_integer() else value
