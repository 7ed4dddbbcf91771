"""Which statements pin, and that the scanner cuts them as the servers do: any text, in linear time."""

from __future__ import annotations

import re
import re._parser as parser  # type: ignore[import-not-found] # the standard library's, without stubs
import sys
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambda_dbconn import proxy
from lambda_dbconn.proxy import find, pin
from lambda_dbconn.proxy import statements as splitting
from lambda_dbconn.proxy.rules import RULES, TOO_LONG, table
from lambda_dbconn.proxy.scanner import _COMMENT_ENDS, _MYSQL, _POSTGRESQL, tokens
from tests.unit.conftest import in_fresh_process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lambda_dbconn.proxy.scanner import Token

ENGINES = st.sampled_from(("postgresql", "mysql"))
# Pieces that begin, end and nest what a lexer is in, and words of the rules.
PIECES = st.sampled_from(
    [
        *(
            "'",
            '"',
            "`",
            "\\",
            "/*",
            "*/",
            "/*!",
            "/*M!",
            "--",
            "-- ",
            "#",
            "\n",
            "$$",
            "$a$",
            "$",
            "E'",
            "@",
            "@@",
            ":=",
        ),
        *(
            ";",
            "(",
            ")",
            ",",
            ".",
            "=",
            " ",
            "set",
            "select",
            "into",
            "temp",
            "create",
            "function",
            "begin",
            "end",
            "case",
        ),
        *("if", "nextval", "get_lock", "explain", "names", "session", "transaction", "x", "1", "\x00", "é", "\ud800"),
        *("delimiter ", "\\.\n", "copy t from stdin;", "pg_temp", "prepare", "lock tables", "definer"),
    ]
)
TEXTS = st.one_of(st.text(), st.lists(PIECES, max_size=60).map("".join), st.lists(PIECES, max_size=60).map(" ".join))


def rule_of(engine: str, text: str | bytes) -> str | None:
    found = pin(engine, text)
    return None if found is None else found.rule.id


# --- the scanner


@pytest.mark.parametrize(
    ("engine", "text", "expected"),
    [
        ("postgresql", "a 'it''s' b", ["a", "'it'", "'s'", "b"]),
        ("postgresql", r"'\' x", [r"'\'", "x"]),  # no escape without E
        ("postgresql", r"E'\' x' y", [r"E'\' x'", "y"]),
        ("postgresql", "$$ a; ' $$ b $f$ $$ $f$ c", ["$$ a; ' $$", "b", "$f$ $$ $f$", "c"]),
        ("postgresql", "a$b$c $1", ["a$b$c", "$", "1"]),
        ("postgresql", "1 /* a /* b */ c */ 2 -- d\n3", ["1", "2", "3"]),
        ("postgresql", '"A""b" C', ['A"b', "c"]),
        ("postgresql", "1 -- x\r2 # 3", ["1", "2", "#", "3"]),
        ("mysql", r"'a\'b''c' \"", [r"'a\'b''c'", "\\", '"']),
        ("mysql", '"a""b" `c``d`', ['"a""b"', "c`d"]),
        ("mysql", "1 /* a /* b */ 2 # c\n3 --4 -- 5", ["1", "2", "3", "-", "-", "4"]),
        ("mysql", "1 /*! 2 */ 3 /*M!9 4*/", ["1", "/*! 2 */", "3", "/*M!9 4*/"]),
        ("mysql", "@a:=@@b.c", ["@", "a", ":=", "@@", "b", ".", "c"]),
        ("mysql", "$$a$$", ["$", "$", "a$$"]),
    ],
)
def test_a_text_is_cut_as_the_server_cuts_it(engine: str, text: str, expected: list[str]) -> None:
    assert [token for _, token, _ in tokens(engine, text)] == expected


@pytest.mark.parametrize(
    "text", ["'a", 'x "b', "/* c /* d */", "$$ e", "$f$ g $$", r"E'\'", "`h", "-- i", "/*! j", "\\"]
)
@pytest.mark.parametrize("engine", ["postgresql", "mysql"])
def test_what_is_never_closed_goes_on_to_the_end(engine: str, text: str) -> None:
    assert all(place < len(text) for _, _, place in tokens(engine, text))
    assert rule_of(engine, text) is None or "/*!" in text


