"""Which statements may commit what was done before them in the transaction, by their first words; on the safe side.

Asked only where the server's answer does not tell: after an error, or when the connection was lost.
"""

from __future__ import annotations

from lambda_dbconn._values import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

_COMMIT_NOTHING_ON_MYSQL = frozenset(
    (
        *("select", "insert", "update", "delete", "replace", "with", "values", "table"),
        *("do", "show", "explain", "describe", "desc", "savepoint", "release", "use"),
    )
)
_COMMIT_ON_POSTGRESQL = frozenset(
    ("commit", "end", "prepare")
)  # all of PostgreSQL's: END is COMMIT, PREPARE TRANSACTION ends it, too


def may_commit(engine: str, text: Any) -> bool:
    """Say whether a text, as it was given to the driver, may commit; True for what is no text."""
    from lambda_dbconn.proxy.scanner import MARK
    from lambda_dbconn.proxy.statements import statements

    if isinstance(text, (bytes, bytearray)):
        text = bytes(text).decode("latin-1")
    if not isinstance(text, str):
        return True
    for statement in statements(engine, text):
        word = next((word for kind, word, _ in statement if kind != MARK or word != "("), "")
        if engine == "postgresql" and word in _COMMIT_ON_POSTGRESQL:
            return True
        if engine == "mysql" and word not in _COMMIT_NOTHING_ON_MYSQL:
            return True
    return False
