"""Python code → the string literals in it that may be SQL, put together as they would be at run time.

Adjacent literals, `+`, `%`, `.format()` and f-strings become one text; what is not known before run time is one
letter, `PLACEHOLDER`, which is a word to the scanner. Strings that are statements by themselves, as docstrings are,
are left out. Nothing is executed.
"""

from __future__ import annotations

import ast
import re
import warnings
from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lambda_dbconn.cli.pins.sources import UnreadableError

if TYPE_CHECKING:
    from collections.abc import Iterator

    Part = ast.Constant | ast.JoinedStr | None  # None: not known before run time

PLACEHOLDER = "\ue000"  # for private use: nobody else writes it

# {}, {name}, %s, %(name)s: a driver's, or of str.format.
_UNKNOWN_PARTS = re.compile(r"\{[^{}\n]*+\}|%(?:\([^()\n]*+\))?+s")

# What is given to these is SQL: drivers' methods, SQLAlchemy, psycopg.sql, Django, pandas and kin.
_TAKES_SQL = frozenset(
    (
        *("execute", "executemany", "executescript", "execute_sql", "exec_driver_sql", "execute_query", "run_sql"),
        *("query", "mogrify", "stream", "raw", "raw_sql", "read_sql", "read_sql_query", "prepare"),
        *("fetch_all", "fetch_one", "fetchrow", "fetchval", "scalar", "scalars"),
        *("text", "SQL", "RunSQL", "DDL", "RawSQL"),
    )
)
_NAME_OF_SQL = re.compile(r"(?:^|_)(?:sql|query|queries|statements?|stmts?|ddl)(?:$|_)", re.IGNORECASE)
_KEEPS_TEXT = frozenset(("format", "strip", "lstrip", "rstrip", "encode"))  # methods of the text
_PASSES_TEXT = frozenset(("dedent", "cleandoc", "text", "SQL", "DDL"))  # functions of the text


@dataclass(frozen=True, slots=True, kw_only=True)
class Literal:
    """One text of a program.

    Attributes:
        text: With `PLACEHOLDER` for what is not known.
        is_sent: It is given to a function that takes SQL, or has a name that says SQL.
        first_line: Where it begins in the file, from 1.
        last_line: Where it ends.
        places: Places in the text, in order; from each on ...
        lines: ... it stands in this line of the file.
    """

    text: str
    is_sent: bool
    first_line: int
    last_line: int
    places: list[int]
    lines: list[int]

    def line_at(self, place: int) -> int:
        """Return the line of the file in which a place of the text stands."""
        return self.lines[bisect_right(self.places, place) - 1]


