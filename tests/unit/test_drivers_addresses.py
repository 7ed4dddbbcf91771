from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING

import pytest

from lambda_dbconn.drivers.addresses import first_that_opens, resolve
from lambda_dbconn.errors import (
    AuthenticationError,
    ConfigurationError,
    ConnectError,
    ConnectTimeoutError,
    ProxyBusyError,
)

if TYPE_CHECKING:
    from lambda_dbconn.testing.fakes import FakeClock

REFUSED = ConnectError("refused", retryable=True)


@pytest.fixture(autouse=True)
def fake_time(monkeypatch: pytest.MonkeyPatch, clock: FakeClock) -> None:
    monkeypatch.setattr(time, "monotonic", clock.monotonic)


class Addresses:
    """Open or refuse, address by address, and take a note of the time limits."""

    def __init__(self, clock: FakeClock, **answers: Exception | str) -> None:
        self.clock = clock
        self.answers = answers
        self.limits_s: list[float] = []

    def open_one(self, address: str, timeout_s: float) -> str:
        self.limits_s.append(timeout_s)
        answer = self.answers[address]
        if isinstance(answer, ConnectTimeoutError):
            self.clock.advance(timeout_s)
        if isinstance(answer, Exception):
            raise answer
        return answer


def test_the_first_address_that_opens_ends_the_search(clock: FakeClock) -> None:
    them = Addresses(clock, a=REFUSED, b="open", c="never asked")
    assert first_that_opens(["a", "b", "c"], 6.0, them.open_one) == "open"
    assert them.limits_s == [2.0, 3.0]


def test_a_silent_address_costs_its_share_of_the_time_only(clock: FakeClock) -> None:
    them = Addresses(clock, a=ConnectTimeoutError("silent"), b="open")
    assert first_that_opens(["a", "b"], 5.0, them.open_one) == "open"
    assert them.limits_s == [2.5, 2.5]


def test_all_addresses_together_cost_no_more_than_the_limit(clock: FakeClock) -> None:
    them = Addresses(clock, a=ConnectTimeoutError("silent"), b=ConnectTimeoutError("silent too"))
    started = clock.monotonic()
    with pytest.raises(ConnectTimeoutError, match=r"silent too \(at b; besides, a: silent\)"):
        first_that_opens(["a", "b"], 5.0, them.open_one)
    assert clock.monotonic() - started == 5.0


def test_what_one_server_said_is_raised_rather_than_that_another_was_silent(clock: FakeClock) -> None:
    them = Addresses(clock, a=ProxyBusyError("no connection to spare"), b=ConnectTimeoutError("silent"))
    with pytest.raises(ProxyBusyError, match=r"no connection to spare \(at a; besides, b: silent\)"):
        first_that_opens(["a", "b"], 5.0, them.open_one)


def test_what_no_try_would_change_is_raised_rather_than_what_was_said_before(clock: FakeClock) -> None:
    them = Addresses(clock, a=ProxyBusyError("no connection to spare"), b=ConnectError("no such database"))
    with pytest.raises(ConnectError, match=r"no such database \(at b; besides, a: no connection to spare\)"):
        first_that_opens(["a", "b"], 5.0, them.open_one)


def test_what_another_address_would_not_change_ends_the_search(clock: FakeClock) -> None:
    them = Addresses(clock, a=AuthenticationError("wrong password"), b="never asked")
    with pytest.raises(AuthenticationError, match=r"^wrong password\."):
        first_that_opens(["a", "b"], 5.0, them.open_one)
    assert len(them.limits_s) == 1


def test_without_time_the_error_names_the_addresses(clock: FakeClock) -> None:
    with pytest.raises(ConnectTimeoutError, match="no time left to connect to a, b"):
        first_that_opens(["a", "b"], 0.0, Addresses(clock).open_one)


def test_a_host_resolves_to_its_addresses_in_order_and_once_each(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(2, 1, 6, "", (address, 5432)) for address in ("10.0.0.7", "10.0.0.8", "10.0.0.7")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    assert resolve("db", 5432) == ["10.0.0.7", "10.0.0.8"]


@pytest.mark.parametrize(
    ("number", "is_retryable"), [(socket.EAI_AGAIN, True), (socket.EAI_NONAME, False), (socket.EAI_FAIL, False)]
)
def test_a_name_that_does_not_resolve_is_a_connect_error(
    monkeypatch: pytest.MonkeyPatch, number: int, *, is_retryable: bool
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(number, "not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(ConnectError, match="cannot resolve the host 'db': not known") as caught:
        resolve("db", 5432)
    assert caught.value.retryable is is_retryable
    assert isinstance(caught.value.__cause__, socket.gaierror)


def test_a_name_that_cannot_be_looked_up_at_all_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match="is not one that can be looked up"):
        resolve("a" * 64 + ".example", 5432)
