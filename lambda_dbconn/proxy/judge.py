"""One statement's tokens → the rule that it breaks, and the words in it that do."""

from __future__ import annotations

from itertools import pairwise

from lambda_dbconn._values import TYPE_CHECKING
from lambda_dbconn.proxy.rules import MYSQL, MYSQL_TRACKED, POSTGRESQL
from lambda_dbconn.proxy.scanner import EXECUTABLE, MARK, NAME, NUMBER, STRING, WORD
from lambda_dbconn.proxy.statements import makes_routine

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lambda_dbconn.proxy.rules import Rule
    from lambda_dbconn.proxy.scanner import Token

    Found = tuple[Rule, str]  # the rule, and the words of the statement that are to be shown: no literal is among them

_RULES = {rule.id: rule for rule in (*POSTGRESQL, *MYSQL)}
_CALLS = {
    engine: {name: rule for rule in rules for name in rule.calls}
    for engine, rules in (("postgresql", POSTGRESQL), ("mysql", MYSQL))
}
_STARTS = {
    engine: sorted(
        ((tuple(start.split()), rule) for rule in rules for start in rule.starts),
        key=lambda item: -len(item[0]),  # the more particular first
    )
    for engine, rules in (("postgresql", POSTGRESQL), ("mysql", MYSQL))
}
_NO_CALL_AFTER = frozenset(("default", "into", "table", "exists", "references", "view", "function", "procedure"))
_SCOPES = frozenset(("global", "persist", "persist_only", "session", "local"))
_OF_THE_SERVER = frozenset(("global", "persist", "persist_only"))
_NEXT_TRANSACTION = frozenset(("transaction_isolation", "transaction_read_only", "tx_isolation", "tx_read_only"))
_NAMES = frozenset(("names", "charset", "character"))
_END: Token = ("", "", 0)


def judge(engine: str, statement: list[Token]) -> Found | None:
    """Return the rule that a statement breaks, with what to show of it; None if it does not pin."""
    start = 0
    while start < len(statement) and statement[start][:2] == (MARK, "("):
        start += 1
    return _mysql(statement[start:]) if engine == "mysql" else _postgresql(statement[start:])


def _postgresql(statement: list[Token]) -> Found | None:
    statement = _explained(statement)
    words = _leading_words(statement)
    if words[:1] == ["create"] and _is_temporary(statement, words):
        return _RULES["postgresql-temporary"], "CREATE TEMPORARY"
    if makes_routine(statement) or words[:2] == ["prepare", "transaction"]:
        return None
    return _by_start("postgresql", statement, words) or _by_call("postgresql", statement) or _into_temporary(statement)


def _explained(statement: list[Token]) -> list[Token]:
    """Return what EXPLAIN explains: whether it is run is not looked at."""
    if not statement or statement[0][:2] != (WORD, "explain"):
        return statement
    start = 1
    if start < len(statement) and statement[start][1] == "(":
        while start < len(statement) and statement[start][1] != ")":
            start += 1
        return statement[start + 1 :]
    while start < len(statement) and statement[start][1] in ("analyze", "analyse", "verbose"):
        start += 1
    return statement[start:]


def _leading_words(statement: list[Token]) -> list[str]:
    words = []
    for kind, text, _ in statement[:5]:
        if kind != WORD:
            break
        words.append(text)
    return words


def _is_temporary(statement: list[Token], words: list[str]) -> bool:
    for word in words[1:]:
        if word in ("temp", "temporary"):
            return True
        if word not in ("or", "replace", "local", "global"):
            break
    for (_, text, _), (_, following, _) in pairwise(statement):
        if text in ("(", "as"):
            break
        if text == "pg_temp" and following == ".":
            return True
    return False


def _into_temporary(statement: list[Token]) -> Found | None:
    """Find SELECT … INTO TEMPORARY name; `INSERT INTO temp` is about a table of that name."""
    before = ""
    for index, (kind, text, _) in enumerate(statement):
        if kind == WORD and text == "into" and before not in ("insert", "merge"):
            rest = [token for token in statement[index + 1 : index + 4] if token[1] not in ("local", "global")]
            if rest and rest[0][:2] in ((WORD, "temp"), (WORD, "temporary")):
                following = rest[1] if len(rest) > 1 else _END
                if following[0] in (WORD, NAME) and following[1] != "from":
                    return _RULES["postgresql-temporary"], "SELECT INTO TEMPORARY"
        before = text
    return None


def _by_start(engine: str, statement: list[Token], words: list[str]) -> Found | None:
    for start, rule in _STARTS[engine]:
        if tuple(words[: len(start)]) == start:
            shown = " ".join(start).upper()
            if engine == "postgresql" and start[0] in ("set", "reset"):
                shown = " ".join((shown, *_setting(statement[len(start) :])))
            return rule, shown
    return None


def _setting(rest: list[Token]) -> list[str]:
    """Return the name of what PostgreSQL's SET sets, if that is what follows."""
    for (kind, name, _), (_, following, _) in pairwise((*rest[:4], _END)):
        if kind in (WORD, NAME) and name != "session" and (following in ("=", "to") or len(rest) == 1):
            return [name]
    return []


def _by_call(engine: str, statement: list[Token]) -> Found | None:
    calls = _CALLS[engine]
    for index, (kind, text, _) in enumerate(statement):
        if text in calls and (kind == WORD or (kind == NAME and engine == "postgresql")):
            following = statement[index + 1] if index + 1 < len(statement) else _END
            if following[1] == "(" and _may_be_call(engine, statement[max(0, index - 2) : index]):
                return calls[text], f"{text}()"
    return None


