"""Is this a statement, or prose that begins like one? "Set the value", "Listen on a port", "Reset password".

Only statements that pin need to be told from prose, and they have few beginnings. Each is listed here with the evidence
that it needs: of some the words are enough, some must be in capitals, and some are taken for SQL only if the text is
given to something that takes SQL.
"""

from __future__ import annotations

import re
from enum import IntEnum
from itertools import pairwise
from typing import TYPE_CHECKING

from lambda_dbconn.cli.pins.literals import PLACEHOLDER
from lambda_dbconn.proxy.scanner import EXECUTABLE, MARK, NAME, NUMBER, STRING, WORD

if TYPE_CHECKING:
    from lambda_dbconn.proxy.scanner import Token


class Evidence(IntEnum):
    """What it takes to believe that a text is SQL."""

    PROSE = 0  # nothing would do
    SENT = 1  # the text is given to something that takes SQL
    CAPITALS = 2  # that, or its first word is in capitals
    WORDS = 3  # its words are enough


_LOOKED_AT = 40  # tokens; no beginning here is longer
_LONGEST_NAME = 128  # characters; what the servers take is shorter
_NOTHING, _EXPRESSION, _ANYTHING = range(3)  # what follows a beginning

_NAME = rf'(?:(?:[^\W\d]|{PLACEHOLDER})[\w${PLACEHOLDER}]*+|")'
_ID = rf"{_NAME}(?: \. {_NAME})*+"
_TABLE = rf"(?:if not exists )?{_ID}"
_SET = r"set (?:session |local )?"
_TEMPORARY = r"create (?:or replace )?(?:local |global )?temp(?:orary)? (?:recursive )?(?:table|view|sequence) "

# Beginnings, as `_outlined` shows them. The first that fits counts.
_OF_BOTH = (
    (Evidence.WORDS, _NOTHING, r"begin|begin transaction|start transaction|commit|rollback"),
    (Evidence.SENT, _EXPRESSION, rf"set \S*{PLACEHOLDER}\S* (?:=|:=|to)"),  # else it may be a part of an UPDATE
    (Evidence.WORDS, _ANYTHING, r"select|with (?:recursive )?\S+ (?:\(|as)|values \("),
    (Evidence.WORDS, _ANYTHING, rf"(?:insert|replace|merge) (?:ignore )?into {_ID}|delete from {_ID}"),  # noqa: S608 - a pattern
    (Evidence.WORDS, _ANYTHING, rf"update (?:only |ignore )?{_ID}(?: (?:as )?\S+)? set|call {_ID} \("),
    (Evidence.WORDS, _ANYTHING, rf"explain (?:\(|analyze|verbose|select|insert)|alter (?:table|sequence) {_ID}"),
    (Evidence.WORDS, _ANYTHING, rf"create (?:or replace )?(?:table|view|materialized view) {_TABLE} (?:\(|as)"),
    (Evidence.CAPITALS, _NOTHING, r"set role \S+"),
    (Evidence.CAPITALS, _EXPRESSION, r"set names"),
    (Evidence.CAPITALS, _NOTHING, r"deallocate all"),
    (Evidence.SENT, _NOTHING, rf"execute {_ID}|(?:deallocate|drop) (?:prepare )?{_ID}"),
)
_BEGINNINGS = {
    "postgresql": (
        *_OF_BOTH,
        (Evidence.WORDS, _EXPRESSION, rf"set (?:session|local) {_ID} (?:=|to)"),
        (Evidence.WORDS, _EXPRESSION, rf"{_SET}(?:time zone|session authorization)"),
        (
            Evidence.WORDS,
            _ANYTHING,
            r"set (?:session characteristics as )?transaction (?:isolation|read|not|deferrable)",
        ),
        (Evidence.WORDS, _NOTHING, r"set transaction snapshot '|set constraints .* (?:deferred|immediate)"),
        (Evidence.CAPITALS, _EXPRESSION, rf"set {_ID} (?:=|to)"),
        (Evidence.SENT, _NOTHING, rf"{_SET}(?:schema|seed|role) \S+"),
        (Evidence.WORDS, _NOTHING, r"reset session authorization|discard (?:plans|sequences|temp|temporary)|load '"),
        (Evidence.CAPITALS, _NOTHING, rf"(?:reset|discard) all|reset time zone|(?:reset|listen) {_ID}"),
        (Evidence.WORDS, _ANYTHING, rf"prepare {_ID}(?: \(.*?\))? as (?:select|insert|update|delete|values|with)"),
        (Evidence.CAPITALS, _ANYTHING, rf"execute {_ID} \("),
        (Evidence.WORDS, _ANYTHING, rf"declare {_ID}(?: \w+){{0,4}}? cursor"),
        (Evidence.WORDS, _ANYTHING, rf"{_TEMPORARY}{_TABLE} (?:\(|as|on commit|using|start|increment)"),
        (Evidence.CAPITALS, _ANYTHING, rf"{_TEMPORARY}{_TABLE}"),
    ),
    "mysql": (
        *_OF_BOTH,
        (Evidence.WORDS, _EXPRESSION, rf"set (?:@|@@|@@ \w+ \.|global|persist|persist_only|session|local) {_ID} :?="),
        (Evidence.CAPITALS, _EXPRESSION, rf"set {_ID} :?="),
        (Evidence.WORDS, _ANYTHING, r"set (?:global )?transaction (?:isolation level|read (?:only|write))"),
        (Evidence.WORDS, _ANYTHING, rf"set statement {_ID} =|set resource group \S+$"),
        (Evidence.WORDS, _ANYTHING, rf"lock tables? {_ID}(?: (?:as )?\S+)? (?:read|write|low_priority)"),
        (Evidence.WORDS, _ANYTHING, r"flush (?:local |no_write_to_binlog )?tables? .*?with read lock"),
        (Evidence.CAPITALS, _NOTHING, r"flush tables with read lock"),
        (Evidence.WORDS, _ANYTHING, rf"prepare {_ID} from (?:'|@)|execute immediate '|execute {_ID} using @"),
        (Evidence.WORDS, _ANYTHING, rf"create (?:or replace )?temporary table {_TABLE} (?:\(|as|like|select|engine)"),
        (Evidence.CAPITALS, _ANYTHING, rf"create (?:or replace )?temporary table {_TABLE}"),
        (Evidence.WORDS, _ANYTHING, r"/\*!|load data|get (?:current |stacked )?diagnostics|do \S+ \("),
    ),
}
_PATTERNS = {
    engine: [(evidence, rest, re.compile(rf"(?:{pattern})(?= |$)")) for evidence, rest, pattern in beginnings]
    for engine, beginnings in _BEGINNINGS.items()
}
# Words that may stand beside others in an expression. Prose has others.
_JOINING = frozenset(
    (
        *("and", "or", "not", "is", "in", "like", "between", "div", "mod", "xor", "collate", "interval", "to"),
        *("case", "when", "then", "else", "end", "null", "binary", "hour", "minute", "second", "session", "global"),
    )
)
_OF_OTHER_STATEMENTS = frozenset(("where", "from", "set", "select"))  # `SET a = 1 WHERE` is a part of an UPDATE


