"""Tokens → statements: where one ends and the next begins, also in routines' bodies and in scripts."""

from __future__ import annotations

import re
from itertools import pairwise

from lambda_dbconn._values import TYPE_CHECKING
from lambda_dbconn.proxy.scanner import MARK, WORD, tokens

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lambda_dbconn.proxy.scanner import Token

_ROUTINES = frozenset(("procedure", "function", "trigger", "event", "package"))
_HEAD_WORDS = frozenset(("create", "or", "replace", "aggregate", "constraint"))  # what may stand before those
_HEAD_LENGTH = 12  # tokens: CREATE OR REPLACE DEFINER = `user` @ `host` AGGREGATE FUNCTION
_ENDS_NO_BLOCK = frozenset(("if", "loop", "while", "repeat", "for"))  # END IF and the like

# What clients keep to themselves. No pattern can backtrack.
_DELIMITER = re.compile(r"^[ \t]*+delimiter[ \t]++(\S++)[^\n]*+$", re.IGNORECASE | re.MULTILINE)
_META_COMMAND = re.compile(r"^[ \t]*+\\[^\n]*+", re.MULTILINE)
_END_OF_DATA = re.compile(r"^\\\.[ \t\r]*+$", re.MULTILINE)


def statements(engine: str, text: str, position: int = 0) -> Iterator[list[Token]]:
    """Yield the tokens of each statement of a text that is sent as it is, from `position` on.

    Semicolons end a statement, except in the body of a routine.
    """
    current: list[Token] = []
    blocks = 0
    is_routine = is_after_end = False
    for token in tokens(engine, text, position):
        kind, word, _ = token
        if kind == MARK:
            if word == ";" and blocks <= 0:
                if current:
                    yield current
                current, blocks, is_routine, is_after_end = [], 0, False, False
                continue
        elif kind == WORD and is_routine:
            if word == "end" or (is_after_end and word in _ENDS_NO_BLOCK):
                blocks += -1 if word == "end" else 1
            elif word == "begin" or (word == "case" and not is_after_end):
                blocks += 1
        elif kind == WORD and word in _ROUTINES:
            is_routine = makes_routine([*current[:_HEAD_LENGTH], token])
        is_after_end = kind == WORD and word == "end"
        current.append(token)
    if current:
        yield current


def makes_routine(statement: list[Token]) -> bool:
    """Say whether a statement, or its beginning, creates something whose body runs later."""
    words = [word for kind, word, _ in statement[:_HEAD_LENGTH] if kind == WORD]
    for place, word in enumerate(words):
        if word in _ROUTINES:
            return place > 0 and words[0] == "create"
        if word not in _HEAD_WORDS and "definer" not in words[: place + 1]:
            return False
    return False


def script(engine: str, text: str) -> Iterator[list[Token]]:
    """Yield the statements of a file as `psql` and `mysql` read it.

    Backslash commands at the start of a line, DELIMITER, and the data after COPY … FROM stdin are no SQL.
    """
    return _mysql_script(text) if engine == "mysql" else _postgresql_script(text)


def _postgresql_script(text: str) -> Iterator[list[Token]]:
    sql = _META_COMMAND.sub(lambda found: " " * len(found[0]), text)  # blanked, so that places stay what they are
    start: int | None = 0
    while start is not None:
        position, start = start, None
        for statement in statements("postgresql", sql, position):
            yield statement
            if _reads_stdin(statement):
                data = _END_OF_DATA.search(text, statement[-1][2])
                start = len(text) if data is None else data.end()
                break


def _reads_stdin(statement: list[Token]) -> bool:
    words = [word for kind, word, _ in statement if kind == WORD]
    return words[0:1] == ["copy"] and ("from", "stdin") in pairwise(words)


def _mysql_script(text: str) -> Iterator[list[Token]]:
    """Split at what DELIMITER says at the moment; between two of its own a routine's semicolons do no harm."""
    start, delimiter = 0, ";"
    changes = [(found.start(), found.end(), found[1]) for found in _DELIMITER.finditer(text)]
    for end, following, changed in (*changes, (len(text), len(text), ";")):
        offset = start
        for piece in text[start:end].split(delimiter) if delimiter != ";" else (text[start:end],):
            for statement in statements("mysql", piece):
                yield [(kind, word, place + offset) for kind, word, place in statement]
            offset += len(piece) + len(delimiter)
        start, delimiter = following, changed