@pytest.mark.parametrize(
    "pattern",
    [_POSTGRESQL, _MYSQL, _COMMENT_ENDS, splitting._DELIMITER, splitting._META_COMMAND, splitting._END_OF_DATA],
)
def test_no_pattern_can_backtrack(pattern: re.Pattern[str]) -> None:
    """All that repeats is possessive; `?` may give back its one character."""
    assert [most for most in given_back(parser.parse(pattern.pattern, pattern.flags)) if most > 1] == []


def given_back(parsed: Any) -> Iterator[int]:
    """Yield the upper bound of each repetition that can give back what it took."""
    for operation, argument in parsed:
        if str(operation) in ("MAX_REPEAT", "MIN_REPEAT"):
            yield int(argument[1])
        for part in argument if isinstance(argument, (tuple, list)) else (argument,):
            for inner in part if isinstance(part, list) else (part,):
                if isinstance(inner, parser.SubPattern):
                    yield from given_back(inner)


@given(ENGINES, TEXTS)
def test_tokens_come_in_order_and_stand_where_they_say(engine: str, text: str) -> None:
    end = 0
    for kind, token, place in tokens(engine, text):
        assert end <= place < len(text)
        if kind not in ("word", "name"):
            assert text[place:].startswith(token)
            end = place + len(token)


# --- hostile input


@given(ENGINES, TEXTS)
def test_any_text_has_a_verdict(engine: str, text: str) -> None:
    found = pin(engine, text)
    assert found is None or found.rule in RULES
    sendable = text.encode(errors="ignore")  # lone surrogates cannot be sent
    assert (pin(engine, sendable) is None) == (pin(engine, sendable.decode()) is None)
    for each in find(engine, text):
        assert 1 <= each.line <= text.count("\n") + 1


@given(ENGINES, TEXTS)
def test_the_glance_and_the_rules_agree(engine: str, text: str) -> None:
    """A text that is harmless at a glance has no pin in it."""
    found = pin(engine, text)
    with mock.patch.object(proxy, "is_harmless", return_value=False):
        looked_at = pin(engine, text)
    assert found == looked_at


SEEDS = [
    "'", '"', "`", "/*", "*/", "/*!", "$a$", "$a", "$$", "E'\\", "--", "-- \n", "#", ";", "(", "set @a = 1;", "a ",
    "@a:=1,", "create function ", "function ", "begin ", "end case ", "explain ", "explain (", "set x=(",
    "select into ", "\\x\n", "copy t from stdin;\n", "delimiter //\n", "nextval.", "\\.\n", "é", "1",
]  # fmt: skip


@pytest.mark.once
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("engine", ["postgresql", "mysql"])
@pytest.mark.parametrize("split", [splitting.statements, splitting.script])
def test_twice_the_text_is_twice_the_work(
    engine: str, seed: str, split: Callable[[str, str], Iterator[list[Token]]]
) -> None:
    """Work is counted in lines of the package that are run; what a pattern does in one step is bounded above."""
    few, many = (
        lines_run(lambda text=seed * times: list(proxy._judged(engine, text, split(engine, text))))  # type: ignore[misc]
        for times in (500, 1000)
    )
    assert many <= 2.2 * few + 100


def lines_run(function: Callable[[], object]) -> int:
    count = 0

    def trace(frame: Any, event: str, _argument: object) -> Any:
        nonlocal count
        if "pinning" not in frame.f_code.co_filename:
            return None
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        function()
    finally:
        sys.settrace(before)
    return count


# --- texts and sizes


@pytest.mark.parametrize("engine", ["postgresql", "mysql"])
def test_only_what_is_longer_than_16_kb_is_too_long(engine: str) -> None:
    text = "select '" + "x" * (16 * 1024 - 9) + "'"
    assert len(text) == 16 * 1024
    assert pin(engine, text) is None
    for longer in (text + " ", (text + " ").encode(), text[:-2] + "é'"):
        found = pin(engine, longer)
        assert found is not None
        assert (found.rule, found.shown) == (TOO_LONG, "SELECT")


