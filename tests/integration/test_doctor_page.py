"""Failures that the doctor explains and `test_doctor.py` does not need: provoked, and found on the page."""

from __future__ import annotations

import errno
import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from lambda_dbconn.testing.certificates import Certificates
from lambda_dbconn.testing.rds_proxy import AwsKey, LocalRdsProxy
from lambda_dbconn.testing.relay import FaultRelay
from lambda_dbconn.testing.servers import LocalPostgres
from tests.support.doctor import NOBODY, Patient
from tests.support.invocations import environment
from tests.support.rds_proxy import PROXY_NAME

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.walk

KEY = AwsKey(access_key_id="ASIAROLE", secret_access_key="Canary-of-the-page")
AWS_KEYS = {"AWS_ACCESS_KEY_ID": KEY.access_key_id, "AWS_SECRET_ACCESS_KEY": KEY.secret_access_key}
INSTANCE = "shop.c7tj4example.eu-west-1.rds.amazonaws.com"
_INTERNAL_ERROR = bytes([0x15, 3, 3, 0, 2, 2, 80])  # a TLS alert


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> Patient:
    return Patient(monkeypatch)


@contextmanager
def answering(answer: bytes) -> Iterator[int]:
    """Listen for one client, read what it says first, answer, and hang up; return the port."""

    def serve() -> None:
        client, _ = listener.accept()
        with client:
            client.recv(8)
            client.sendall(b"S")
            client.recv(4096)
            client.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(10)


def test_no_resolver_answers(patient: Patient, postgres: LocalPostgres, monkeypatch: pytest.MonkeyPatch) -> None:
    def getaddrinfo(*_arguments: object, **_options: object) -> Any:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    patient.set(environment(postgres), DB_HOST="shop.invalid")
    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    patient.failure("dns")


@pytest.mark.parametrize(
    "error",
    [
        ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
        OSError(errno.ENETUNREACH, "Network is unreachable"),
    ],
    ids=["reset", "unreachable"],
)
def test_the_network_refuses(
    patient: Patient, postgres: LocalPostgres, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    def create_connection(*_arguments: object, **_options: object) -> Any:
        raise error

    patient.set(environment(postgres))
    monkeypatch.setattr("lambda_dbconn.doctor.network.socket.create_connection", create_connection)
    patient.failure("tcp")


def test_a_handshake_fails_for_another_reason(patient: Patient, postgres: LocalPostgres) -> None:
    with answering(_INTERNAL_ERROR) as port:
        patient.set(environment(postgres), DB_PORT=str(port))
        patient.failure("tls")


def test_there_is_no_way_to_secrets_manager(patient: Patient, postgres: LocalPostgres) -> None:
    nowhere = {"AWS_ENDPOINT_URL_SECRETS_MANAGER": NOBODY, "DB_SECRET_ID": "prod/shop", "DB_AUTH": "secret"}
    patient.set(environment(postgres), AWS_KEYS, nowhere, DB_REGION="eu-west-1")
    patient.failure("credentials")


def test_a_token_that_the_database_refuses(patient: Patient, postgres: LocalPostgres, tmp_path: Path) -> None:
    """`postgres` is asked for because it skips or fails where there is none."""
    with LocalPostgres(certificates=Certificates.create(tmp_path, extra_names=[INSTANCE])) as server:
        hba = server._data / "pg_hba.conf"
        hba.write_text(hba.read_text().replace("scram-sha-256", "password"))
        server.query("select pg_reload_conf()")
        patient.set(environment(server), AWS_KEYS, DB_AUTH="iam", DB_SIGNING_HOST=INSTANCE)
        patient.failure("login")


@pytest.fixture
def proxy(own_postgres: LocalPostgres, proxy_certificates: Certificates) -> Iterator[LocalRdsProxy]:
    with LocalRdsProxy(
        backend=own_postgres, certificates=proxy_certificates, auth="iam", aws_keys=[KEY], signing_host=PROXY_NAME
    ) as proxy:
        yield proxy


def variables(proxy: LocalRdsProxy, port: int) -> dict[str, str]:
    assert proxy.certificates is not None
    return AWS_KEYS | {
        "DB_ENGINE": "postgresql",
        "DB_HOST": "localhost",
        "DB_PORT": str(port),
        "DB_NAME": "app",
        "DB_USER": "app",
        "DB_AUTH": "iam",
        "DB_SIGNING_HOST": PROXY_NAME,
        "DB_SSLROOTCERT": str(proxy.certificates.ca_path),
        "DB_CONNECT_TIMEOUT_S": "1",
    }


def test_a_direct_login_is_not_answered(patient: Patient, postgres: LocalPostgres) -> None:
    with FaultRelay(target_host="127.0.0.1", target_port=postgres.port) as relay:
        patient.set(environment(postgres), DB_PORT=str(relay.port), DB_CONNECT_TIMEOUT_S="1")
        patient.failure("login", tell=lambda step: relay.black_hole() if step.name == "credentials" else None)


def test_a_proxy_does_not_answer_a_login(patient: Patient, proxy: LocalRdsProxy) -> None:
    with FaultRelay(target_host="127.0.0.1", target_port=proxy.port) as relay:
        patient.set(variables(proxy, relay.port))
        patient.failure("login", tell=lambda step: relay.black_hole() if step.name == "credentials" else None)


def test_a_proxy_whose_database_does_not_answer(
    patient: Patient, proxy: LocalRdsProxy, own_postgres: LocalPostgres
) -> None:
    patient.set(variables(proxy, proxy.port))
    patient.failure("proxy", tell=lambda step: own_postgres.freeze() if step.name == "login" else None)


def test_the_proxy_does_not_support_what_is_asked(
    patient: Patient, postgres: LocalPostgres, proxy_certificates: Certificates
) -> None:
    with LocalRdsProxy(backend=postgres, certificates=proxy_certificates, auth="secret") as proxy:
        patient.set(environment(postgres), DB_PORT=str(proxy.port), PGOPTIONS="-c jit=off")
        patient.set(DB_SSLROOTCERT=str(proxy_certificates.ca_path))
        patient.failure("login")
