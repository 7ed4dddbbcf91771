"""Another server becomes the writer: directly, where the name leads elsewhere then, and through the local proxy."""

from __future__ import annotations

import socket
import time
from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg
import pymysql
import pytest

from lambda_dbconn import CommitUnknownError, ConnectionManager, Credentials, Secret, Settings
from lambda_dbconn.events import ConnectionReplaced
from lambda_dbconn.testing.certificates import Certificates
from lambda_dbconn.testing.fakes import RecordingObserver
from lambda_dbconn.testing.relay import FaultRelay
from tests.support.clients import wait_until
from tests.support.database import ShiftedClock
from tests.support.rds_proxy import make_proxy, managing, rows, value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lambda_dbconn.testing.servers import LocalServer

NAME = "orders.cluster.example"
OLD, NEW = "127.0.0.1", "127.0.0.2"
REFUSED_WRITES = (psycopg.errors.ReadOnlySqlTransaction, pymysql.err.OperationalError)


class Cluster(NamedTuple):
    """Two servers at two addresses with one port, and a name that leads to one of them.

    The name is resolved by the test, in the place of the system's resolver: that is the one part that is not real.
    """

    old: LocalServer
    new: LocalServer
    settings: Settings
    leads_to: list[str]
    asked: Counter[str]

    def writer(self) -> LocalServer:
        return self.old if self.leads_to == [OLD] else self.new

    def fail_over(self) -> None:
        """Demote the old writer, which goes on as a reader, and let the name lead to the new one."""
        demote(self.old)
        self.leads_to[:] = [NEW]


def demote(server: LocalServer) -> None:
    if server.engine == "postgresql":
        loaded = server.query("SELECT pg_conf_load_time()")
        server.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        server.execute("SELECT pg_reload_conf()")
        wait_until(lambda: server.query("SELECT pg_conf_load_time()") > loaded)
    else:
        server.execute("SET GLOBAL read_only = ON")


def make_table(server: LocalServer) -> None:
    server.execute("CREATE TABLE IF NOT EXISTS orders (item varchar(64))")
    server.execute("GRANT ALL ON orders TO app")


def count(server: LocalServer) -> int:
    return int(server.query("SELECT count(*) FROM orders")[0][0])