def test_a_table_named_like_a_routine_does_not_hide_what_follows() -> None:
    found = pin("mysql", "CREATE TABLE event (begin int); SET @a = 1")
    assert found is not None
    assert found.shown == "SET @a"


def test_every_statement_of_a_text_is_looked_at() -> None:
    found = pin("postgresql", "select 1;\n\nselect 2; set\n a = 1")
    assert found is not None
    assert (found.rule.id, found.line) == ("postgresql-set", 3)


def test_what_is_shown_has_no_literal_in_it() -> None:
    secret = "hunter2"
    for engine, text in [
        ("mysql", f"SET @a = '{secret}'"),
        ("mysql", f"SET @'{secret}' = 1"),
        ("mysql", f"SET @a = 1, x = {secret!r}"),
        ("mysql", f"PREPARE s FROM '{secret}'"),
        ("mysql", f"SELECT 1 /*! {secret} */"),
        ("mysql", f"SET {secret!r} = 1"),
        ("mysql", f"INSERT INTO t VALUES ('{secret * 5000}')"),
        ("postgresql", f"SET x TO '{secret}'"),
        ("postgresql", f"SET ROLE '{secret}'"),
        ("postgresql", f"SET SESSION AUTHORIZATION {secret}"),
        ("postgresql", f"SELECT set_config('a', '{secret}', false)"),
        ("postgresql", f"EXECUTE s('{secret}')"),
    ]:
        found = pin(engine, text)
        assert found is not None
        assert secret not in f"{found!r} {found}"


def test_a_fingerprint_is_of_the_statement_without_its_literals() -> None:
    assert fingerprint("SELECT 1, get_lock('a', 2)") == fingerprint("select 3 /* x */ , get_lock ('b',4)")
    assert fingerprint("SELECT get_lock('a', 1)") != fingerprint("SELECT get_lock('a', 1), 2")


def test_values_of_set_and_names_of_cursors_are_not_part_of_a_fingerprint() -> None:
    assert fingerprint("SET @a = 1") == fingerprint("set @a = b + 2") != fingerprint("SET @b = 1")
    assert fingerprint('DECLARE "c_1" CURSOR FOR SELECT 1', "postgresql") == fingerprint(
        'DECLARE "c_2" CURSOR FOR SELECT 2', "postgresql"
    )
    assert fingerprint("DECLARE c CURSOR FOR SELECT a", "postgresql") != fingerprint(
        "DECLARE c CURSOR FOR SELECT b", "postgresql"
    )


def fingerprint(text: str, engine: str = "mysql") -> str:
    found = pin(engine, text)
    assert found is not None
    return found.fingerprint


@pytest.mark.parametrize(
    ("engine", "text", "shown"),
    [
        ("postgresql", "SET SESSION search_path TO a", "SET search_path"),
        ("postgresql", "RESET timezone", "RESET timezone"),
        ("postgresql", "set local a = 1", "SET LOCAL a"),
        ("postgresql", "SELECT pg_catalog.nextval('s')", "nextval()"),
        ("postgresql", 'DECLARE "c" CURSOR FOR SELECT 1', "DECLARE"),
        ("mysql", "SET GLOBAL a = 1", "SET GLOBAL a"),
        ("mysql", "set session max_execution_time = 1", "SET max_execution_time"),
        ("mysql", "SELECT 1 INTO @b", "@b"),
    ],
)
def test_what_is_shown_names_the_words_that_pin(engine: str, text: str, shown: str) -> None:
    found = pin(engine, text)
    assert found is not None
    assert found.shown == shown
    assert str(found) == f"{shown}: {found.rule.reason}"


@pytest.mark.parametrize(
    ("engine", "text"),
    [
        ("postgresql", "SELECT app.nextval('x'), nextval"),
        ("postgresql", "INSERT INTO nextval (a) VALUES (1)"),
        ("postgresql", "DROP FUNCTION nextval(text)"),
        ("postgresql", "SELECT * INTO temp FROM t"),
        ("postgresql", "MERGE INTO temp AS t USING s ON t.a = s.a WHEN MATCHED THEN DO NOTHING"),
        ("postgresql", "CREATE TABLE event (begin int); SELECT 1"),
        ("mysql", "SELECT db.get_lock('x', 1), `get_lock`"),
        ("mysql", "CREATE FUNCTION get_lock(a int) RETURNS int RETURN 1"),
    ],
)
def test_another_thing_of_the_same_name_is_another_thing(engine: str, text: str) -> None:
    assert pin(engine, text) is None


