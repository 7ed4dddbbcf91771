"""What the examination asks a server, and what it makes of the answers of servers that are not here."""

from __future__ import annotations

from typing import Any

import pytest

from lambda_dbconn.doctor import server as steps
from lambda_dbconn.doctor.report import StepFailedError
from lambda_dbconn.proxy import pin
from tests.unit.conftest import INSTANCE, PROXY, READER, local

WRITER = "mydb.cluster-c7tj4example.us-east-1.rds.amazonaws.com"
REMOTE = {"auth": "iam", "sslmode": "verify-full"}


class Answering:
    """A connection, and a cursor, whose every answer is the same."""

    def __init__(self, *rows: tuple[Any, ...]) -> None:
        self._rows = rows

    def cursor(self) -> Answering:
        return self

    def execute(self, _statement: str) -> None:
        """Take it."""

    def fetchall(self) -> tuple[tuple[Any, ...], ...]:
        return self._rows

    def close(self) -> None:
        """Be over."""


@pytest.mark.parametrize("engine", ["postgresql", "mysql"])
def test_no_statement_of_the_examination_pins(engine: str) -> None:
    assert [text for text in steps.STATEMENTS[engine].values() if pin(engine, text)] == []


def test_aurora_says_so() -> None:
    found = steps.version(local(), Answering(("PostgreSQL 16.4 on aarch64-unknown-linux-gnu, compiled by", True)))
    assert found.found == "PostgreSQL 16.4, Aurora"
    assert found.facts == {"engine": "postgresql", "version": "16.4", "is_aurora": True}
    rows = ("version", "8.0.39"), ("version_comment", "Source distribution"), ("aurora_version", "3.08.0")
    found = steps.version(local(engine="mysql"), Answering(*rows))
    assert found.found == "MySQL 8.0.39 (Source distribution), Aurora 3.08.0"


@pytest.mark.parametrize(
    ("engine", "rows"),
    [
        ("postgresql", [(True, "off")]),
        ("postgresql", [(False, "on")]),
        ("mysql", [("read_only", "OFF"), ("innodb_read_only", "ON")]),
        ("mysql", [("read_only", "ON")]),
        ("mysql", [("transaction_read_only", "1")]),
    ],
)
def test_a_reader_is_known_by_any_of_its_signs(engine: str, rows: list[tuple[Any, ...]]) -> None:
    found = steps.role(local(engine=engine, host=READER, **REMOTE), Answering(*rows))
    assert (found.found, found.notes) == ("reader", ())
    with pytest.raises(StepFailedError, match="though the endpoint is a writer's"):
        steps.role(local(engine=engine, host=WRITER, **REMOTE), Answering(*rows))


def test_a_writer_at_a_readers_endpoint_is_noted() -> None:
    found = steps.role(local(host=READER, **REMOTE), Answering((False, "off")))
    assert found.found == "writer"
    assert "no reader" in found.notes[0]


def test_an_instance_may_be_either() -> None:
    assert steps.role(local(host=INSTANCE, **REMOTE), Answering((True, "on"))).found == "reader"
    assert steps.role(local(host=INSTANCE, **REMOTE), Answering((False, "off"))).notes == ()


@pytest.mark.parametrize("reset", ["always", "never"])
@pytest.mark.parametrize(
    ("on_pin", "words"),
    [(None, "told of"), ("raise", "refused before it is sent"), ("ignore", "nothing is told")],
)
def test_what_is_done_about_pins_is_said_where_there_is_a_proxy(on_pin: str | None, words: str, reset: str) -> None:
    found = steps.pinning(local(host=PROXY, on_pin=on_pin, reset=reset, **REMOTE))
    assert words in found.found
    assert ("dropped" in found.found) == (on_pin != "raise" and reset == "always")
    assert "postgresql-set" in found.facts["would_pin"]
    assert not [rule for rule in found.facts["would_pin"] if rule.startswith("mysql")]
    assert bool(found.notes) == (on_pin != "raise" and reset == "never")


def test_without_a_proxy_nothing_pins() -> None:
    assert steps.pinning(local(host=INSTANCE, **REMOTE)).found.startswith("nothing")
