from __future__ import annotations

import errno
import os
import resource
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest

from lambda_dbconn.drivers import addresses
from lambda_dbconn.drivers.addresses import first_that_opens, resolve
from lambda_dbconn.errors import (
    AuthenticationError,
    ConfigurationError,
    ConnectError,
    ConnectTimeoutError,
    ProxyBusyError,
)
from tests.unit.conftest import in_child

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lambda_dbconn.testing.fakes import FakeClock

REFUSED = ConnectError("refused", retryable=True)


@pytest.fixture(autouse=True)
def fake_time(monkeypatch: pytest.MonkeyPatch, clock: FakeClock) -> Iterator[None]:
    monkeypatch.setattr(time, "monotonic", clock.monotonic)
    addresses.forget()
    yield
    addresses.forget()


class Host:
    """A host whose addresses open or refuse; takes a note of the order and of the time limits."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.answers: dict[str, Exception | str] = {}
        self.tried: list[str] = []
        self.limits_s: list[float] = []
        self.resolving_takes_s = 0.0

    def resolve(self, _host: str, _port: int, timeout_s: float) -> list[str]:
        self.clock.advance(min(self.resolving_takes_s, timeout_s))
        return list(self.answers)

    def open(self, timeout_s: float = 5.0, *, name: str = "db", **answers: Exception | str) -> str:
        self.answers = answers or self.answers
        self.tried, self.limits_s = [], []
        return first_that_opens(name, 5432, timeout_s, self._open_one)

    def _open_one(self, address: str, timeout_s: float) -> str:
        self.tried.append(address)
        self.limits_s.append(timeout_s)
        answer = self.answers[address]
        if isinstance(answer, ConnectTimeoutError):
            self.clock.advance(timeout_s)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch, clock: FakeClock) -> Host:
    host = Host(clock)
    monkeypatch.setattr(addresses, "resolve", host.resolve)
    return host


def silent() -> ConnectTimeoutError:
    return ConnectTimeoutError("silent")


def test_the_first_address_that_opens_ends_the_search(host: Host) -> None:
    assert host.open(6.0, a=REFUSED, b="open", c="never asked") == "open"
    assert host.limits_s == [2.0, 3.0]


def test_a_silent_address_costs_its_share_of_the_time_only(host: Host) -> None:
    assert host.open(a=silent(), b="open") == "open"
    assert host.limits_s == [2.5, 2.5]


def test_all_addresses_together_cost_no_more_than_the_limit(host: Host, clock: FakeClock) -> None:
    started = clock.monotonic()
    with pytest.raises(ConnectTimeoutError, match=r"silent too \(at b; besides, a: silent\)"):
        host.open(a=silent(), b=ConnectTimeoutError("silent too"))
    assert clock.monotonic() - started == 5.0


def test_resolving_takes_its_time_from_the_same_limit(host: Host, clock: FakeClock) -> None:
    started = clock.monotonic()
    host.resolving_takes_s = 1.0
    with pytest.raises(ConnectTimeoutError):
        host.open(a=silent(), b=silent())
    assert host.limits_s == [2.0, 2.0]
    assert clock.monotonic() - started == 5.0


def test_what_one_server_said_is_raised_rather_than_that_another_was_silent(host: Host) -> None:
    with pytest.raises(ProxyBusyError, match=r"no connection to spare \(at a; besides, b: silent\)"):
        host.open(a=ProxyBusyError("no connection to spare"), b=silent())


def test_what_no_try_would_change_is_raised_rather_than_what_was_said_before(host: Host) -> None:
    with pytest.raises(ConnectError, match=r"no such database \(at b; besides, a: no connection to spare\)"):
        host.open(a=ProxyBusyError("no connection to spare"), b=ConnectError("no such database"))


def test_what_another_address_would_not_change_ends_the_search(host: Host) -> None:
    with pytest.raises(AuthenticationError, match=r"^wrong password\."):
        host.open(a=AuthenticationError("wrong password"), b="never asked")
    assert host.tried == ["a"]


def test_without_time_the_error_names_the_addresses(host: Host) -> None:
    with pytest.raises(ConnectTimeoutError, match="no time left to connect to a, b"):
        host.open(0.0, a="never asked", b="never asked")


# --- addresses that do not answer


def test_an_address_that_did_not_answer_is_tried_last_the_next_time(host: Host, clock: FakeClock) -> None:
    host.open(a=silent(), b="open", c="open")
    started = clock.monotonic()
    for _ in range(3):
        assert host.open(a=silent(), b="open", c="open") == "open"
        assert host.tried == ["b"]
    host.open(a="open", b=REFUSED, c=REFUSED)
    assert host.tried == ["b", "c", "a"]
    assert clock.monotonic() == started


def test_an_address_that_answers_again_has_its_place_again(host: Host) -> None:
    host.open(a=silent(), b="open")
    host.open(a="open", b=REFUSED)
    assert host.tried == ["b", "a"]
    host.open(a="open", b="open")
    assert host.tried == ["a"]


@pytest.mark.parametrize("answer", [REFUSED, AuthenticationError("wrong password")], ids=["refused", "wrong password"])
def test_an_address_that_refuses_is_not_silent(host: Host, answer: ConnectError) -> None:
    host.open(a=silent(), b="open")
    with pytest.raises(ConnectError):
        host.open(a=answer, b=REFUSED)
    host.open(a="open", b="open")
    assert host.tried == ["a"]


def test_addresses_that_are_all_silent_keep_the_resolvers_order(host: Host) -> None:
    for _ in range(2):
        with pytest.raises(ConnectTimeoutError):
            host.open(a=silent(), b=silent())
        assert host.tried == ["a", "b"]


def test_an_address_that_dns_no_longer_names_is_forgotten(host: Host) -> None:
    host.open(a=silent(), b="open")
    host.open(b="open")
    host.open(a="open", b="open")
    assert host.tried == ["a"]
    assert addresses._silent == {}


def test_each_host_has_silent_addresses_of_its_own(host: Host) -> None:
    host.open(a=silent(), b="open")
    host.open(name="other", a="open", b="open")
    assert host.tried == ["a"]


def test_a_restore_from_a_snapshot_forgets_them(host: Host) -> None:
    host.open(a=silent(), b="open")
    addresses.forget()
    host.open(a="open", b="open")
    assert host.tried == ["a"]


def test_a_forked_child_forgets_them(host: Host) -> None:
    host.open(a=silent(), b="open")
    assert in_child(lambda: len(addresses._silent)) == "0"
    assert len(addresses._silent) == 1


def test_what_is_remembered_is_bounded(host: Host) -> None:
    for number in range(1000):
        host.open(name=f"db{number}", a=silent(), b="open")
    assert len(addresses._silent) <= 100


# --- names


def test_a_host_resolves_to_its_addresses_in_order_and_once_each(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(2, 1, 6, "", (address, 5432)) for address in ("10.0.0.7", "10.0.0.8", "10.0.0.7")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    assert resolve("db", 5432, 5.0) == ["10.0.0.7", "10.0.0.8"]


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "10.20.30.40"])
def test_an_ip_address_costs_no_thread(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setattr(addresses, "look_up", lambda *_, **__: pytest.fail("a look-up"))
    assert resolve(address, 5432, 5.0) == [address]


def failing(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Let the resolver fail for every name."""

    def fail(*arguments: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "no number") if socket.AI_NUMERICHOST in arguments else error

    monkeypatch.setattr(socket, "getaddrinfo", fail)


