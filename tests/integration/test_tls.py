"""Whom the library trusts: verified by authority and name, or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from lambda_dbconn import ConfigurationError, ConnectError, LambdaDbConnError, TlsError
from lambda_dbconn.drivers import addresses
from lambda_dbconn.events import ConnectFailed, ConnectionOpened
from tests.support.clients import is_encrypted
from tests.support.database import behind_a_relay, deed, do

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lambda_dbconn.testing.certificates import Certificates
    from lambda_dbconn.testing.servers import LocalServer
    from tests.support.database import Database

SSL_REQUEST_BYTES = 8  # all that a PostgreSQL client says before the server has agreed to TLS

PARSEABLE_BUT_EMPTY = "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"


def refused(database: Database, **changes: Any) -> LambdaDbConnError:
    """Return why the connection was not made; it must not have been tried twice."""
    with (
        pytest.raises((ConnectError, ConfigurationError)) as raised,
        database.manager(**changes).connection(),
    ):
        pytest.fail("it is connected")
    assert not raised.value.retryable
    assert raised.value.remedy
    assert len(database.observer.of(ConnectFailed)) == 1
    assert not database.observer.of(ConnectionOpened)
    return raised.value


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_a_server_whose_certificate_names_the_host_is_trusted(host: str, database: Database) -> None:
    with database.manager(host=host).connection() as connection:
        assert is_encrypted(connection, database.server)


def test_a_server_of_another_authority_is_refused(database: Database, certificates: Certificates) -> None:
    error = refused(database, sslrootcert=str(certificates.other_ca_path))
    assert isinstance(error, TlsError)
    assert "SSLROOTCERT" in error.remedy


def test_a_server_of_another_name_is_refused(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "resolve", lambda *_: ["127.0.0.1"])
    error = refused(database, host="alias.invalid")
    assert isinstance(error, TlsError)
    assert "name" in error.remedy


def test_public_authorities_do_not_vouch_for_a_private_server(database: Database) -> None:
    error = refused(database, sslrootcert=None)
    assert isinstance(error, TlsError)
    assert "SSLROOTCERT" in error.remedy


@pytest.mark.parametrize("pem", ["", "not a certificate", PARSEABLE_BUT_EMPTY], ids=["empty", "words", "hollow"])
def test_a_file_without_authorities_is_a_fault_of_the_configuration(
    pem: str, database: Database, tmp_path: Path
) -> None:
    path = tmp_path / "authorities.pem"
    path.write_text(pem)
    error = refused(database, sslrootcert=str(path))
    assert isinstance(error, ConfigurationError)
    assert str(path) in str(error)
    assert "SSLROOTCERT" in error.remedy


def test_a_file_that_is_missing_is_found_before_anything_is_sent(database: Database, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"sslrootcert.*nothing\.pem"):
        database.manager(sslrootcert=str(tmp_path / "nothing.pem"))
    assert database.relay.connects == 0


# A server without TLS gets nothing to read


@pytest.fixture
def database_without_tls(server_class: type[LocalServer], certificates: Certificates) -> Iterator[Database]:
    """A server that does not speak TLS, for clients that know it by a certificate."""
    with server_class() as server, behind_a_relay(server, is_tls=False) as database:
        yield database


def test_a_server_without_tls_is_told_neither_password_nor_user(
    database_without_tls: Database, certificates: Certificates
) -> None:
    database = database_without_tls
    error = refused(database, sslmode="verify-full", sslrootcert=str(certificates.ca_path))
    assert isinstance(error, TlsError)
    assert "SSLMODE" in error.remedy
    asked_bytes = SSL_REQUEST_BYTES if database.is_postgresql else 0
    assert database.relay.bytes_from_client == asked_bytes
    assert database.relay.connects == 1


def test_a_server_that_has_stopped_speaking_tls_is_told_nothing_at_a_reconnect(own_server: LocalServer) -> None:
    with behind_a_relay(own_server, is_tls=True) as database:
        db = database.manager()
        assert db.warm_up()
        own_server.stop()
        own_server.certificates = None
        own_server.start()
        database.relay.rst()
        database.forget()
        with pytest.raises(TlsError), db.connection():
            pytest.fail("it is connected")
        assert database.relay.bytes_from_client == (SSL_REQUEST_BYTES if database.is_postgresql else 0)


def test_disable_means_plaintext_on_loopback_and_works(database_without_tls: Database) -> None:
    database, name = database_without_tls, deed()
    with database.manager().connection() as connection:
        do(connection, name)
        assert not is_encrypted(connection, database.server)
    assert database.count(name) == 1


@pytest.mark.parametrize("database", ["postgres-plain", "mariadb-plain", "mysql-plain"], indirect=True)
def test_disable_means_plaintext_even_if_the_server_has_tls(database: Database) -> None:
    with database.manager().connection() as connection:
        assert not is_encrypted(connection, database.server)


def test_a_server_that_requires_tls_refuses_plaintext(
    server_class: type[LocalServer], certificates: Certificates
) -> None:
    with (
        server_class(certificates=certificates, is_tls_required=True) as server,
        behind_a_relay(server, is_tls=False) as database,
    ):
        refused(database)
        database.forget()
        with database.manager(sslmode="verify-full", sslrootcert=str(certificates.ca_path)).connection() as connection:
            assert is_encrypted(connection, server)
