"""How a diagnosis is shown to people."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from lambda_dbconn.cli.doctor.showing import show
from lambda_dbconn.doctor.report import Cause, Diagnosis, Step
from tests.support.command_line import run

STEPS = (
    Step(name="dns", status="passed", duration_ms=1.25, found="10.0.0.1", notes=("it is [bold]old[/bold]",)),
    Step(
        name="tcp",
        status="failed",
        duration_ms=1000.0,
        found="port 5432: [10.0.0.1] no answer",
        causes=(Cause(cause="closed", fix="Open it."), Cause(cause="down", fix="Start it.")),
    ),
    Step(name="tls", status="skipped", duration_ms=0.0, found="tcp failed"),
)


def shown(diagnosis: Diagnosis, *, is_terminal: bool = False, width: int = 100) -> str:
    console = Console(
        file=io.StringIO(), width=width, force_terminal=is_terminal, color_system="standard" if is_terminal else None
    )
    show(diagnosis, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_failure_is_a_table_and_what_to_do() -> None:
    text = shown(Diagnosis(endpoint="db:5432", steps=STEPS))
    lines = [line.rstrip() for line in text.splitlines()]
    assert lines[:4] == [
        "Step  Status       ms  Found",
        "dns   passed      1.2  10.0.0.1",
        "tcp   failed   1000.0  port 5432: [10.0.0.1] no answer",
        "tls   skipped          tcp failed",
    ]
    assert "Note on dns: it is [bold]old[/bold]" in lines  # what servers say is no markup
    assert lines[-6:] == ["  1. closed", "     Open it.", "  2. down", "     Start it.", "", "Not well: tcp."]


def test_what_is_well_says_so() -> None:
    assert shown(Diagnosis(endpoint="db:5432", steps=STEPS[:1])).endswith("All is well.\n")


def test_what_was_cut_short_is_not_well() -> None:
    skipped = Step(name="tls", status="skipped", duration_ms=0.0, found="no time was left")
    assert shown(Diagnosis(endpoint="", steps=(STEPS[0], skipped))).endswith("Not well: not finished.\n")


def test_there_are_colours_on_a_terminal_and_nowhere_else() -> None:
    diagnosis = Diagnosis(endpoint="db:5432", steps=STEPS)
    assert "\x1b[" not in shown(diagnosis)
    assert "\x1b[1;31mfailed" in shown(diagnosis, is_terminal=True)


def test_a_narrow_terminal_loses_nothing() -> None:
    text = "".join(shown(Diagnosis(endpoint="db:5432", steps=STEPS), width=40).split())
    assert "port5432:[10.0.0.1]noanswer" in text


@pytest.mark.parametrize("arguments", [["--prefix", "no-prefix"], ["--timeout", "0"]])
def test_a_wrong_option_is_one_line(arguments: list[str]) -> None:
    result = run("doctor", *arguments)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert arguments[0] in result.stderr


def test_what_a_server_says_does_not_move_the_terminals_cursor() -> None:
    hostile = "\x1b[2J\x1b]0;title\x07\u202egnorw"
    cause = Cause(cause=hostile, fix=hostile)
    step = Step(name="login", status="failed", duration_ms=1.0, found=hostile, notes=(hostile,), causes=(cause,))
    text = shown(Diagnosis(endpoint="db:5432", steps=(step,)), width=200)
    assert [line for line in text.splitlines() if not line.isprintable()] == []
    assert text.count(r"\x1b[2J") == 4