@pytest.mark.parametrize(
    ("number", "is_retryable"), [(socket.EAI_AGAIN, True), (socket.EAI_NONAME, False), (socket.EAI_FAIL, False)]
)
def test_a_name_that_does_not_resolve_is_a_connect_error(
    monkeypatch: pytest.MonkeyPatch, number: int, *, is_retryable: bool
) -> None:
    failing(monkeypatch, socket.gaierror(number, "not known"))
    with pytest.raises(ConnectError, match="cannot resolve the host 'db': not known") as caught:
        resolve("db", 5432, 5.0)
    assert caught.value.retryable is is_retryable
    assert isinstance(caught.value.__cause__, socket.gaierror)


@pytest.mark.parametrize(
    ("number", "names_descriptors"),
    [
        (errno.EBUSY, True),
        (errno.EMFILE, True),
        (errno.ENFILE, True),
        (errno.EAGAIN, False),
        (errno.ENOMEM, False),
    ],
    ids=errno.errorcode.get,
)
def test_what_the_system_lacks_for_a_look_up_may_be_there_the_next_time(
    monkeypatch: pytest.MonkeyPatch, number: int, *, names_descriptors: bool
) -> None:
    failing(monkeypatch, OSError(number, os.strerror(number)))
    with pytest.raises(ConnectError, match=f"cannot resolve the host 'db': {os.strerror(number)}") as caught:
        resolve("db", 5432, 5.0)
    assert caught.value.retryable
    assert ("/proc/self/fd" in caught.value.remedy) is names_descriptors


def test_the_want_of_file_descriptors_is_named_when_the_resolver_says_something_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failing(monkeypatch, socket.gaierror(socket.EAI_NONAME, "Name or service not known"))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
    try:
        with pytest.raises(ConnectError, match="no file descriptor is left") as caught:
            resolve("db", 5432, 5.0)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert caught.value.retryable
    assert "/proc/self/fd" in caught.value.remedy


def test_a_silent_resolver_is_a_timeout_that_a_later_try_may_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    may_answer = threading.Event()

    def silent(*arguments: object) -> None:
        """Stand for glibc's with a name server that does not answer."""
        if socket.AI_NUMERICHOST in arguments:
            raise socket.gaierror(socket.EAI_NONAME, "no number")
        assert may_answer.wait(30)

    monkeypatch.setattr(socket, "getaddrinfo", silent)
    try:
        with pytest.raises(ConnectTimeoutError, match=r"'db': the resolver has not answered within 0\.02 s") as caught:
            resolve("db", 5432, 0.02)
    finally:
        may_answer.set()
    assert caught.value.retryable
    assert "enableDnsSupport" in caught.value.remedy


def test_a_name_that_cannot_be_looked_up_at_all_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match="is not one that can be looked up"):
        resolve("a" * 64 + ".example", 5432, 5.0)
