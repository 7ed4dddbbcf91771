"""`db.reader`: a read-only endpoint of the local RDS Proxy, and what happens while it has no readers."""

from __future__ import annotations

import errno
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg
import pymysql
import pytest

from lambda_dbconn import AuthenticationError, ProxyBusyError
from lambda_dbconn.events import ConnectionOpened, ConnectionReplaced
from lambda_dbconn.testing.fakes import RecordingObserver
from lambda_dbconn.testing.relay import FaultRelay
from tests.support.database import ShiftedClock
from tests.support.rds_proxy import DRIVER_ERRORS, READER_ADDRESS, make_proxy, managing, rows, value
from tests.support.snippets import ROOT, snippets_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from lambda_dbconn import ConnectionManager
    from lambda_dbconn.testing.certificates import Certificates
    from lambda_dbconn.testing.rds_proxy import LocalRdsProxy
    from lambda_dbconn.testing.servers import LocalServer

WRITES = (psycopg.errors.ReadOnlySqlTransaction, pymysql.err.OperationalError)
_PAGE = Path("docs/how-to/reader-endpoint.md")
(NOTE,) = [
    snippet.code.strip()
    for snippet in snippets_of(_PAGE, (ROOT / _PAGE).read_text(encoding="utf-8"))
    if snippet.language == "text"
]


class Endpoints(NamedTuple):
    """A proxy's two endpoints; the way to the second has the first one's port."""

    writer: LocalRdsProxy
    reader: LocalRdsProxy
    way: FaultRelay


@pytest.fixture
def endpoints(server: LocalServer, proxy_certificates: Certificates) -> Iterator[Endpoints]:
    server.execute("CREATE TABLE IF NOT EXISTS readings (id int)")
    server.execute("GRANT ALL ON readings TO app")
    with (
        make_proxy(server, certificates=proxy_certificates) as writer,
        make_proxy(server, certificates=proxy_certificates, is_read_only=True) as reader,
        FaultRelay(target_host="127.0.0.1", target_port=reader.port, host=READER_ADDRESS, port=writer.port) as way,
    ):
        yield Endpoints(writer, reader, way)


@pytest.fixture
def observer() -> RecordingObserver:
    return RecordingObserver()


@pytest.fixture
def clock() -> ShiftedClock:
    return ShiftedClock()


def managed(endpoints: Endpoints, **options: Any) -> AbstractContextManager[ConnectionManager[Any]]:
    return managing(endpoints.writer, reader_host=READER_ADDRESS, **options)


def logins(endpoints: Endpoints) -> tuple[int, int]:
    return endpoints.writer.stats().logins, endpoints.reader.stats().logins


def test_reads_go_to_the_reader_and_writes_to_the_writer(endpoints: Endpoints) -> None:
    with managed(endpoints) as db:
        with db.reader.connection(20) as connection:
            assert value(connection, "SELECT count(*) FROM readings") >= 0
        assert logins(endpoints) == (0, 1)
        with db.connection(20) as connection, db.reader.connection(20) as other:
            rows(connection, "INSERT INTO readings VALUES (1)")
            assert value(other, "SELECT count(*) FROM readings") >= 1
        assert logins(endpoints) == (1, 1)


def write(connection: Any, raised: list[BaseException]) -> None:
    """Write, and keep what that raises."""
    try:
        rows(connection, "INSERT INTO readings VALUES (1)")
    except DRIVER_ERRORS as error:
        raised.append(error)
        raise


@pytest.mark.parametrize("lend", ["connection", "transaction"])
def test_a_write_on_the_reader_is_the_drivers_own_error_with_a_note(endpoints: Endpoints, lend: str) -> None:
    raised: list[BaseException] = []
    with managed(endpoints) as db:
        with pytest.raises(WRITES) as caught, getattr(db.reader, lend)(20) as connection:
            write(connection, raised)
        assert caught.value is raised[0]
        assert caught.value.__notes__ == [NOTE]
        with db.reader.connection(20) as connection:  # and nothing was taken for a failover
            assert value(connection, "SELECT count(*) FROM readings") >= 0
        assert logins(endpoints) == (0, 1)


def test_a_write_on_the_reader_is_not_run_again(endpoints: Endpoints) -> None:
    raised: list[BaseException] = []
    with managed(endpoints) as db, pytest.raises(WRITES) as caught:
        db.reader.run(lambda connection: write(connection, raised), 20)
    assert raised == [caught.value]
    assert caught.value.__notes__ == [NOTE]


def write_an_order(connection: Any) -> None:
    try:
        write(connection, [])
    except DRIVER_ERRORS as error:
        raise LookupError("no such order") from error


def test_an_error_of_the_applications_own_leaves_the_note_with_the_drivers(endpoints: Endpoints) -> None:
    with managed(endpoints) as db, pytest.raises(LookupError) as caught, db.reader.connection(20) as connection:
        write_an_order(connection)
    assert not hasattr(caught.value, "__notes__")
    assert isinstance(caught.value.__cause__, WRITES)
    assert caught.value.__cause__.__notes__ == [NOTE]


