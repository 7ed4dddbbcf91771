"""`lambda-dbconn pins`: which texts of a program are SQL, which of them pin, and what is said of them."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from inspect import signature
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from lambda_dbconn.cli.group import CommandGroup
from lambda_dbconn.cli.pins.report import _SOURCES
from lambda_dbconn.cli.pins.search import search
from lambda_dbconn.cli.pins.sources import UnreadableError
from lambda_dbconn.proxy.rules import RULES
from tests.unit.test_pinning_labelled import SET

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.once

SENT = "cur.execute({!r})"
UNSENT = "x = {!r}"
# What is not found: no evidence, no whole statement, or not known here.
MISSED = {SENT: {"postgresql": 1, "mysql": 0}, UNSENT: {"postgresql": 7, "mysql": 5}}


def run(*arguments: str, given: str | bytes | None = None) -> tuple[int, str, str]:
    # Before click 8.2 the two outputs are one, unless told otherwise.
    options: dict[str, Any] = {} if "mix_stderr" not in signature(CliRunner).parameters else {"mix_stderr": False}
    result = CliRunner(**options).invoke(
        CommandGroup.default(), ["pins", *arguments], input=given, prog_name="lambda-dbconn"
    )
    return result.exit_code, result.stdout, result.stderr


def lines_of(source: str, engine: str = "postgresql") -> list[int]:
    return [found.line for found in search(engine, "python", source)]


@pytest.mark.parametrize("engine", ["postgresql", "mysql"])
@pytest.mark.parametrize("code", [SENT, UNSENT])
def test_the_labelled_statements_are_found_in_code_and_nothing_else_is(code: str, engine: str) -> None:
    missed = 0
    for item in SET:
        if item.engine == engine and item.label != "?":
            rules = [found.rule.id for found in search(engine, "python", code.format(item.statement))]
            if item.label == "-":
                assert rules == [], item.statement
            else:
                missed += item.label not in rules
    assert missed == MISSED[code][engine]


@pytest.mark.parametrize("engine", ["postgresql", "mysql"])
@pytest.mark.parametrize(
    "prose",
    [
        "Set the value",
        "Set debug to true",
        "set timeout = 5",
        "Reset password",
        "Load more",
        "LISTEN",
        "SET",
        "Listen on a port",
        "Execute the command; SET x = 1",
        "Call nextval to get the next number",
        "Prepare the data",
        "SET x TO the value of the option",
        "/*! normalize.css v8 */",
        "SET price = 1 WHERE id = 2",
        "declare victory",
    ],
)
def test_prose_is_not_reported(prose: str, engine: str) -> None:
    assert lines_of(UNSENT.format(prose), engine) == []


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ('cur.execute("listen jobs")', [1]),
        ('q = "listen jobs"\ncur.execute(q)', [1]),
        ('cur.execute("SET x " \n "TO 1")', [1]),
        ('cur.execute("SET search_path TO " + schema)', [1]),
        ('cur.execute(f"""\n  SELECT 1;\n  SET x = {y}\n""")', [3]),
        ('cur.execute("""\\\nSELECT 1;\nSET x = 1""")', [3]),
        ('cur.execute(sql.SQL("SET {} TO {}").format(a, b))', [1]),
        ('conn.execute(text("reset all"))', [1]),
        ('cur.execute(b"reset all")', [1]),
        ('run_query = ["listen a", "listen b"]', [1, 1]),
        ('f(sql="listen a")', [1]),
        ('"SET x TO 1"', []),
        ('def f():\n    "LISTEN jobs"', []),
        ('x = "listen jobs"', []),
        ('x = "SET {} = {}"', []),
        ('cur.execute("LISTEN a")  # lambda-dbconn: allow-pin\ncur.execute("LISTEN b")', [2]),
        ('cur.execute("""\nLISTEN a\n""")  # lambda-dbconn: allow-pin', []),
    ],
)
def test_the_texts_of_a_program(source: str, lines: list[int]) -> None:
    assert lines_of(source) == lines


def test_of_mysqls_variables_one_whose_name_is_not_known_is_left_alone() -> None:
    assert lines_of('cur.execute(f"SET {name} = 1")', "mysql") == []
    assert lines_of('cur.execute(f"SET foreign_key_checks = {value}")', "mysql") == [1]


@pytest.mark.parametrize("source", ["(" * 10_000, "x = " + "-" * 100_000 + "1", "x = (", 'x = "\0"'])
def test_what_is_no_python_is_said(source: str) -> None:
    with pytest.raises(UnreadableError):
        lines_of(source)


def test_what_is_nested_too_deeply_for_a_python_is_said_and_what_is_not_is_read() -> None:
    source = "x = " + "+".join(['"a"'] * 50_000)  # from 3.14 on it is a question of the stack's size
    with suppress(UnreadableError):
        assert lines_of(source) == []


@pytest.mark.parametrize("piece", ["(", ";", "{a}", "SET x = 1;", "a,", "{", "%("])
def test_long_texts_are_looked_at_to_their_end(piece: str) -> None:
    lines_of(SENT.format("SET x TO " + piece * 5_000))


def test_a_statement_is_a_line_and_the_exit_code_says_that_there_is_one(tmp_path: Path) -> None:
    (tmp_path / "a.sql").write_text("select 1;\nLISTEN jobs;\nLISTEN more; -- lambda-dbconn: allow-pin\n")
    (tmp_path / "b.py").write_text("x = 1\n")
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "c.sql").write_text("LISTEN jobs")
    code, output, notes = run("--engine", "postgresql", str(tmp_path))
    assert code == 1
    assert output.startswith(f"{tmp_path}/a.sql:2: LISTEN: notifications come to")
    assert output.endswith("NOTIFY does not pin.)\n")
    assert output.count("\n") == 1
    assert notes == "statements that pin: 1, files: 2, not readable: 0\n"
    assert run("--engine", "postgresql", str(tmp_path / "b.py"))[:2] == (0, "")


def test_what_cannot_be_read_is_a_line_and_the_rest_is_looked_at(tmp_path: Path) -> None:
    (tmp_path / "a.sql").write_bytes(b"\xff\xfe")
    (tmp_path / "b.py").write_text("x = 1\nx = (\n")
    (tmp_path / "c.py").write_text("# coding: no-such\n")
    (tmp_path / "d.sql").write_text("LISTEN x")
    os.mkfifo(tmp_path / "e.sql")
    code, output, notes = run("--engine", "postgresql", str(tmp_path))
    assert (code, output.count("\n")) == (2, 1)
    assert "a.sql: is not in UTF-8\n" in notes
    assert "b.py:2: is not Python: " in notes
    assert "c.py: unknown encoding" in notes
    assert "e.sql: is no regular file" in notes
    assert notes.endswith("not readable: 4\n")


def test_standard_input_and_odd_names(tmp_path: Path) -> None:
    assert run("--engine", "mysql", "--as", "sql", "-", given="SET @a = 1")[1].startswith("<stdin>:1: SET @a: ")
    assert run("--engine", "mysql", "-", given="")[0] == 2
    odd = tmp_path / "a\nb.sql"
    odd.write_text("SET @a = 1")
    assert run("--engine", "mysql", str(odd))[1].count("\n") == 1


@pytest.mark.parametrize(
    "arguments", [["--engine", "mysql"], ["a.sql"], ["--engine", "mysql", "no-such.sql"], ["--explain", "SET @a = 1"]]
)
def test_a_wrong_call_is_exit_code_2(arguments: list[str]) -> None:
    code, output, notes = run(*arguments)
    assert (code, output, notes.count("\n")) == (2, "", 1)


def test_one_statement_is_explained() -> None:
    code, output, _ = run("--engine", "postgresql", "--explain", "SET search_path TO x")
    assert code == 1
    assert [line.partition(":")[0] for line in output.splitlines()] == ["verdict", "rule", "reason", "fix", "source"]
    assert "postgresql-set (documented)" in output
    assert run("--engine", "postgresql", "--explain", "select 1")[0] == 0


def test_every_rules_source_can_be_named() -> None:
    assert {rule.source for rule in RULES} <= set(_SOURCES)


def test_the_module_is_the_command(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text('cur.execute("SET x TO 1")\n')
    command = [sys.executable, "-m", "lambda_dbconn", "pins", "--engine", "postgresql", str(tmp_path / "a.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1, done.stderr
    assert done.stdout.startswith(f"{tmp_path}/a.py:1: SET x: ")
