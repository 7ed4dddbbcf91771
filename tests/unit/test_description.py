"""What a manager says of itself."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import pytest

from lambda_dbconn import ConnectionManager, Credentials, Secret, Settings
from tests.unit.conftest import CANARY, INSTANCE, PROXY, READER, local

if TYPE_CHECKING:
    from lambda_dbconn.describe import Description


def describe(credentials: Any = None, **given: Any) -> Description:
    manager: ConnectionManager[Any] = ConnectionManager(
        Settings(**{"engine": "postgresql", "port": 5432, "user": "app", "name": "shop", **given}),
        driver=object(),  # type: ignore[arg-type] # nothing is to be asked of it
        credentials=credentials,
    )
    return manager.describe()


@pytest.fixture(autouse=True)
def _without_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: pytest.fail("the network is asked"))


def test_behind_a_proxy_it_says_what_is_off_and_why() -> None:
    said = describe(host=PROXY, auth="iam", reader_host=READER, reader_fallback="writer")
    assert said.endpoint == f"{PROXY}:5432 (RDS Proxy endpoint), database shop"
    assert said.login == "as app with an IAM token, signed anew for each connection"
    assert f"the name {PROXY}" in said.tls
    assert said.reader == f"{READER}, and {PROXY} while that cannot be reached"
    assert [line.split(":")[0] for line in said.switched_off] == [
        "named prepared statements",
        "protocol versions above 3.0",
        "PGOPTIONS and the like",
    ]
    assert all(line.split(": ")[1] for line in said.switched_off)


@pytest.mark.parametrize(("reader_fallback", "is_said"), [("writer", True), ("none", False)])
def test_a_reader_says_where_it_reads_while_it_cannot_be_reached(reader_fallback: str, *, is_said: bool) -> None:
    manager: ConnectionManager[Any] = ConnectionManager(
        local(reader_host="127.0.0.2", reader_fallback=reader_fallback),
        driver=object(),  # type: ignore[arg-type] # nothing is to be asked of it
    )
    said = manager.reader.describe()
    words = f"{manager.settings.address} while it cannot be reached"
    assert (words in said.reader) is is_said
    assert (f"and as long at {manager.settings.address}" in said.limits[0]) is is_said


def test_mysql_behind_a_proxy_sends_no_large_statements() -> None:
    said = describe(engine="mysql", host=PROXY, auth="iam", port=3306)
    assert [line.split(":")[0] for line in said.switched_off] == [
        "executemany statements over 16,000 bytes",
        "isolation levels for the next transaction only",
    ]
    assert describe(engine="mysql", host="localhost", sslmode="disable").switched_off == said.switched_off[1:]


def test_an_alias_is_what_stands_behind_it() -> None:
    said = describe(host="localhost", signing_host=PROXY, auth="iam")
    assert said.endpoint == f"localhost:5432 (other host, in truth {PROXY}, an RDS Proxy endpoint), database shop"
    assert len(said.switched_off) == 3


def test_the_limits_are_those_of_the_settings() -> None:
    limits = " / ".join(describe(**vars(local(max_lifetime_s=77, max_idle_s=66, reserve_s=1.5))).limits)
    for words in ("5 s at most", "1.5 s of the invocation", "idle for 30 s is pinged", "66 s is replaced", "77 s"):
        assert words in limits


@pytest.mark.parametrize(
    ("given", "credentials", "login"),
    [
        ({"password": Secret(CANARY)}, None, "as app with the password of the settings, if there is one"),
        ({"auth": "secret", "secret_id": "orders/db"}, None, "with the secret orders/db, read when"),
        ({}, lambda: Credentials(user="app", password=Secret(CANARY)), "with what FunctionProvider gives"),
    ],
)
def test_it_says_what_it_logs_in_with_and_never_shows_it(given: dict[str, Any], credentials: Any, login: str) -> None:
    said = describe(credentials, host="localhost", sslmode="disable", **given)
    assert said.login.startswith(login)
    assert said.tls == "none: sslmode is disable"
    assert said.reader == "the same"
    assert CANARY not in f"{said} {said!r}"


def test_as_text_it_has_a_line_for_each_thing_decided() -> None:
    said = describe(host=PROXY, auth="iam")
    titles = [line.split(": ")[0] for line in str(said).splitlines()]
    once = ["statements that pin", "reader"]
    assert titles == ["endpoint", "login", "tls", *["limits"] * 6, *["switched off"] * 3, *once]


@pytest.mark.parametrize(
    ("host", "on_pin", "reset", "said"),
    [
        (PROXY, None, "always", "sent and reported; their connection is closed at release"),
        (PROXY, None, "never", "sent and reported"),
        (PROXY, "raise", "always", "refused, before they are sent"),
        (PROXY, "ignore", "wait", "sent and not reported; their connection is closed at release"),
        (PROXY, "ignore", "never", "sent and not reported"),
        (INSTANCE, "warn", "always", "sent and reported"),
        (INSTANCE, None, "always", "sent and not reported"),
    ],
)
def test_what_is_done_about_pins_is_said(host: str, on_pin: str | None, reset: str, said: str) -> None:
    assert describe(host=host, auth="iam", on_pin=on_pin, reset=reset, sslrootcert=__file__).pins == said