def test_without_the_option_a_reader_that_has_no_readers_is_an_error(endpoints: Endpoints) -> None:
    endpoints.reader.fail_next_logins(1_000, "borrow_timeout")
    with managed(endpoints, connect_timeout_s=2.0) as db:
        with pytest.raises(ProxyBusyError), db.reader.connection(20):
            pytest.fail("it is connected")
        assert logins(endpoints) == (0, 0)


def test_with_it_reads_go_to_the_writer_until_the_reader_is_tried_again(
    endpoints: Endpoints, observer: RecordingObserver, clock: ShiftedClock
) -> None:
    endpoints.reader.fail_next_logins(1_000, "borrow_timeout")
    options: dict[str, Any] = {"reader_fallback": "writer", "connect_timeout_s": 1.0}
    with managed(endpoints, observer=observer, clock=clock, **options) as db:
        for _ in range(3):
            with db.reader.connection(20) as connection:
                rows(connection, "INSERT INTO readings VALUES (1)")
        assert logins(endpoints) == (1, 0)
        with db.connection(20), db.reader.connection(20):  # one thread may hold both, as ever
            pass
        (opened, *_) = observer.of(ConnectionOpened)
        assert (opened.endpoint, opened.reason) == (db.settings.address, "first")

        endpoints.reader.restart()  # and forgets whom it was to refuse
        clock.advance(301)
        with db.reader.connection(20) as connection, pytest.raises(WRITES):
            rows(connection, "INSERT INTO readings VALUES (1)")
        assert logins(endpoints) == (2, 1)
        assert [event.reason for event in observer.of(ConnectionReplaced)] == ["lifetime"]
        assert observer.of(ConnectionOpened)[-1].endpoint == db.reader.settings.address


@pytest.mark.parametrize("fault", ["refuse", "black_hole"])
def test_a_reader_that_is_out_of_reach_leaves_time_for_the_writer(endpoints: Endpoints, fault: str) -> None:
    getattr(endpoints.way, fault)()
    options: dict[str, Any] = {"reader_fallback": "writer", "connect_timeout_s": 60}
    with managed(endpoints, **options) as db, db.reader.connection(8.0) as connection:
        assert value(connection, "SELECT 1") == 1
    assert logins(endpoints) == (1, 0)


@pytest.mark.parametrize(
    "failure",
    [OSError(errno.EBUSY, "Device or resource busy"), socket.gaierror(socket.EAI_AGAIN, "Temporary failure"), None],
    ids=["busy", "temporary", "silent"],
)
def test_a_resolver_that_has_trouble_with_the_readers_name_leaves_time_for_the_writer(
    endpoints: Endpoints, monkeypatch: pytest.MonkeyPatch, failure: OSError | None
) -> None:
    may_answer, resolve = threading.Event(), socket.getaddrinfo

    def getaddrinfo(host: Any, *arguments: Any) -> Any:
        """Stand for a resolver that fails, or whose name server does not answer, for one name."""
        if host != READER_ADDRESS:
            return resolve(host, *arguments)
        if socket.AI_NUMERICHOST in arguments:
            raise socket.gaierror(socket.EAI_NONAME, "a name")
        assert may_answer.wait(60)
        raise failure or socket.gaierror(socket.EAI_AGAIN, "at last")

    if failure is not None:
        may_answer.set()
    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    options: dict[str, Any] = {"reader_fallback": "writer", "connect_timeout_s": 60}
    try:
        with managed(endpoints, **options) as db, db.reader.connection(8.0) as connection:
            assert value(connection, "SELECT 1") == 1
    finally:
        may_answer.set()
    assert logins(endpoints) == (1, 0)


def test_what_no_later_try_would_mend_is_no_reason_to_go_to_the_writer(endpoints: Endpoints) -> None:
    endpoints.reader.fail_next_logins(1, "wrong_password")
    with managed(endpoints, reader_fallback="writer") as db:
        with pytest.raises(AuthenticationError), db.reader.connection(20):
            pytest.fail("it is connected")
        assert logins(endpoints) == (0, 0)


def test_when_the_writer_refuses_as_well_that_is_what_is_raised(endpoints: Endpoints) -> None:
    for proxy in (endpoints.reader, endpoints.writer):
        proxy.fail_next_logins(1_000, "connection_limit")
    options: dict[str, Any] = {"reader_fallback": "writer", "connect_timeout_s": 1.5}
    with managed(endpoints, **options) as db, pytest.raises(ProxyBusyError) as caught, db.reader.connection(20):
        pytest.fail("it is connected")
    assert db.settings.address in str(caught.value)
    before: BaseException | None = caught.value
    while before is not None and db.reader.settings.address not in str(before):
        before = before.__context__
    assert isinstance(before, ProxyBusyError)
