"""Which statements tie a client to its database connection until the session ends, and why.

Sources, by the letters in the tables: [P] RDS user guide, "Avoiding pinning an RDS Proxy"; [A] the same page for
Aurora; [B] "RDS Proxy best practices", configuration. What is not listed there does not pin, functions and
procedures whatever they do inside among it. Texts of literals and comments count for nothing.
"""

from __future__ import annotations

import re
from functools import lru_cache

LONGEST_TEXT_BYTES = 16 * 1024  # [P], all engines

TOO_LONG = "The statement is longer than 16 KB."
PREPARED = "Running a prepared statement."
SETTINGS = "SQL changed session settings that the proxy doesn't track."

_TEMPORARY = "SQL created a temporary object."

_FLAGS = re.IGNORECASE | re.DOTALL

# Each fits at the start of a statement.
_POSTGRESQL: tuple[tuple[str, str], ...] = (
    (r"(?:re)?set\b", SETTINGS),  # [P] SET, also SET LOCAL, which only the MySQL section exempts
    (r".*\bset_config\s*\(", SETTINGS),  # [P]
    (r"prepare\b|execute\b|deallocate\b", PREPARED),  # [P]
    (r"discard\b", "SQL discarded session state."),  # [P]
    (r"create\s+(?:or\s+replace\s+)?(?:(?:local|global)\s+)?temp(?:orary)?\b", _TEMPORARY),  # [P]
    (r"(?:with|select)\b.*\binto\s+(?:(?:local|global)\s+)?temp(?:orary)?\b", _TEMPORARY),
    (r"declare\b", "SQL declared a cursor."),  # [P]
    (r"listen\b", "SQL listens for notifications."),  # [P]
    (r"load\b", "SQL loaded a library."),  # [P]
    (r".*\b(?:nextval|setval)\s*\(", "SQL manipulated a sequence."),  # [P]
    (r".*\bpg_(?:try_)?advisory_lock(?:_shared)?\s*\(", "SQL took an advisory lock of the session."),  # [P]
)
_MYSQL: tuple[tuple[str, str], ...] = (
    (r"lock\s+tables?\b|flush\s+tables\b.*\bwith\s+read\s+lock\b", "SQL locked tables."),  # [P]
    (r".*\bget_lock\s*\(", "SQL took a named lock."),  # [P]
    (r"create\s+(?:or\s+replace\s+)?temporary\b", "SQL created a temporary table."),  # [P]
    (r".*\b(?:row_count|found_rows)\s*\(\s*\)", "SQL asked for the number of rows of the statement before."),  # [P]
    (r"prepare\b|execute\b|deallocate\b", PREPARED),  # [P]
    (r".*/\*M?!", "SQL has an executable comment."),  # [A]
    (r".*@\w+\s*:=|.*\binto\s+@", SETTINGS),  # [P] a user variable
)

# [P]: settings that the proxy tracks; a client gets a database connection that has its values.
_TRACKED = re.compile(
    r"autocommit|auto_increment_increment|character_set_(?:client|connection|database|filesystem|results|server)"
    r"|collation_(?:connection|database|server)|interactive_timeout|net_write_timeout|query_cache_type"
    r"|session_track_schema|sql_mode|time_zone|(?:transaction|tx)_(?:isolation|read_only)|wait_timeout",
    _FLAGS,
)
_TRACKED_START = re.compile(r"(?:set|use|drop\s+(?:database|schema))\b", _FLAGS)
_TRACKED_SET = re.compile(r"set\s+(?:names|charset|character\s+set|session\s+transaction)\b", _FLAGS)
_SET_LOCAL = re.compile(r"set\s+(?:@@)?local\b", _FLAGS)  # [P]: does not pin, though MySQL's LOCAL means SESSION
_SET = re.compile(r"set\b", _FLAGS)
_SESSION_PREFIX = re.compile(r"(?:session\s+|@@session\s*\.\s*|@@(?!global|persist))", _FLAGS)

_RULES = {
    engine: tuple((re.compile(pattern, _FLAGS), reason) for pattern, reason in rules)
    for engine, rules in (("postgresql", _POSTGRESQL), ("mysql", _MYSQL))
}
_NOISE = {
    "postgresql": re.compile(
        r"(?:\be)'(?:[^'\\]|\\.|'')*'|'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\""
        r"|--[^\n]*|/\*.*?\*/|(\$(?:[a-z_]\w*)?\$).*?\1",
        _FLAGS,
    ),
    "mysql": re.compile(
        r"'(?:[^'\\]|\\.|'')*'|\"(?:[^\"\\]|\\.|\"\")*\"|`(?:[^`]|``)*`|--\s[^\n]*|#[^\n]*|/\*(?!M?!).*?\*/", _FLAGS
    ),
}


@lru_cache(maxsize=256)
def pin_reason(engine: str, text: bytes) -> str | None:
    """Say why a text, of one or more statements, pins the session that sends it; None if it does not."""
    if len(text) > LONGEST_TEXT_BYTES:
        return TOO_LONG
    for statement in _statements(engine, text):
        for pattern, reason in _RULES[engine]:
            if pattern.match(statement):
                return reason
        if engine == "mysql" and _SET.match(statement) and not _sets_what_is_tracked(statement):
            return SETTINGS
    return None


@lru_cache(maxsize=256)
def changes_tracked_state(text: bytes) -> bool:
    """Say whether a text for MySQL may change something that the proxy tracks."""
    return any(_TRACKED_START.match(statement) for statement in _statements("mysql", text))


def _statements(engine: str, text: bytes) -> list[str]:
    plain = _NOISE[engine].sub(_without_content, text.decode(errors="replace"))
    return [statement for part in plain.split(";") if (statement := part.strip().lstrip("(").lstrip())]


def _without_content(noise: re.Match[str]) -> str:
    quote = noise[0][0]
    # A quoted name keeps its letters, for `SET "search_path"` and SET `sql_mode`.
    return noise[0].strip(quote) if quote == "`" else "''" if quote in "'\"eE$" else " "


def _sets_what_is_tracked(statement: str) -> bool:
    if _TRACKED_SET.match(statement) or _SET_LOCAL.match(statement):
        return True
    # Values are names, numbers or calls; a comma inside a call's arguments makes a part without "=".
    for assignment in re.split(r",(?![^(]*\))", statement[3:]):
        name = _SESSION_PREFIX.sub("", assignment.strip(), count=1).partition("=")[0].rstrip(" :\t\n")
        if not _TRACKED.fullmatch(name):
            return False
    return True
