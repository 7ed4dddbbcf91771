"""A server, or somebody in its place, asks for more than it may have: the password in clear, or a token without TLS."""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest

from lambda_dbconn import (
    AuthenticationError,
    ConnectError,
    ConnectionManager,
    Credentials,
    LambdaDbConnError,
    LambdaDbConnWarning,
    Secret,
    Settings,
    TlsError,
)
from lambda_dbconn.credentials.aws_keys import AwsKeys
from lambda_dbconn.credentials.iam import IamProvider
from lambda_dbconn.deadline import Deadline
from lambda_dbconn.testing.certificates import OTHER_NAME, Certificates
from lambda_dbconn.testing.fakes import FakeClock
from tests.support.canary import CANARY, everything_shown
from tests.support.clients import query

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lambda_dbconn import CredentialProvider
    from lambda_dbconn.testing.servers import LocalPostgres, LocalServer

KEYS = AwsKeys(access_key_id="AKID", secret_access_key=Secret("example"))
SIGNATURE = b"X-Amz-Signature"

_CAPABILITIES = 0x1 | 0x8 | 0x200 | 0x8000 | 0x80000  # protocol 4.1, plugins
_TLS = 0x800
_TLS_REQUEST_BYTES = 36


def _packet(number: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "little") + bytes([number]) + payload


def greeting(more_capabilities: int = 0) -> bytes:
    """Return what a MySQL server says first; without more capabilities it has no TLS."""
    salt = b"12345678"
    capabilities = (_CAPABILITIES | more_capabilities).to_bytes(4, "little")
    return _packet(
        0,
        b"\x0a8.4.0\0" + (1).to_bytes(4, "little") + salt + b"\0" + capabilities[:2] + b"\x2d\x02\0"
        + capabilities[2:] + b"\x15" + bytes(10) + b"123456789012\0" + b"mysql_native_password\0",
    )  # fmt: skip