def literals(source: str) -> list[Literal]:
    """Return the texts of a Python program, in its order.

    Raises:
        UnreadableError: It is not Python of the version that runs this, or is nested too deeply.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the program's, as for "\\d": not ours to tell
            tree = ast.parse(source)
        nodes = list(ast.walk(tree))
        sent = _sent(nodes)
        continued = {number for number, line in enumerate(source.split("\n"), start=1) if line.endswith("\\")}
        found = [_literal(root, parts, sent, continued) for root, parts in _texts(nodes)]
    except SyntaxError as error:
        raise UnreadableError(f"is not Python: {error.msg}", error.lineno) from error
    except ValueError as error:
        raise UnreadableError(f"is not Python: {error}") from error
    except (RecursionError, MemoryError) as error:  # so the parser says of a thousand brackets
        raise UnreadableError("is nested too deeply") from error
    return sorted(found, key=lambda literal: literal.first_line)


def _texts(nodes: list[ast.AST]) -> Iterator[tuple[ast.expr, list[Part]]]:
    """Yield each expression that makes a text, and its parts; `nodes` has what is outside before what is inside."""
    done: set[ast.AST] = {node.value for node in nodes if isinstance(node, ast.Expr)}
    for node in nodes:
        if isinstance(node, (ast.Constant, ast.JoinedStr, ast.BinOp)) and node not in done:
            parts = list(_parts(node, done))
            if any(part is not None for part in parts):
                yield node, parts


def _parts(node: ast.expr, seen: set[ast.AST]) -> Iterator[Part]:
    """Yield what a text is put together from, from left to right, and add what was looked at to `seen`."""
    waiting = [node]
    while waiting:  # a sum of a thousand texts is a thousand levels deep, too deep for recursion
        node = waiting.pop()
        seen.add(node)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            waiting += (node.right, node.left)
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod):
            waiting.append(node.left)
        elif isinstance(node, ast.JoinedStr):
            seen.update(node.values)
            yield node
        elif isinstance(node, ast.Constant) and isinstance(node.value, (str, bytes)):
            yield node
        else:
            yield None  # a call, say: the texts in it are texts of their own


def _sent(nodes: list[ast.AST]) -> set[ast.AST]:
    """Return the texts that are given to functions that take SQL, or have a name that is, or that says SQL."""
    given = [found for node in nodes if isinstance(node, ast.Call) for found in _given(node)]
    names = {_name(node) for value in given for node in _alternatives(value)} - {""}
    for node in nodes:
        if isinstance(node, (ast.Assign, ast.AnnAssign, ast.NamedExpr, ast.AugAssign)) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(name in names or _NAME_OF_SQL.search(name) for name in map(_name, targets)):
                given.append(node.value)
    return {
        part for value in given for node in _alternatives(value) for part in _parts(node, set()) if part is not None
    }


def _given(call: ast.Call) -> Iterator[ast.expr]:
    if _name(call.func) in _TAKES_SQL:
        yield from call.args[:1]
    for keyword in call.keywords:
        if keyword.arg is not None and _NAME_OF_SQL.search(keyword.arg):
            yield keyword.value


def _alternatives(node: ast.expr) -> Iterator[ast.expr]:
    """Yield what an expression's value is made from, one of which it is, or all."""
    while isinstance(node, ast.Call):
        if isinstance(node.func, ast.Attribute) and node.func.attr in _KEEPS_TEXT:
            node = node.func.value
        elif _name(node.func) in _PASSES_TEXT and node.args:
            node = node.args[0]
        else:
            return
    if isinstance(node, ast.IfExp):
        yield from _alternatives(node.body)
        yield from _alternatives(node.orelse)
    elif isinstance(node, (ast.List, ast.Tuple)):
        for element in node.elts:
            yield from _alternatives(element)
    else:
        yield node


def _name(node: ast.expr) -> str:
    """Return the last part of `name` or `object.name`."""
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _literal(root: ast.expr, parts: list[Part], sent: set[ast.AST], continued: set[int]) -> Literal:
    pieces: list[str] = []
    places: list[int] = []
    lines: list[int] = []
    size = 0
    for part in parts:
        text = PLACEHOLDER if part is None else _text(part)
        first = lines[-1] if part is None and lines else (part or root).lineno
        for piece, line in _in_lines(text, first, part, is_continued=first in continued):
            pieces.append(piece)
            places.append(size)
            lines.append(line)
            size += len(piece)
    return Literal(
        text="".join(pieces),
        is_sent=any(part in sent for part in parts if part is not None),
        first_line=root.lineno,
        last_line=root.end_lineno or root.lineno,
        places=places,
        lines=lines,
    )


def _in_lines(text: str, first: int, part: Part, *, is_continued: bool) -> Iterator[tuple[str, int]]:
    """Yield a text in pieces with the line of each; if it has other lines than its source, all are the first."""
    pieces = text.split("\n")
    spanned = (part.end_lineno or first) - first if part is not None else 0
    is_continued = is_continued and spanned == len(pieces)  # a backslash after the opening quote
    is_alike = is_continued or spanned == len(pieces) - 1
    for number, piece in enumerate(pieces, start=int(is_continued)):
        yield piece + ("\n" if number - is_continued < len(pieces) - 1 else ""), first + (number if is_alike else 0)


def _text(part: ast.Constant | ast.JoinedStr) -> str:
    if isinstance(part, ast.Constant):
        value = part.value.decode("latin-1") if isinstance(part.value, bytes) else str(part.value)
        return _UNKNOWN_PARTS.sub(PLACEHOLDER, value)
    values = (value.value if isinstance(value, ast.Constant) else PLACEHOLDER for value in part.values)
    return _UNKNOWN_PARTS.sub(PLACEHOLDER, "".join(map(str, values)))
