"""Which statements pin a session on RDS Proxy, and why: pure functions over text, total and linear.

`pin` judges a text as it is about to be sent, `find` a script file. A text is `str` or `bytes`: whatever else a
driver takes (psycopg's `Composable`, a `Template`) must have been made one, and so must parameters that the client
merges; `%s` and the like may stay. Bytes may be in any encoding that contains ASCII.

Most statements are known to be harmless from a few words that they do not have, at a microsecond's cost; the
scanner and the rules are imported when a statement has one.
"""

from __future__ import annotations

from lambda_dbconn._values import TYPE_CHECKING, Value

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lambda_dbconn.proxy.rules import Rule
    from lambda_dbconn.proxy.scanner import Token

_LONGEST_TEXT_BYTES = 16 * 1024
_SHOWN_OF_LONG_TOKENS = 8

# Every statement that pins begins with one of these, or has one of those; a test holds this against the rules.
_BEGINNINGS = {
    "postgresql": (
        *("set", "reset", "prepare", "execute", "deallocate", "discard", "declare", "listen", "load", "create"),
        *("explain", "--", "/*"),
    ),
    "mysql": (*("set", "lock", "flush", "prepare", "execute", "deallocate", "drop", "create", "--", "/*", "#"),),
}
_PARTS = {
    "postgresql": ("nextval", "setval", "set_config", "advisory_lock", "temp"),
    "mysql": ("@", "/*!", "/*m!", "get_lock", "row_count", "found_rows"),
}
_TRACKED_BEGINNINGS = ("set", "use", "drop", "--", "/*", "#")
_OF_THE_DRIVER = frozenset(("autocommit",))  # which puts it right by itself
_BEFORE = " \t\r\n\f\v("
_AFTER = " \t\r\n\f\v;"


class Pin(Value):
    """A statement that pins.

    Attributes:
        rule: Which rule says so; it has the reason, the way out and the source.
        shown: The words in the statement that do it, `SET search_path` or `get_lock()`; never a literal.
        fingerprint: The same for two statements that differ in nothing but literals, values of SET, names of cursors,
            comments and blanks.
        line: Where the statement begins in the text, from 1.
    """

    rule: Rule
    shown: str
    fingerprint: str
    line: int

    def __str__(self) -> str:
        return f"{self.shown}: {self.rule.reason}"


def pin(engine: str, text: str | bytes) -> Pin | None:
    """Say why a text, of one or more statements, pins the session that sends it; None if it does not.

    Args:
        engine: `postgresql` or `mysql`.
        text: As it is sent: all in one message.
    """
    if len(text) > _LONGEST_TEXT_BYTES or (isinstance(text, str) and _size_bytes(text) > _LONGEST_TEXT_BYTES):
        return _too_long(engine, text)
    if isinstance(text, bytes):
        text = text.decode("latin-1")  # whatever is not ASCII is a letter or in a literal
    if is_harmless(engine, text):
        return None
    from lambda_dbconn.proxy.statements import statements

    return next(_judged(engine, text, statements(engine, text)), None)


def tracked(engine: str, text: str | bytes) -> frozenset[str]:
    """Return what a text that does not pin changes in the session, because RDS Proxy tracks it.

    These are names of variables, and `names` (SET NAMES, SET CHARACTER SET), `transaction` (SET SESSION TRANSACTION)
    and `database` (USE, DROP DATABASE). Empty for PostgreSQL, where each SET pins.

    Args:
        engine: `postgresql` or `mysql`.
        text: As for `pin`, which must have said that it does not pin.
    """
    if engine != "mysql" or len(text) > _LONGEST_TEXT_BYTES:
        return frozenset()
    if isinstance(text, bytes):
        text = text.decode("latin-1")
    lowered = text.lower()
    if ";" not in lowered.rstrip(_AFTER) and not lowered.lstrip(_BEFORE).startswith(_TRACKED_BEGINNINGS):
        return frozenset()
    from lambda_dbconn.proxy.judge import changes
    from lambda_dbconn.proxy.statements import statements

    found = (name for statement in statements(engine, text) for name in changes(statement))
    return frozenset(found) - _OF_THE_DRIVER


def find(engine: str, text: str) -> Iterator[Pin]:
    """Yield the pins of a script file, in its order.

    The client's own commands (psql's backslash commands, DELIMITER) and COPY's data are passed over.
    """
    from lambda_dbconn.proxy.statements import script

    return _judged(engine, text, script(engine, text))


def is_harmless(engine: str, text: str) -> bool:
    """Say at a glance that a text cannot pin; False means that it must be looked at."""
    lowered = text.lower()
    for part in _PARTS[engine]:
        if part in lowered:
            return False
    return ";" not in lowered.rstrip(_AFTER) and not lowered.lstrip(_BEFORE).startswith(_BEGINNINGS[engine])


def _judged(engine: str, text: str, statements: Iterator[list[Token]]) -> Iterator[Pin]:
    from lambda_dbconn.proxy.judge import judge
    from lambda_dbconn.proxy.rules import TOO_LONG

    line, counted = 1, 0
    for statement in statements:
        found = judge(engine, statement)
        place, last = statement[0][2], statement[-1]
        if found is None and _size_bytes(text[place : last[2] + len(last[1])]) > _LONGEST_TEXT_BYTES:
            found = TOO_LONG, _first_word(statement)
            statement = statement[:_SHOWN_OF_LONG_TOKENS]  # noqa: PLW2901 - the rest is its data
        if found is not None:
            line += text.count("\n", counted, place)
            counted = place
            yield _made(*found, statement, line)


def _made(rule: Rule, shown: str, statement: list[Token], line: int) -> Pin:
    from zlib import crc32

    from lambda_dbconn.proxy.judge import outline

    fingerprint = crc32(f"{rule.id} {shown} {outline(statement)}".encode(errors="replace"))
    return Pin(rule=rule, shown=shown, fingerprint=f"{fingerprint:08x}", line=line)


def _too_long(engine: str, text: str | bytes) -> Pin:
    from lambda_dbconn.proxy.rules import TOO_LONG
    from lambda_dbconn.proxy.scanner import tokens

    start = text[:_LONGEST_TEXT_BYTES]
    if isinstance(start, bytes):
        start = start.decode("latin-1")
    beginning = [token for token, _ in zip(tokens(engine, start), range(_SHOWN_OF_LONG_TOKENS), strict=False)]
    return _made(TOO_LONG, _first_word(beginning), beginning, 1)


def _first_word(statement: list[Token]) -> str:
    return statement[0][1].upper() if statement and statement[0][0] == "word" else "a statement"


def _size_bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode(errors="replace"))