class Impostor:
    """Speaks just enough of a protocol to ask for a password, and keeps all that it is told."""

    def __init__(self, conversation: Callable[[socket.socket], None]) -> None:
        self._conversation = conversation
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.heard = b""

    def run(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with client, suppress(OSError):  # it may hang up on us
                client.settimeout(10)
                self._conversation(client)
                while received := client.recv(65536):
                    self.heard += received

    def hear(self, client: socket.socket) -> None:
        self.heard += client.recv(65536)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@contextmanager
def impostor(converse: Callable[[Impostor, socket.socket], None]) -> Iterator[Impostor]:
    server = Impostor(lambda client: converse(server, client))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield server
    finally:
        server.close()
        thread.join()


def mysql_asking_by(plugin: bytes, prompt: bytes = b"") -> Callable[[Impostor, socket.socket], None]:
    def converse(server: Impostor, client: socket.socket) -> None:
        client.sendall(greeting())
        server.hear(client)
        client.sendall(_packet(2, b"\xfe" + plugin + b"\0" + prompt))

    return converse


def mysql_with_tls(certificates: Certificates) -> Callable[[Impostor, socket.socket], None]:
    """Ask for the password in clear inside TLS, as RDS does for IAM tokens, and hang up when it is there."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates.server_certificate_path, certificates.server_key_path)

    def converse(server: Impostor, client: socket.socket) -> None:
        client.sendall(greeting(_TLS))
        client.recv(_TLS_REQUEST_BYTES, socket.MSG_WAITALL)
        with context.wrap_socket(client.dup(), server_side=True) as inside:
            inside.recv(65536)
            inside.sendall(_packet(3, b"\xfemysql_clear_password\0"))
            server.heard += inside.recv(65536)
        client.shutdown(socket.SHUT_RDWR)

    return converse


def mysql_without_tls(_server: Impostor, client: socket.socket) -> None:
    client.sendall(greeting())


def postgresql_without_tls(server: Impostor, client: socket.socket) -> None:
    server.hear(client)  # SSLRequest
    client.sendall(b"N")


def postgresql_asking_in_clear(server: Impostor, client: socket.socket) -> None:
    server.hear(client)
    client.sendall(b"R" + (8).to_bytes(4) + (3).to_bytes(4))


def attempt(settings: Settings, credentials: CredentialProvider | None = None) -> LambdaDbConnError:
    """Try to connect, and return why that failed."""
    db: ConnectionManager[Any] = ConnectionManager(settings, credentials=credentials)
    with pytest.raises(ConnectError) as caught, db.connection(10):
        pass
    return caught.value


def settings(engine: str, port: int, **changes: Any) -> Settings:
    given: dict[str, Any] = {"engine": engine, "host": "127.0.0.1", "port": port, "name": "app", "user": "app"}
    return Settings(**{**given, "connect_timeout_s": 10.0, **changes})


@pytest.mark.parametrize(("plugin", "prompt"), [(b"mysql_clear_password", b""), (b"dialog", b"\x02Password: ")])
def test_without_tls_a_mysql_server_that_asks_in_clear_gets_no_password(plugin: bytes, prompt: bytes) -> None:
    with impostor(mysql_asking_by(plugin, prompt)) as server:
        error = attempt(settings("mysql", server.port, password=Secret(CANARY), sslmode="disable"))
    assert isinstance(error, TlsError)
    assert "asks for the password in clear, and there is no TLS" in str(error)
    assert b"app" in server.heard
    assert CANARY.encode() not in server.heard


def test_without_tls_a_postgresql_server_that_asks_in_clear_gets_no_password() -> None:
    with impostor(postgresql_asking_in_clear) as server:
        error = attempt(settings("postgresql", server.port, password=Secret(CANARY), sslmode="disable"))
    assert isinstance(error, AuthenticationError)
    assert b"app" in server.heard
    assert CANARY.encode() not in server.heard


@pytest.mark.parametrize(("engine", "converse"), [("mysql", mysql_without_tls), ("postgresql", postgresql_without_tls)])
def test_a_server_without_tls_gets_neither_a_token_nor_the_users_name(
    engine: str, converse: Any, certificates: Certificates
) -> None:
    with impostor(converse) as server:
        chosen = settings(
            engine,
            server.port,
            auth="iam",
            signing_host="the-proxy.proxy-demo.us-east-1.rds.amazonaws.com",
            sslrootcert=str(certificates.ca_path),
        )
        error = attempt(chosen, IamProvider(keys=lambda: KEYS))
    assert isinstance(error, TlsError)
    assert SIGNATURE not in server.heard
    assert b"app" not in server.heard


def test_a_server_whose_name_is_not_the_signing_hosts_gets_no_token(
    server: LocalServer, certificates: Certificates
) -> None:
    chosen = settings(
        server.engine,
        server.port,
        host="localhost",
        auth="iam",
        signing_host="the-proxy.proxy-demo.us-east-1.rds.amazonaws.com",
        sslrootcert=str(certificates.ca_path),
    )
    error = attempt(chosen, IamProvider(keys=lambda: KEYS))
    assert isinstance(error, TlsError)
    assert "SIGNING_HOST" in error.remedy


def test_a_tunnel_is_verified_by_the_name_of_what_is_behind_it(
    server_class: type[LocalServer], certificates: Certificates
) -> None:
    with server_class(certificates=certificates.for_other_name()) as server:
        chosen = settings(
            server.engine,
            server.port,
            host="localhost",
            password=Secret(server.password),
            sslrootcert=str(certificates.ca_path),
        )
        assert isinstance(attempt(chosen), TlsError)
        db: ConnectionManager[Any] = ConnectionManager(chosen.replace(signing_host=OTHER_NAME))
        with db.connection(10) as connection:
            assert query(connection, "SELECT 1") == 1
        db.close()


@pytest.fixture
def clear_postgres(own_postgres: LocalPostgres) -> LocalPostgres:
    """A PostgreSQL that asks for passwords in clear inside TLS, as RDS does for IAM tokens."""
    (own_postgres.home / "data" / "pg_hba.conf").write_text(
        "local all postgres trust\nhostssl all all 127.0.0.1/32 password\n"
    )
    own_postgres.execute("SELECT pg_reload_conf()")
    return own_postgres


def test_a_token_is_given_in_clear_to_a_verified_server_and_a_password_is_not(
    clear_postgres: LocalPostgres, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeClock()
    provider = IamProvider(keys=lambda: KEYS, clock=clock)
    chosen = settings(
        "postgresql",
        clear_postgres.port,
        host="localhost",
        auth="iam",
        signing_host="localhost",
        region="us-east-1",
        sslrootcert=str(certificates.ca_path),
    )
    given: Credentials = provider.fetch(chosen, Deadline(None, reserve_s=0, clock=clock))
    assert given.password is not None
    clear_postgres.execute(f"ALTER ROLE app PASSWORD '{given.password.reveal()}'")
    # Under each of these, which libpq reads, the login would fail, were the setting left to libpq.
    for name, value in {"CHANNELBINDING": "require", "GSSENCMODE": "require", "REQUIREAUTH": "scram-sha-256"}.items():
        monkeypatch.setenv(f"PG{name}", value)
    db: ConnectionManager[Any] = ConnectionManager(chosen, credentials=provider)
    with db.connection(10) as connection:
        assert query(connection, "SELECT 1") == 1
    db.close()
    error = attempt(chosen.replace(auth="password", password=given.password, signing_host=None))
    assert isinstance(error, AuthenticationError)
    assert "authentication method requirement" in str(error)


def test_a_token_in_clear_inside_tls_is_not_shown_when_the_server_hangs_up_just_then(
    certificates: Certificates,
) -> None:
    with impostor(mysql_with_tls(certificates)) as server:
        chosen = settings(
            "mysql",
            server.port,
            host="localhost",
            auth="iam",
            signing_host="localhost",
            region="us-east-1",
            connect_timeout_s=0.5,
            sslrootcert=str(certificates.ca_path),
        )
        error = attempt(chosen, IamProvider(keys=lambda: KEYS))
    shown = everything_shown(error)
    assert SIGNATURE in server.heard
    assert SIGNATURE.decode() not in shown


def test_a_token_is_given_to_no_other_method(postgres: LocalPostgres, certificates: Certificates) -> None:
    chosen = settings(
        "postgresql",
        postgres.port,
        host="localhost",
        auth="iam",
        signing_host="localhost",
        region="us-east-1",
        sslrootcert=str(certificates.ca_path),
    )
    error = attempt(chosen, IamProvider(keys=lambda: KEYS))
    assert isinstance(error, AuthenticationError)
    assert "authentication method requirement" in str(error)


def test_plaintext_to_a_host_that_is_not_this_machine_is_warned_of() -> None:
    with pytest.warns(LambdaDbConnWarning, match="all traffic with db.example.org can be read"):
        settings("mysql", 3306, host="db.example.org", sslmode="disable")