def _may_be_call(engine: str, before: list[Token]) -> bool:
    """Say whether what stands before a function's name leaves it the server's own function, being called."""
    if not before:
        return True
    if before[-1][1] == ".":  # another schema's function is another function
        return engine == "postgresql" and before[0][1] == "pg_catalog"
    return before[-1][0] != WORD or before[-1][1] not in _NO_CALL_AFTER


def _mysql(statement: list[Token]) -> Found | None:
    if any(kind == EXECUTABLE for kind, _, _ in statement):
        return _RULES["mysql-executable-comment"], "/*! … */"
    if makes_routine(statement):
        return None
    words = _leading_words(statement)
    found = _by_start("mysql", statement, words)
    if found is None and words[:1] == ["set"]:
        found = _set(statement[1:])
    if found is None and words[:1] == ["flush"] and _locks(statement):
        found = _RULES["mysql-lock-tables"], "FLUSH TABLES WITH READ LOCK"
    return found or _by_call("mysql", statement) or _user_variable(statement, words)


def _locks(statement: list[Token]) -> bool:
    words = [text for kind, text, _ in statement if kind == WORD]
    place = words.index("with") if "with" in words else len(words)
    return words[place : place + 3] == ["with", "read", "lock"] and bool({"table", "tables"} & set(words[:place]))


def _user_variable(statement: list[Token], words: list[str]) -> Found | None:
    """Find a user variable that is set elsewhere than in SET; reading one is nothing."""
    before = ""
    for index, (kind, text, _) in enumerate(statement):
        if kind == MARK and text == "@" and index + 1 < len(statement):
            name = statement[index + 1]
            following = statement[index + 2] if index + 2 < len(statement) else _END
            if before == "into" or following[1] == ":=":
                return _RULES["mysql-set-user-variable"], _user_variable_name(name)
            if words[:1] in (["load"], ["get"]):
                return _RULES["mysql-assigns-user-variable"], _user_variable_name(name)
        before = text
    return None


def _user_variable_name(token: Token) -> str:
    return f"@{token[1]}" if token[0] == WORD else "@…"


def _set(rest: list[Token]) -> Found | None:
    """Judge each assignment of MySQL's SET."""
    if rest[:1] and rest[0][:2] == (WORD, "password"):
        return None
    if [text for _, text, _ in rest[:2]] in (["default", "role"], ["session", "transaction"], ["local", "transaction"]):
        return None  # commas in them separate no assignments
    for assignment in _assignments(rest):
        found = _assigned(assignment)
        if found is not None:
            return found
    return None


def _assignments(rest: list[Token]) -> Iterator[list[Token]]:
    depth = 0
    current: list[Token] = []
    for token in rest:
        if token[0] == MARK:
            depth += (token[1] == "(") - (token[1] == ")")
            if token[1] == "," and depth <= 0:
                yield current
                current = []
                continue
        current.append(token)
    yield current


def _assigned(assignment: list[Token]) -> Found | None:
    """Judge `[scope] name = value`, `@@[scope.]name = value`, `@name = value`, NAMES or CHARACTER SET."""
    if assignment and assignment[0][:2] == (MARK, "@"):
        return _RULES["mysql-set-user-variable"], f"SET {_user_variable_name((*assignment, _END)[1])}"
    is_marked, scope, name = _variable(assignment)
    if scope in _OF_THE_SERVER:
        return _RULES["mysql-set-global"], f"SET {scope.upper()} {name}"
    if is_marked and not scope and name in _NEXT_TRANSACTION:
        return _RULES["mysql-next-transaction-variable"], f"SET @@{name}"
    is_tracked = (
        name in MYSQL_TRACKED
        or scope == "local"  # [P]: SET LOCAL does not pin, though to the server it is SET SESSION
        or (name in _NAMES and not scope and not is_marked)
    )
    return None if is_tracked else (_RULES["mysql-set-variable"], f"SET {name}")


def _variable(assignment: list[Token]) -> tuple[bool, str, str]:
    """Return whether a name is written with @@, its scope, and the name, or NAMES and the like."""
    rest = assignment[:5]
    is_marked = bool(rest) and rest[0][:2] == (MARK, "@@")
    rest = rest[is_marked:]
    scope = ""
    if rest and rest[0][1] in _SCOPES and (not is_marked or [text for _, text, _ in rest[1:2]] == ["."]):
        scope = rest[0][1]
        rest = rest[1 + is_marked :]
    return is_marked, scope, rest[0][1].lower() if rest and rest[0][0] in (WORD, NAME) else "…"


def changes(statement: list[Token]) -> Iterator[str]:
    """Yield what a MySQL statement that does not pin changes in the session, as `pinning.tracked` names it."""
    words = _leading_words(statement)
    if words[:1] == ["use"] or words[:2] in (["drop", "database"], ["drop", "schema"]):
        yield "database"
    elif words[:3] in (["set", "session", "transaction"], ["set", "local", "transaction"]):
        yield "transaction"
    elif words[:1] == ["set"]:
        for assignment in _assignments(statement[1:]):
            is_marked, scope, name = _variable(assignment)
            if name in _NAMES and not scope and not is_marked:
                yield "names"
            elif scope == "local" or (name in MYSQL_TRACKED and scope not in _OF_THE_SERVER):
                yield name


def outline(statement: list[Token]) -> str:
    """Return what makes two statements the same, beside the words that are shown: all of it but what varies.

    Of SET that is the value, be it a literal or a name; of DECLARE the cursor's name, which many make up each time.
    """
    first = statement[0][1] if statement else ""
    statement = {"set": [], "declare": statement[2:]}.get(first, statement)
    return " ".join("?" if kind in (STRING, NUMBER, EXECUTABLE) else text for kind, text, _ in statement)
