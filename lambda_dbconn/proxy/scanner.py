"""SQL text → tokens, as the two servers' own lexers cut it: comments, strings, quoted names, dollar quotes.

Total and linear: any text is cut from its first character to its last, each character is looked at a bounded number
of times, and what is never closed goes on to the end. No pattern here can backtrack (all repetition is possessive).

Rests on the PostgreSQL manual, "Lexical Structure", with standard_conforming_strings on, and on the MySQL reference
manual, "Language Structure", without ANSI_QUOTES and NO_BACKSLASH_ESCAPES, the servers' defaults.
"""

from __future__ import annotations

import re

from lambda_dbconn._values import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    Token = tuple[str, str, int]  # kind, text, where it begins

# Kinds. A word's text is in lower case; a quoted name's is what is between the quotes; others' are as written.
WORD, NAME, STRING, NUMBER, MARK, EXECUTABLE = "word", "name", "string", "number", "mark", "executable"

_BLANK = r"[ \t\r\n\f\v]++"
# Letters, "_" and all beyond ASCII, said by what they are not: a range up to U+10FFFF takes 5 ms to compile.
_LETTER = r"[^\x00-@\[-^`{-\x7f]"
_LETTER_OR_DIGIT = r"[^\x00-/:-@\[-^`{-\x7f]"
_WORD = _LETTER + r"[^\x00-#%-/:-@\[-^`{-\x7f]*+"  # "$" among the rest
_NUMBER = r"[0-9][^\x00-\-/:-@\[-^`{-\x7f]*+"  # "." among the rest
_SINGLE_QUOTED = r"'(?:[^'\\]++|\\.|'')*+'?"  # with backslashes; what is never closed has no quote at the end
_DOUBLE_QUOTED = r'"(?:[^"\\]++|\\.|"")*+"?'

_COMMON = rf"(?P<{WORD}>{_WORD})|(?P<{NUMBER}>{_NUMBER})"
_POSTGRESQL = re.compile(
    rf"(?P<blank>{_BLANK}|--[^\r\n]*+)|(?P<comment>/\*)"
    rf"|(?P<{STRING}>[eE]{_SINGLE_QUOTED}|'[^']*+'?)"
    rf'|(?P<{NAME}>"(?:[^"]++|"")*+"?)'
    rf"|(?P<dollar>\$(?:{_LETTER}{_LETTER_OR_DIGIT}*+)?+\$)"
    rf"|{_COMMON}|(?P<{MARK}>:=|.)",
    re.DOTALL,
)
_MYSQL = re.compile(
    rf"(?P<blank>{_BLANK}|\#[^\n]*+|--(?=[\x00-\x20]|\Z)[^\n]*+)|(?P<{EXECUTABLE}>/\*M?!)|(?P<comment>/\*)"
    rf"|(?P<{STRING}>{_SINGLE_QUOTED}|{_DOUBLE_QUOTED})"
    rf"|(?P<{NAME}>`(?:[^`]++|``)*+`?)"
    rf"|{_COMMON}|(?P<{MARK}>:=|@@|.)",
    re.DOTALL,
)
_COMMENT_ENDS = re.compile(r"/\*|\*/")


def tokens(engine: str, text: str, position: int = 0) -> Iterator[Token]:
    """Yield a text's tokens from `position` on, without blanks and comments, whatever the text."""
    is_nested = engine == "postgresql"
    match = (_POSTGRESQL if is_nested else _MYSQL).match
    while found := match(text, position):
        kind = found.lastgroup
        start, position = position, found.end()
        if kind == "blank":
            continue
        if kind == WORD:
            yield WORD, found[0].lower(), start
        elif kind == NAME:
            quote = text[start]
            yield NAME, found[0][1:].removesuffix(quote).replace(2 * quote, quote), start
        elif kind == "comment":
            position = _after_comment(text, position, is_nested=is_nested)
        elif kind == "dollar":
            position = _after(text, found[0], position)
            yield STRING, text[start:position], start
        elif kind == EXECUTABLE:
            position = _after(text, "*/", position)
            yield EXECUTABLE, text[start:position], start
        else:
            yield kind or MARK, found[0], start


def _after(text: str, closing: str, position: int) -> int:
    end = text.find(closing, position)
    return len(text) if end < 0 else end + len(closing)


def _after_comment(text: str, position: int, *, is_nested: bool) -> int:
    if not is_nested:
        return _after(text, "*/", position)
    depth = 1
    for found in _COMMENT_ENDS.finditer(text, position):
        depth += 1 if found[0] == "/*" else -1
        if depth == 0:
            return found.end()
    return len(text)
