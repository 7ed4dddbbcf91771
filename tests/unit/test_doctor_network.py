"""What is said of the host's name and addresses."""

from __future__ import annotations

import socket

import pytest

from lambda_dbconn.doctor import network
from lambda_dbconn.doctor.report import StepFailedError
from lambda_dbconn.drivers import addresses
from tests.unit.conftest import PROXY, local

REMOTE = {"sslmode": "verify-full", "auth": "iam"}


def test_a_proxys_name_says_what_it_is() -> None:
    finding = network.classified(local(host=PROXY, **REMOTE))
    assert finding.found == f"{PROXY}:5432: RDS Proxy endpoint"
    assert (finding.facts["region"], finding.facts["is_proxy_by_name"]) == ("us-east-1", True)
    assert finding.notes == ()


def test_a_tunnel_says_what_is_behind_it() -> None:
    finding = network.classified(local(host="localhost", signing_host=PROXY, **REMOTE))
    assert finding.found == f"localhost:5432: other host, in truth {PROXY}"
    assert (finding.facts["is_proxy_by_name"], finding.facts["server_name"]) == (True, PROXY)


def test_the_old_side_of_a_blue_green_deployment_is_noted() -> None:
    finding = network.classified(local(host="mydb-old1.c7tj4example.us-east-1.rds.amazonaws.com", **REMOTE))
    assert "blue/green" in finding.notes[0]


@pytest.mark.parametrize(("address", "is_noted"), [("52.1.2.3", True), ("10.0.0.5", False), ("fe80::1%eth0", False)])
def test_a_public_address_of_a_proxy_is_noted(monkeypatch: pytest.MonkeyPatch, address: str, *, is_noted: bool) -> None:
    monkeypatch.setattr(addresses, "resolve", lambda host, port, timeout_s: [address])
    finding, found = network.resolved(local(host=PROXY, **REMOTE), 1.0)
    assert found == [address]
    assert bool(finding.notes) is is_noted


@pytest.mark.parametrize(("number", "words"), [(socket.EAI_AGAIN, "no resolver"), (socket.EAI_NONAME, "misspelt")])
def test_the_kind_of_a_resolvers_failure_decides_what_is_likeliest(
    monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(number, "no")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(StepFailedError) as caught:
        network.resolved(local(host=PROXY, **REMOTE), 1.0)
    assert words in caught.value.causes[0].cause


def test_one_address_that_does_not_answer_is_noted_and_the_other_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = socket.socketpair()

    def connect(address: tuple[str, int], _timeout_s: float) -> socket.socket:
        if address[0] == "10.0.0.1":
            raise TimeoutError("timed out")
        return here

    monkeypatch.setattr(socket, "create_connection", connect)
    with here, there:
        finding, sock = network.connected(local(host=PROXY, **REMOTE), ["10.0.0.1", "10.0.0.2"], 1.0)
        assert sock is here
    assert finding.facts["addresses"]["10.0.0.1"] == "no answer"
    assert "tries it last" in finding.notes[0]


@pytest.mark.parametrize(
    ("errors", "words"),
    [
        ([ConnectionRefusedError(111, "refused")], "PORT is not"),
        ([TimeoutError("timed out"), ConnectionRefusedError(111, "refused")], "PORT is not"),
        ([ConnectionResetError(104, "reset")], "something between"),
        ([OSError(113, "No route to host")], "no VPC"),
        ([TimeoutError("timed out")], "security group"),
    ],
)
def test_the_kind_of_the_failure_decides_what_is_likeliest(
    monkeypatch: pytest.MonkeyPatch, errors: list[OSError], words: str
) -> None:
    pending = list(errors)

    def fail(*_: object) -> None:
        raise pending.pop(0)

    monkeypatch.setattr(socket, "create_connection", fail)
    tried = [f"10.0.0.{number}" for number in range(len(errors))]
    with pytest.raises(StepFailedError) as caught:
        network.connected(local(host=PROXY, prefix="", **REMOTE), tried, 1.0)
    assert words in caught.value.causes[0].cause
