"""What a secret says: user and password, and where the database is.

Nothing here raises while the content is in a local variable: a traceback may show those.
Source: Secrets Manager user guide, "JSON structure of AWS Secrets Manager database credential secrets".
"""

from __future__ import annotations

from lambda_dbconn.errors import CredentialsError
from lambda_dbconn.light import TYPE_CHECKING, Value
from lambda_dbconn.secret import Secret

if TYPE_CHECKING:
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
STORE_AS_RDS = "Store it as RDS does: a JSON object with the texts username and password."


class SecretContent(Value):
    """A database secret, read.

    Attributes:
        user: The database user.
        password: Its password.
        engine: As the settings call it; None when the secret names none, or another one.
        host: Of the database itself, never of a proxy.
        port: Of the database itself.
        name: The database's.
    """

    user: str
    password: Secret
    engine: str | None = None
    host: str | None = None
    port: int | None = None
    name: str | None = None

    def settings(self) -> dict[str, Any]:
        """Return what it says of the settings, by field."""
        found = {"engine": self.engine, "host": self.host, "port": self.port, "name": self.name}
        return {field: value for field, value in found.items() if value is not None}


def read_content(text: Secret, *, secret_id: str, user_key: str, password_key: str) -> SecretContent:
    """Read a secret's JSON text.

    RDS's own secrets have host, port, engine and dbname too; those that RDS manages have only the first two.

    Raises:
        CredentialsError: It is not such a text; the message shows none of it.
    """
    content = _read(text, user_key, password_key)
    if isinstance(content, str):
        raise CredentialsError(f"the secret {secret_id!r} {content}", remedy=STORE_AS_RDS)
    return content


def _read(text: Secret, user_key: str, password_key: str) -> SecretContent | str:
    """Return the content, or what is wrong with it."""
    import json

    try:
        content = json.loads(text.reveal())
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        return "is not a JSON object"
    for key in (user_key, password_key):
        if not isinstance(content.get(key), str) or not content[key]:
            return f"has no text under the key {key!r}"
        if "\0" in content[key]:
            return f"has a zero byte under the key {key!r}"
    return SecretContent(
        user=content[user_key],
        password=Secret(content[password_key]),
        engine=_ENGINES.get(str(content.get("engine")).lower()),
        host=_text(content.get("host")),
        port=_number(content.get("port")),
        name=_text(content.get("dbname")),
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _number(value: object) -> int | None:
    """Return a port, which is a number or, in older secrets, a text."""
    if isinstance(value, str) and value.isascii() and value.isdigit():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
