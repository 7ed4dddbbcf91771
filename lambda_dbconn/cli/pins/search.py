"""A file's text → the statements in it that pin."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lambda_dbconn.cli.pins.literals import PLACEHOLDER, literals
from lambda_dbconn.cli.pins.shapes import Evidence, evidence_needed
from lambda_dbconn.proxy import find, is_harmless, pin
from lambda_dbconn.proxy.rules import LONGEST_TEXT_BYTES
from lambda_dbconn.proxy.statements import statements

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lambda_dbconn.cli.pins.literals import Literal
    from lambda_dbconn.cli.pins.sources import Language
    from lambda_dbconn.proxy import Pin
    from lambda_dbconn.proxy.rules import Rule
    from lambda_dbconn.proxy.scanner import Token

_ALLOWED = re.compile(r"(?:#|--)[ \t]*+lambda-dbconn:[ \t]*+allow-pin\b")
_UNTRACKED = "mysql-set-variable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A statement that pins: in which line of the file, what of it, and by which rule."""

    line: int
    shown: str
    rule: Rule


def search(engine: str, language: Language, text: str) -> Iterator[Finding]:
    """Yield what pins and is not allowed to, in the file's order.

    Raises:
        UnreadableError: It is not Python.
    """
    allowed = {number for number, line in enumerate(text.split("\n"), start=1) if _ALLOWED.search(line)}
    if language == "sql":
        for found in find(engine, text):
            if found.line not in allowed:
                yield Finding(line=found.line, shown=found.shown, rule=found.rule)
        return
    for literal in literals(text):
        for line, found in _of_literal(engine, literal):
            if allowed.isdisjoint((line, literal.first_line, literal.last_line)):
                yield Finding(line=line, shown=found.shown.replace(PLACEHOLDER, "…"), rule=found.rule)


def _of_literal(engine: str, literal: Literal) -> Iterator[tuple[int, Pin]]:
    text = literal.text
    if len(text) <= LONGEST_TEXT_BYTES and is_harmless(engine, text):
        return
    for statement, end in _with_ends(statements(engine, text), len(text)):
        place = statement[0][2]
        if _is_enough(evidence_needed(engine, statement), literal, text[place:end]):
            found = pin(engine, text[place:end])
            if found is not None and not _is_unknown(found):
                yield literal.line_at(place), found
        elif not literal.is_sent:
            return  # what follows prose is prose


def _with_ends(found: Iterator[list[Token]], size: int) -> Iterator[tuple[list[Token], int]]:
    """Yield each statement with the place where the next one begins."""
    previous: list[Token] = []
    for statement in found:
        if previous:
            yield previous, statement[0][2]
        previous = statement
    if previous:
        yield previous, size


def _is_enough(needed: Evidence, literal: Literal, statement: str) -> bool:
    if literal.is_sent:
        return needed >= Evidence.SENT
    first_word = re.match(r"\W*+(\w++)", statement)
    is_in_capitals = first_word is not None and first_word[1].isupper()
    return needed >= (Evidence.CAPITALS if is_in_capitals else Evidence.WORDS)


def _is_unknown(found: Pin) -> bool:
    """MySQL's proxy tracks some variables: of one whose name is not known before run time nothing can be said."""
    return found.rule.id == _UNTRACKED and PLACEHOLDER in found.shown