# --- scripts


def test_a_mysql_script_is_read_as_the_client_reads_it() -> None:
    text = """-- a script
DELIMITER //
CREATE PROCEDURE p() BEGIN SET @in_body = 1; SET @in_body = 2; END//
SET @between = 1//
delimiter ;
SELECT 1;
LOCK TABLES t WRITE;
"""
    assert [(found.shown, found.line) for found in find("mysql", text)] == [("SET @between", 4), ("LOCK TABLES", 7)]


def test_a_postgresql_script_is_read_as_the_client_reads_it() -> None:
    text = r"""\restrict it's a token
SET a = 1;
COPY t (x) FROM stdin;
it's	set b = 1;
\.

COPY u FROM stdin;
\.
CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2);
CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC; SELECT nextval('s'); SELECT 2; END;
LISTEN x
"""
    assert [(found.shown, found.line) for found in find("postgresql", text)] == [("SET a", 2), ("LISTEN", 11)]


def test_a_long_statement_of_a_script_is_found() -> None:
    text = "SELECT 1;\nINSERT INTO t VALUES ('" + "x" * 17000 + "');\nSELECT 2;"
    assert [(found.rule, found.line) for found in find("mysql", text)] == [(TOO_LONG, 2)]


# --- the rules


def test_ids_are_unique_and_every_rule_says_why_and_what_instead() -> None:
    assert len({rule.id for rule in RULES}) == len(RULES)
    for rule in RULES:
        assert rule.source in "PAB"
        assert rule.basis in ("documented", "inferred", "unverified")
        assert rule.fix.endswith(".")
        assert not rule.reason.endswith(".")
        assert f"`{rule.id}`" in table()


def test_a_harmless_statement_imports_no_rules() -> None:
    code = (
        "import sys; from lambda_dbconn.proxy import pin; pin('mysql', 'select 1'); "
        "print([name for name in sys.modules if name.startswith('lambda_dbconn.proxy.')])"
    )
    assert in_fresh_process(code).strip() == "[]"


# --- what is tracked


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("SET time_zone = 'UTC'", {"time_zone"}),
        ("/* shop */ set @@session.`sql_mode` = ''", {"sql_mode"}),
        (
            "SET SESSION time_zone = 'UTC', sql_mode = CONCAT(@@sql_mode, ',ANSI'), autocommit = 1",
            {"time_zone", "sql_mode"},
        ),
        ("SET @@time_zone := 'UTC'", {"time_zone"}),
        ("SET LOCAL lock_wait_timeout = 7", {"lock_wait_timeout"}),
        ("SET NAMES latin1", {"names"}),
        ("SET CHARACTER SET latin1", {"names"}),
        ("SET NAMES utf8mb4, time_zone = 'UTC'", {"names", "time_zone"}),
        ("SET SESSION TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ ONLY", {"transaction"}),
        ("USE other", {"database"}),
        (b"-- why\nuse other;", {"database"}),
        ("DROP DATABASE other", {"database"}),
        ("drop schema if exists other", {"database"}),
        ("SELECT 1; SET time_zone = 'UTC'", {"time_zone"}),
        ("SET autocommit = 0", set()),
        ("SET GLOBAL time_zone = 'UTC'", set()),
        ("SET PASSWORD = 'time_zone'", set()),
        ("DROP TABLE other", set()),
        ("SELECT 'SET time_zone'", set()),
        ("INSERT INTO t VALUES ('; set time_zone = 1')", set()),
        ("", set()),
    ],
)
def test_what_rds_proxy_tracks_is_named(text: str | bytes, names: set[str]) -> None:
    assert proxy.tracked("mysql", text) == names
    assert proxy.tracked("postgresql", text) == set()