@pytest.fixture(scope="module")
def certificates_of_the_cluster(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates.create(tmp_path_factory.mktemp("cluster"), extra_names=[NAME])


@pytest.fixture
def cluster(
    server_class: Callable[..., LocalServer],
    certificates_of_the_cluster: Certificates,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Cluster]:
    certificates = certificates_of_the_cluster
    with (
        server_class(certificates=certificates) as old,
        server_class(certificates=certificates) as new,
        FaultRelay(target_host="127.0.0.1", target_port=new.port, host=NEW, port=old.port),
    ):
        make_table(old)
        make_table(new)
        leads_to, asked = [OLD], Counter[str]()
        resolve = socket.getaddrinfo

        def getaddrinfo(host: Any, *arguments: Any, **options: Any) -> Any:
            asked[str(host)] += 1
            return resolve(leads_to[0] if host == NAME else host, *arguments, **options)

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        settings = Settings(
            engine=old.engine,
            host=NAME,
            port=old.port,
            name="app",
            user="app",
            sslrootcert=str(certificates.ca_path),
        )
        yield Cluster(old, new, settings, leads_to, asked)


@pytest.fixture
def observer() -> RecordingObserver:
    return RecordingObserver()


@pytest.fixture
def db(cluster: Cluster, observer: RecordingObserver) -> Iterator[ConnectionManager[Any]]:
    def give() -> Credentials:
        return Credentials(user="app", password=Secret(cluster.writer().password))

    with closing(ConnectionManager[Any](cluster.settings, credentials=give, observer=observer)) as db:
        yield db


def order(connection: Any) -> None:
    rows(connection, "INSERT INTO orders VALUES ('a cup')")


def test_run_carries_a_write_that_met_the_demoted_writer_to_the_new_one(
    cluster: Cluster, db: ConnectionManager[Any], observer: RecordingObserver
) -> None:
    db.run(order, 20)
    cluster.fail_over()
    db.run(order, 20)
    assert (count(cluster.old), count(cluster.new)) == (1, 1)
    assert [event.reason for event in observer.of(ConnectionReplaced)] == ["read_only"]
    assert cluster.asked[NAME] == 2  # once for each connect: no address is kept


def test_run_waits_for_the_new_writer_while_the_name_still_leads_to_the_old_one(
    cluster: Cluster, db: ConnectionManager[Any]
) -> None:
    db.run(order, 20)
    demote(cluster.old)
    refused = 0

    def write(connection: Any) -> None:
        nonlocal refused
        try:
            order(connection)
        except REFUSED_WRITES:
            refused += 1
            if refused == 5:  # more than there are attempts
                cluster.leads_to[:] = [NEW]
            raise

    db.run(write, 20, attempts=2)
    assert refused == 5
    assert (count(cluster.old), count(cluster.new)) == (1, 1)


def test_connection_raises_the_drivers_error_once_and_is_at_the_new_writer_then(
    cluster: Cluster, db: ConnectionManager[Any], observer: RecordingObserver
) -> None:
    with db.connection(20) as connection:
        order(connection)
    cluster.fail_over()
    with pytest.raises(REFUSED_WRITES) as caught, db.connection(20) as connection:
        order(connection)
    assert not hasattr(caught.value, "__notes__")
    with db.connection(20) as connection:
        order(connection)
    assert (count(cluster.old), count(cluster.new)) == (1, 1)
    assert [event.reason for event in observer.of(ConnectionReplaced)] == ["read_only"]


def test_a_writer_that_stops_is_left_for_the_new_one(
    cluster: Cluster, db: ConnectionManager[Any], observer: RecordingObserver
) -> None:
    db.run(order, 20)
    cluster.old.stop()
    cluster.leads_to[:] = [NEW]
    db.run(order, 20)
    assert count(cluster.new) == 1
    assert [event.reason for event in observer.of(ConnectionReplaced)] == ["hang_up"]


def write_where_only_reading_was_announced(connection: Any) -> None:
    """By SQL on MySQL, which says so in its status; by psycopg's attribute on PostgreSQL, which does not."""
    if not isinstance(connection, psycopg.Connection):
        rows(connection, "START TRANSACTION READ ONLY")
        order(connection)
        return
    connection.read_only = True
    with connection.transaction():
        order(connection)


def test_a_write_in_a_transaction_that_the_caller_opened_read_only_is_no_failover(
    cluster: Cluster, db: ConnectionManager[Any], observer: RecordingObserver
) -> None:
    with pytest.raises((*REFUSED_WRITES, pymysql.err.InternalError)), db.connection(20) as connection:
        write_where_only_reading_was_announced(connection)
    with db.connection(20) as connection:
        assert value(connection, "SELECT 1") == 1
    assert observer.of(ConnectionReplaced) == []
    assert cluster.asked[NAME] == 1


# Blue/green, through the proxy


class Switchover(ShiftedClock):
    """Promotes the green side at the first pause between two tries."""

    def __init__(self, promote: Callable[[], None]) -> None:
        super().__init__()
        self._promotions = [promote]

    def sleep(self, seconds: float) -> None:  # type: ignore[override] # the base has a function there
        while self._promotions:
            self._promotions.pop()()
        time.sleep(seconds)


class BlueGreen(NamedTuple):
    """A proxy before the blue server, and the green one, which waits."""

    blue: LocalServer
    green: LocalServer
    proxy: Any

    def promote(self) -> None:
        """Let the proxy lead to the green side; it drops its clients' connections, as documented."""
        self.proxy.set_secret("app", self.green.password)
        self.proxy.switch_backend(self.green)
        self.proxy.restart()


@pytest.fixture
def deployment(
    server_class: Callable[..., LocalServer], certificates: Certificates, proxy_certificates: Certificates
) -> Iterator[BlueGreen]:
    with (
        server_class(certificates=certificates) as blue,
        server_class(certificates=certificates) as green,
        make_proxy(blue, certificates=proxy_certificates) as proxy,
    ):
        make_table(blue)
        make_table(green)
        yield BlueGreen(blue, green, proxy)


def passwords(deployment: BlueGreen) -> Callable[[], Credentials]:
    return lambda: Credentials(user="app", password=Secret(deployment.proxy.backend.password))


def test_a_write_refused_by_the_blue_side_is_run_again_on_the_green_one(
    deployment: BlueGreen, observer: RecordingObserver
) -> None:
    options: dict[str, Any] = {"credentials": passwords(deployment), "clock": Switchover(deployment.promote)}
    with managing(deployment.proxy, observer=observer, **options) as db:
        db.run(order, 20)
        demote(deployment.blue)
        db.run(order, 30)
    assert (count(deployment.blue), count(deployment.green)) == (1, 1)
    assert [event.reason for event in observer.of(ConnectionReplaced)] == ["read_only"]


def test_a_transaction_that_the_switchover_cuts_off_is_run_again_on_the_green_side(
    deployment: BlueGreen, observer: RecordingObserver
) -> None:
    calls: list[int] = []

    def order_meanwhile(connection: Any) -> None:
        calls.append(1)
        order(connection)
        if len(calls) == 1:
            deployment.proxy.set_secret("app", deployment.green.password)
            deployment.proxy.failover(to=deployment.green)
            order(connection)

    with managing(deployment.proxy, observer=observer, credentials=passwords(deployment)) as db:
        db.run(order_meanwhile, 30)
    assert (count(deployment.blue), count(deployment.green)) == (0, 1)
    assert calls == [1, 1]
    assert [event.reason for event in observer.of(ConnectionReplaced)] == ["lost"]


def test_a_commit_that_the_failover_meets_on_its_way_is_unknown_and_not_run_again(deployment: BlueGreen) -> None:
    calls: list[int] = []

    def order_and_lose_the_writer(connection: Any) -> None:
        calls.append(1)
        order(connection)
        deployment.proxy.set_secret("app", deployment.green.password)
        deployment.proxy.failover(to=deployment.green)

    with managing(deployment.proxy, credentials=passwords(deployment)) as db:
        with pytest.raises(CommitUnknownError), db.transaction(20) as connection:
            order_and_lose_the_writer(connection)
        with pytest.raises(CommitUnknownError):
            db.run(order_and_lose_the_writer, 20)
    assert calls == [1, 1]
    assert (count(deployment.blue), count(deployment.green)) == (0, 0)


def test_a_connection_that_was_dropped_while_idle_fails_no_invocation(
    deployment: BlueGreen, observer: RecordingObserver
) -> None:
    with managing(deployment.proxy, observer=observer, credentials=passwords(deployment)) as db:
        for _ in range(2):
            with db.connection(20) as connection:
                order(connection)
            deployment.promote()
    assert (count(deployment.blue), count(deployment.green)) == (1, 1)
    assert [event.reason for event in observer.of(ConnectionReplaced)] == ["hang_up"]


def test_a_failover_behind_the_proxy_lets_idle_clients_wait_for_the_new_writer(
    deployment: BlueGreen, observer: RecordingObserver
) -> None:
    with managing(deployment.proxy, observer=observer, credentials=passwords(deployment)) as db:
        db.run(order, 20)
        deployment.proxy.set_secret("app", deployment.green.password)
        deployment.proxy.failover(to=deployment.green, outage_s=0.5)
        db.run(order, 20)
    assert (count(deployment.blue), count(deployment.green)) == (1, 1)
    assert observer.of(ConnectionReplaced) == []
    assert deployment.proxy.stats().logins == 1
