"""The order of the steps, what stands in whose way, and time; the network and a server are imagined."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import pytest

from lambda_dbconn.doctor import examination, server
from lambda_dbconn.doctor.examination import STEPS, examine, examine_environment
from lambda_dbconn.doctor.report import Finding
from lambda_dbconn.drivers import addresses
from lambda_dbconn.testing.fakes import FakeClock, FakeContext, FakeDriver, FakeServer
from tests.unit.conftest import CANARY, local

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lambda_dbconn import Credentials
    from lambda_dbconn.doctor import Diagnosis, Step


@pytest.fixture(autouse=True)
def _network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Imagine a host that answers, and a server that has answers."""
    here, there = socket.socketpair()
    monkeypatch.setattr(addresses, "resolve", lambda *_: ["127.0.0.1"])
    monkeypatch.setattr(socket, "create_connection", lambda *_: here)
    for name in ("between", "version", "role"):
        monkeypatch.setattr(server, name, lambda *_: Finding(found="imagined"))
    with here, there:
        yield


class Broken:
    """A provider of somebody's own, with a mistake."""

    def fetch(self, _settings: object, _deadline: object) -> Credentials:
        raise ZeroDivisionError("a mistake\nin two lines")

    def refused(self, _credentials: object) -> bool:
        return False


def examined(server: FakeServer, clock: FakeClock, **arguments: Any) -> Diagnosis:
    return examine(local(), driver=FakeDriver(server), clock=clock, **arguments)


def statuses(diagnosis: Diagnosis) -> list[str]:
    return [step.status for step in diagnosis.steps]


def test_all_steps_are_taken_in_order_and_told(server: FakeServer, clock: FakeClock) -> None:
    told: list[Step] = []
    diagnosis = examined(server, clock, tell=told.append)
    assert [step.name for step in told] == list(STEPS)
    assert tuple(told) == diagnosis.steps
    assert diagnosis.is_well
    assert diagnosis.endpoint == "localhost:5432"
    assert server.open_connections == []


def test_a_step_needs_only_steps_before_it() -> None:
    names = list(STEPS)
    for name, needs in STEPS.items():
        assert all(names.index(need) < names.index(name) for need in needs)


def test_a_provider_with_a_mistake_is_a_failure_like_any_other(server: FakeServer, clock: FakeClock) -> None:
    diagnosis = examined(server, clock, credentials=Broken())
    failed = next(step for step in diagnosis.steps if step.status == "failed")
    assert failed.name == "credentials"
    assert failed.found.startswith("the provider Broken raised ZeroDivisionError at ")
    assert [step.name for step in diagnosis.steps if step.status == "skipped"] == [
        *("tls", "login", "proxy", "server", "role", "round_trip")
    ]


def test_a_driver_that_is_not_installed_fails_the_login(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "lambda_dbconn.drivers.postgresql", None)
    failed = next(step for step in examine(local(), clock=clock).steps if step.status == "failed")
    assert failed.name == "login"
    assert "lambda-dbconn[postgresql]" in failed.causes[0].fix


def test_a_ping_that_fails_closes_the_connection_all_the_same(server: FakeServer, clock: FakeClock) -> None:
    server.demand("ping", ConnectionError("gone"))
    diagnosis = examined(server, clock)
    assert statuses(diagnosis)[-1] == "failed"
    assert server.open_connections == []


def test_the_invocations_time_is_the_limit_less_the_reserve(server: FakeServer, clock: FakeClock) -> None:
    diagnosis = examined(server, clock, context=FakeContext(clock, 0.4))
    assert set(statuses(diagnosis)) == {"skipped"}
    assert examined(server, clock, context=FakeContext(clock, 10)).is_well


def test_a_step_after_the_time_is_over_says_so(server: FakeServer, clock: FakeClock) -> None:
    def tell(step: Step) -> None:
        if step.name == "tcp":
            clock.advance(examination.DEFAULT_LIMIT_S + 1)

    diagnosis = examined(server, clock, tell=tell)
    assert {step.found for step in diagnosis.steps if step.status == "skipped"} == {"no time was left"}
    assert not diagnosis.is_well


def test_settings_of_the_environment_are_the_first_step(environ: pytest.MonkeyPatch) -> None:
    environ.setenv("SHOP_HOST", "localhost")
    environ.setenv("SHOP_PASSWORD", CANARY)
    diagnosis = examine_environment("SHOP_")
    assert statuses(diagnosis) == ["failed", *["skipped"] * (len(STEPS) - 1)]
    assert diagnosis.steps[0].found == "2 settings are not right"
    assert {cause.cause.split()[0] for cause in diagnosis.steps[0].causes} == {"SHOP_ENGINE", "SHOP_USER"}
    assert CANARY not in str(diagnosis)
