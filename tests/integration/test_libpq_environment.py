"""libpq's own variables and files: none of them weakens a connection, and one that breaks it is named."""

from __future__ import annotations

import os
import socket
import struct
import threading
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest

from lambda_dbconn import AuthenticationError, ConfigurationError, ConnectError, LambdaDbConnError, TlsError
from lambda_dbconn.credentials import Credentials
from lambda_dbconn.drivers.postgresql import PostgresqlDriver
from lambda_dbconn.secret import Secret
from lambda_dbconn.tls import trust_for
from tests.support.driven import LIMIT_S, driven, settings
from tests.support.talking_server import READY, message

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lambda_dbconn.testing.servers import LocalPostgres

WAYS = ["plain", "tls"]


def refusal(server: LocalPostgres, way: str) -> LambdaDbConnError:
    with pytest.raises(LambdaDbConnError) as raised, driven(server, is_async=False, is_tls=way == "tls"):
        pytest.fail("it is connected")
    return raised.value


@pytest.fixture(autouse=True)
def nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("PG"):
            monkeypatch.delenv(name)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PGHOST", "nowhere.invalid"),
        ("PGHOSTADDR", "192.0.2.1"),
        ("PGPORT", "1"),
        ("PGDATABASE", "nowhere"),
        ("PGUSER", "nobody"),
        ("PGPASSWORD", "wrong"),
        ("PGPASSFILE", "/dev/null"),
        ("PGSSLMODE", "require"),
        ("PGSSLMODE", "disable"),
        ("PGREQUIRESSL", "1"),
        ("PGSSLROOTCERT", "/nowhere"),
        ("PGSSLCERTMODE", "require"),
        ("PGSSLCERT", "/nowhere"),
        ("PGSSLKEY", "/nowhere"),
        ("PGSSLMINPROTOCOLVERSION", "TLSv1"),
        ("PGSSLMINPROTOCOLVERSION", "TLSv1.3"),
        ("PGSSLMINPROTOCOLVERSION", "nonsense"),
        ("PGREQUIREAUTH", "password"),
        ("PGREQUIREAUTH", "nonsense"),
        ("PGGSSENCMODE", "require"),
        ("PGTARGETSESSIONATTRS", "standby"),
        ("PGLOADBALANCEHOSTS", "nonsense"),
        ("PGMAXPROTOCOLVERSION", "3.2"),
        ("PGMINPROTOCOLVERSION", "3.2"),
        ("PGAPPNAME", "mine"),
        ("PGTZ", "Asia/Tokyo"),
        ("PGOPTIONS", "-c work_mem=1MB"),
    ],
)
def test_a_connection_is_the_same_whatever_a_variable_says(
    variable: str, value: str, way: str, postgres: LocalPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with driven(postgres, is_async=False, is_tls=way == "tls") as session:
        found = session.fetch(
            "SELECT usename, datname, ssl, coalesce(version, 'none') "
            "FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE pid = pg_backend_pid()"
        )
    assert found[0][:3] == (postgres.user, postgres.database, way == "tls")
    assert found[0][3] in ({"TLSv1.2", "TLSv1.3"} if way == "tls" else {"none"})


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PGOPTIONS", "-c nonsense=1"),
        ("PGTZ", "Mars/Olympus"),
        ("PGDATESTYLE", "nonsense"),
        ("PGGEQO", "nonsense"),
        ("PGCLIENTENCODING", "nonsense"),
        ("PGSERVICE", "nowhere"),
        ("PGSERVICE", ""),
        ("PGSSLNEGOTIATION", "nonsense"),
        ("PGSSLNEGOTIATION", "direct"),  # which servers before 17 do not know
        ("PGCHANNELBINDING", "nonsense"),
        ("PGSSLMAXPROTOCOLVERSION", "TLSv1"),
    ],
)
def test_a_variable_that_keeps_from_connecting_is_named(
    variable: str, value: str, way: str, postgres: LocalPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    error = refusal(postgres, way)
    assert variable in error.message
    if not error.retryable:
        assert variable in error.remedy
        assert "is up" not in error.remedy


@pytest.mark.parametrize(("variable", "value"), [("PGSERVICE", "nowhere"), ("PGCHANNELBINDING", "nonsense")])
def test_a_variable_that_libpq_itself_refuses_is_a_fault_of_the_configuration(
    variable: str, value: str, postgres: LocalPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    assert isinstance(refusal(postgres, "tls"), ConfigurationError)


def test_a_revocation_list_that_does_not_fit_is_a_tls_error_that_names_the_variable(
    postgres: LocalPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert postgres.ca_path is not None
    monkeypatch.setenv("PGSSLCRL", str(postgres.ca_path))
    error = refusal(postgres, "tls")
    assert isinstance(error, TlsError)
    assert "PGSSLCRL" in error.message


def test_an_error_names_no_variable_that_is_not_set_or_not_obeyed(
    postgres: LocalPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGSSLMODE", "require")
    monkeypatch.setenv("PGPASSWORD", "wrong")
    with pytest.raises(ConnectError) as raised, driven(postgres, is_async=False, is_tls=False, name="nowhere"):
        pytest.fail("it is connected")
    assert "libpq reads" not in str(raised.value)


def test_the_certificates_in_the_home_directory_do_not_matter(
    postgres: LocalPostgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / ".postgresql"
    folder.mkdir()
    for name in ("postgresql.crt", "postgresql.key", "root.crt"):
        (folder / name).write_text("nonsense")
    monkeypatch.setenv("HOME", str(tmp_path))
    with driven(postgres, is_async=False, is_tls=True) as session:
        assert session.fetch("SELECT 1") == [(1,)]


# What is answered to a server that asks

METHODS = {"password": 3, "md5": 5, "scram": 10}


@contextmanager
def asking_server(method: str) -> Iterator[tuple[int, list[bytes]]]:
    """Yield the port of a server that asks for a password, and what it is answered."""
    answers: list[bytes] = []
    body = struct.pack("!i", METHODS[method]) + {"scram": b"SCRAM-SHA-256\0\0", "md5": b"salt"}.get(method, b"")
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with suppress(OSError), listener.accept()[0] as client:
                client.recv(65536)
                client.sendall(message(b"R", body))
                answers.append(client.recv(65536))
                client.sendall(message(b"R", struct.pack("!i", 0)) + READY)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield int(listener.getsockname()[1]), answers
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def connect(postgres: LocalPostgres, port: int, password: str | None) -> Any:
    driver, given = PostgresqlDriver(), settings(postgres, is_tls=False, port=port, password=None)
    credentials = Credentials(user="app", password=Secret(password) if password else None)
    return closing(driver.open(given, credentials, trust_for(given), timeout_s=LIMIT_S))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kept_in", ["PGPASSWORD", "PGPASSFILE", "HOME", "PGREQUIREAUTH"])
def test_a_password_that_nobody_configured_is_answered_to_nobody(
    kept_in: str, method: str, postgres: LocalPostgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    password = "Canary-7f3e9b"
    file = tmp_path / ".pgpass"
    file.write_text(f"*:*:*:*:{password}\n")
    file.chmod(0o600)
    if kept_in == "PGREQUIREAUTH":
        monkeypatch.setenv("PGREQUIREAUTH", method.replace("scram", "scram-sha-256"))
        monkeypatch.setenv("PGPASSWORD", password)
    else:
        value = {"PGPASSWORD": password, "PGPASSFILE": str(file), "HOME": str(tmp_path)}[kept_in]
        monkeypatch.setenv(kept_in, value)
    with asking_server(method) as (port, answers), pytest.raises(AuthenticationError) as raised:
        connect(postgres, port, None)
    assert "PASSWORD" in raised.value.remedy
    assert answers == [b""]


def test_a_password_is_not_sent_in_clear_to_whoever_asks(postgres: LocalPostgres) -> None:
    with asking_server("password") as (port, answers), pytest.raises(AuthenticationError):
        connect(postgres, port, "Canary-7f3e9b")
    assert answers == [b""]