def evidence_needed(engine: str, statement: list[Token]) -> Evidence:
    """Say what it takes to believe that this is a statement."""
    start = next((place for place, token in enumerate(statement) if token[:2] != (MARK, "(")), len(statement))
    statement = statement[start:]
    outlined = _outlined(statement)
    for evidence, rest, pattern in _PATTERNS[engine]:
        found = pattern.match(outlined)
        if found is not None:
            following = statement[found[0].count(" ") + 1 :]
            if rest == _ANYTHING or not following or (rest == _EXPRESSION and _is_expression(following)):
                return evidence
    return Evidence.SENT if statement and statement[0][1].startswith(PLACEHOLDER) else Evidence.PROSE


def _outlined(statement: list[Token]) -> str:
    """Return a statement's beginning: words, marks, and one character for whatever has blanks in it."""
    return " ".join(_outline(kind, text) for kind, text, _ in statement[:_LOOKED_AT])


def _outline(kind: str, text: str) -> str:
    if kind in (WORD, MARK):
        return text[:_LONGEST_NAME]
    if kind == EXECUTABLE:  # without a version it may be the banner of a style sheet
        return "/*!" if re.match(r"/\*M?!\d{5}", text) else "/*"
    return {NAME: '"', STRING: "'", NUMBER: "0"}.get(kind, "?")


def _is_expression(rest: list[Token]) -> bool:
    """Say whether this may be a value, or a list: outside brackets, no two words stand side by side."""
    depth = 0
    for (kind, text, _), (next_kind, following, _) in pairwise((*rest, ("", "", 0))):
        depth += (kind == MARK) * ((text == "(") - (text == ")"))
        if depth == 0 and kind == WORD:
            if text in _OF_OTHER_STATEMENTS:
                return False
            if next_kind == WORD and not {text, following} & _JOINING:
                return False
    return True
