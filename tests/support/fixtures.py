"""Certificates and real servers; those for the session are shared, so leave them as you find them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TypeVar

import pytest

from lambda_dbconn.testing.certificates import Certificates
from lambda_dbconn.testing.runtime_api import RuntimeUnavailableError
from lambda_dbconn.testing.servers import LocalMariaDB, LocalPostgres, LocalServer, ServerUnavailableError
from lambda_dbconn.testing.servers.process import make_temporary_directory, remove_temporary_directory
from tests.support import emulator as emulators
from tests.support.mysql import LocalMySQL, install
from tests.support.mysql_router import LocalMySqlRouter
from tests.support.pgbouncer import LocalPgBouncer
from tests.support.rds_proxy import PROXY_NAME, READER_ADDRESS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

# Where one of these is set, a missing server fails the tests that need it, instead of skipping them.
_REQUIRE_SERVERS = ("CI", "LAMBDA_DBCONN_REQUIRE_SERVERS")
_REQUIRE_MYSQL = ("LAMBDA_DBCONN_REQUIRE_MYSQL",)
_REQUIRE_EMULATOR = ("LAMBDA_DBCONN_REQUIRE_EMULATOR",)

_Server = TypeVar("_Server", bound=LocalServer)


def pytest_report_header() -> list[str]:
    """Say which servers the tests would start."""
    engines = (LocalPostgres, LocalMariaDB, LocalPgBouncer, LocalMySQL, LocalMySqlRouter)
    servers = [f"{engine.__name__}: {_version(engine.version)}" for engine in engines]
    return [*servers, f"LocalEmulator: {_version(lambda: f'of aws-sam-cli {emulators.program().parent.name}')}"]


def _version(version: Callable[[], str]) -> str:
    try:
        return version()
    except (ServerUnavailableError, RuntimeUnavailableError) as error:
        return f"NOT AVAILABLE: {error}"


def _is_set(*names: str) -> bool:
    return any(os.environ.get(name, "") not in {"", "0", "false"} for name in names)


def _require(server: LocalServer, *, required_by: tuple[str, ...] = _REQUIRE_SERVERS) -> None:
    """Skip the test when the server is not installed, or fail it where it has to be."""
    reason = ""
    try:
        server.version()
        if not server.is_tls:
            reason = f"{server.version()} is built without TLS, which these tests are about"
    except ServerUnavailableError as error:
        reason = str(error)
    if reason and _is_set(*required_by):
        pytest.fail(reason, pytrace=False)
    if reason:
        pytest.skip(reason)


def _running(server: _Server, *, required_by: tuple[str, ...] = _REQUIRE_SERVERS) -> Iterator[_Server]:
    """Start a server for a fixture, and close it after; one that is installed and does not start is an error."""
    _require(server, required_by=required_by)
    with server:
        yield server


@pytest.fixture
def temporary_directory() -> Iterator[Path]:
    """A short path for another process's TMPDIR: what is left in it, that process has left."""
    directory = make_temporary_directory()
    directory.chmod(0o755)  # where root has to stand back for `nobody`, that one must get through
    yield directory
    remove_temporary_directory(directory)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates.create(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def proxy_certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """What a proxy shows: a certificate for its own name, and for an address beside localhost's."""
    return Certificates.create(tmp_path_factory.mktemp("proxy"), extra_names=[PROXY_NAME, READER_ADDRESS])


@pytest.fixture(scope="session")
def postgres(certificates: Certificates) -> Iterator[LocalPostgres]:
    yield from _running(LocalPostgres(certificates=certificates))


@pytest.fixture(scope="session")
def mariadb(certificates: Certificates) -> Iterator[LocalMariaDB]:
    yield from _running(LocalMariaDB(certificates=certificates))


@pytest.fixture(scope="session")
def pgbouncer(certificates: Certificates, postgres: LocalPostgres) -> Iterator[LocalPgBouncer]:
    yield from _running(LocalPgBouncer(backend=postgres, certificates=certificates))


@pytest.fixture(scope="session")
def mysql(certificates: Certificates) -> Iterator[LocalMySQL]:
    if _is_set(*_REQUIRE_MYSQL):
        install()
    yield from _running(LocalMySQL(certificates=certificates), required_by=_REQUIRE_MYSQL)


@pytest.fixture
def own_postgres(certificates: Certificates) -> Iterator[LocalPostgres]:
    """A PostgreSQL that the test may freeze, kill and restart."""
    yield from _running(LocalPostgres(certificates=certificates))


@pytest.fixture
def own_mariadb(certificates: Certificates) -> Iterator[LocalMariaDB]:
    """A MariaDB that the test may freeze, kill and restart."""
    yield from _running(LocalMariaDB(certificates=certificates))


@pytest.fixture(scope="module")
def pooled_postgres(certificates: Certificates) -> Iterator[LocalPostgres]:
    """A PostgreSQL for the poolers of one module, which count its sessions; PgBouncer is there, too."""
    server = LocalPostgres(certificates=certificates)
    _require(LocalPgBouncer(backend=server, certificates=certificates))
    yield from _running(server)


@pytest.fixture(scope="module")
def pooled_mysql(certificates: Certificates) -> Iterator[LocalMySQL]:
    """A MySQL for the poolers of one module, which count its sessions; MySQL Router is there, too."""
    if _is_set(*_REQUIRE_MYSQL):
        install()
    server = LocalMySQL(certificates=certificates)
    router = LocalMySqlRouter(backend=server, certificates=certificates, idle_connections=1)
    _require(router, required_by=_REQUIRE_MYSQL)
    yield from _running(server, required_by=_REQUIRE_MYSQL)


@pytest.fixture(scope="session")
def emulator() -> None:
    """AWS's emulator is there; each test starts its own."""
    try:
        if _is_set(*_REQUIRE_EMULATOR):
            emulators.install()
        emulators.program()
    except RuntimeUnavailableError as error:
        if _is_set(*_REQUIRE_EMULATOR):
            pytest.fail(str(error), pytrace=False)
        pytest.skip(str(error))


@pytest.fixture(params=["postgres", "mariadb"])
def server(request: pytest.FixtureRequest) -> LocalServer:
    """Each database engine in turn, shared by the session."""
    shared: LocalServer = request.getfixturevalue(request.param)
    return shared


@pytest.fixture(params=["own_postgres", "own_mariadb"])
def own_server(request: pytest.FixtureRequest) -> LocalServer:
    """Each database engine in turn, which the test may freeze, kill and restart."""
    own: LocalServer = request.getfixturevalue(request.param)
    return own


@pytest.fixture(params=[LocalPostgres, LocalMariaDB], ids=["postgres", "mariadb"])
def server_class(request: pytest.FixtureRequest, certificates: Certificates) -> type[LocalServer]:
    """The class, for a test that needs servers made in its own way; they start from the template too."""
    engine: type[LocalServer] = request.param
    _require(engine(certificates=certificates))
    return engine
