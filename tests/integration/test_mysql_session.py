"""A MySQL session from login to reset: what it is, what may be sent, and how it is put back."""

from __future__ import annotations

import os
import socket
import time
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import pymysql
import pytest
from pymysql.constants import FIELD_TYPE
from pymysql.cursors import DictCursor, SSCursor

from lambda_dbconn import DeadlineExceededError, Secret
from lambda_dbconn.drivers import ErrorKind, SessionState
from tests.support.database import LIMIT_S, behind_a_relay, database_of, deed, do, fetch
from tests.support.mysql_driver import Session, session_of
from tests.support.mysql_router import LocalMySqlRouter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lambda_dbconn.testing.certificates import Certificates
    from tests.support.database import Database
    from tests.support.mysql import LocalMySQL

# PyMySQL says that asking for it is deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:The 'reconnect' argument is deprecated:DeprecationWarning")

CLEAN, IN_TRANSACTION, UNUSABLE = SessionState.CLEAN, SessionState.IN_TRANSACTION, SessionState.UNUSABLE
SERVERS = [
    "mariadb-tls",
    "mariadb-plain",
    *(pytest.param(f"mysql-{way}", marks=pytest.mark.once) for way in ("tls", "plain")),
]


@pytest.fixture(params=SERVERS)
def database(request: pytest.FixtureRequest) -> Iterator[Database]:
    """Each server, with TLS and without."""
    yield from database_of(request)


@pytest.fixture
def session(database: Database) -> Iterator[Session]:
    with session_of(database) as session:
        yield session


# --- login


@contextmanager
def autocommit_off(database: Database) -> Iterator[None]:
    """Let new sessions begin without autocommit; MySQL 9's status flags say the contrary."""
    database.backend.execute("SET GLOBAL autocommit = 0")
    try:
        yield
    finally:
        database.backend.execute("SET GLOBAL autocommit = 1")


def test_a_login_says_autocommit_whatever_the_server_begins_with(database: Database) -> None:
    with autocommit_off(database), session_of(database) as session:
        assert session.fetch("SELECT @@autocommit") == ((1,),)
        session.reset()
        assert session.fetch("SELECT @@autocommit") == ((1,),)
        session.fetch("SELECT * FROM deeds LIMIT 1")
        database.forget()
        assert session.state() is CLEAN
        assert database.cost() == (0, 0)


def test_a_loan_that_only_reads_leaves_no_snapshot_to_the_next(database: Database) -> None:
    (name,) = database.make_things(1)
    db = database.manager()

    def look() -> int:
        with db.connection() as connection:
            return int(fetch(connection, "SELECT touched FROM things WHERE name = %s", name)[0][0])

    with autocommit_off(database):
        seen = [look()]
    database.backend.execute("UPDATE things SET touched = 1 WHERE name = %s", name)
    assert [*seen, look()] == [0, 1]
    assert db.stats().opened == 1


@pytest.mark.parametrize("database", SERVERS[1::2], indirect=True)  # TLS leaves its round trips to chance
def test_saying_it_costs_no_round_trip(database: Database) -> None:
    database.forget()
    with closing(pymysql_session(database)):
        theirs = database.relay.round_trips
    database.forget()
    session = Session(database.settings())
    assert database.relay.round_trips == theirs
    session.driver.close(session.connection)


def pymysql_session(database: Database) -> Any:
    """Connect as PyMySQL by itself does, which sends SET NAMES."""
    server = database.server
    return pymysql.connect(
        host="127.0.0.1",
        port=database.relay.port,
        user=server.user,
        password=server.password,
        database=server.database,
        autocommit=True,
        ssl_disabled=True,
    )


@pytest.mark.parametrize("password", ["my-sécrét-pw", "пароль-パスワード-☠-😀", "latin\u00ff1"])
def test_a_password_is_sent_as_servers_store_it(password: str, database: Database) -> None:
    backend = database.backend
    backend.execute("DROP USER IF EXISTS accented")
    backend.execute("CREATE USER accented IDENTIFIED BY %s", password)
    try:
        for _ in range(2):  # `caching_sha2_password` has a long way and a short one
            with session_of(database, user="accented", password=Secret(password), name=None) as session:
                assert session.fetch("SELECT 1") == ((1,),)
    finally:
        backend.execute("DROP USER accented")


# --- what may be sent, and when

SENDING: dict[str, Callable[[Any], object]] = {
    "query": lambda c: c.cursor().execute("SELECT 1"),
    "stream": lambda c: c.cursor(SSCursor).execute("SELECT 1"),
    "executemany": lambda c: c.cursor().executemany("INSERT INTO deeds VALUES (%s)", [["a"], ["b"]]),
    "begin": lambda c: c.begin(),
    "commit": lambda c: c.commit(),
    "rollback": lambda c: c.rollback(),
    "ping": lambda c: c.ping(),
    "ping that would reconnect": lambda c: c.ping(reconnect=True),
    "kill": lambda c: c.kill(1),
    "select_db": lambda c: c.select_db("information_schema"),
    "set_character_set": lambda c: c.set_character_set("latin1"),
    "autocommit": lambda c: c.autocommit(False),
    "show_warnings": lambda c: c.show_warnings(),
}


@pytest.mark.parametrize("name", SENDING)
def test_over_nothing_is_sent_and_the_connection_goes_on(name: str, session: Session, database: Database) -> None:
    shown: list[str | bytes] = []
    session.driver.watch(session.connection, shown.append)
    database.forget()
    session.expire()
    with pytest.raises(DeadlineExceededError, match="not sent"):
        SENDING[name](session.connection)
    assert (database.relay.bytes_from_client, shown, session.interrupts) == (0, [], 0)
    assert not session.driver.has_sent(session.connection)
    assert session.state() is CLEAN
    session.driver.restore(session.connection)
    session.acquire()
    assert session.fetch("SELECT @@autocommit, 'ä'") == ((1, "ä"),)


@pytest.mark.parametrize("name", SENDING)
def test_released_nothing_is_sent_and_the_connection_goes_on(name: str, session: Session, database: Database) -> None:
    shown: list[str | bytes] = []
    session.driver.watch(session.connection, shown.append)
    database.forget()
    session.release()
    with pytest.raises(pymysql.InterfaceError, match="released at the end of its `with` block") as raised:
        SENDING[name](session.connection)
    assert (database.relay.bytes_from_client, shown) == (0, [])
    assert session.driver.classify(session.connection, raised.value) is ErrorKind.OTHER
    session.acquire()
    assert session.state() is CLEAN
    assert session.fetch("SELECT 7") == ((7,),)


def test_a_commit_is_not_sent_when_the_time_is_over_and_the_transaction_can_be_rolled_back(
    session: Session, database: Database
) -> None:
    name = deed()
    session.driver.begin(session.connection, read_only=False, isolation=None)
    do(session.connection, name)
    session.expire()
    with pytest.raises(DeadlineExceededError, match="not sent"):
        session.driver.commit(session.connection)
    assert session.state() is IN_TRANSACTION
    session.driver.rollback(session.connection, timeout_s=LIMIT_S)
    assert session.state() is CLEAN
    assert database.count(name) == 0
    assert session.interrupts == 0


@pytest.mark.parametrize("end", ["expire", "release"])
def test_the_librarys_own_calls_are_made_all_the_same(end: str, session: Session) -> None:
    session.fetch("SET SESSION time_zone = '+03:00'")
    getattr(session, end)()
    session.driver.ping(session.connection, timeout_s=LIMIT_S)
    session.driver.rollback(session.connection, timeout_s=LIMIT_S)
    session.reset()
    assert session.state() is CLEAN
    session.driver.close(session.connection)


def test_a_cursor_that_was_kept_reads_nothing_of_the_next_loan(session: Session) -> None:
    kept = session.connection.cursor(SSCursor)
    kept.execute("SELECT 'mine' UNION SELECT 'too'")
    assert session.state() is CLEAN  # the rest is small
    session.driver.send_reset(session.connection, timeout_s=LIMIT_S)
    session.release()
    assert kept.nextset() is None
    with pytest.raises(pymysql.MySQLError):
        session.connection.next_result()
    kept.close()
    session.driver.finish_reset(session.connection, timeout_s=LIMIT_S)
    session.acquire()
    assert session.fetch("SELECT 'yours'") == (("yours",),)


def test_a_closed_connection_is_noticed_though_its_descriptor_is_another_sockets(session: Session) -> None:
    number = session.driver.fileno(session.connection)
    assert session.driver.is_open(session.connection)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        session.connection.close()
        os.dup2(ours.fileno(), number)
        try:
            assert not session.driver.is_open(session.connection)
            assert session.state() is UNUSABLE
            for call in (session.driver.ping, session.driver.finish_reset):
                with pytest.raises(pymysql.MySQLError):
                    call(session.connection, timeout_s=LIMIT_S)
        finally:
            os.close(number)


def test_a_connection_whose_close_was_interrupted_is_closed_without_an_error(session: Session) -> None:
    connection: Any = session.connection
    connection._closed = True  # PyMySQL's `close()` says so first
    session.driver.close(connection)
    assert not session.driver.is_open(connection)


def test_a_released_connection_is_not_read_from(session: Session) -> None:
    session.release()
    with pytest.raises(pymysql.InterfaceError, match="released"):
        session.connection.next_result()
    session.acquire()
    assert session.fetch("SELECT 7") == ((7,),)


def test_what_reads_on_after_the_release_is_refused_and_no_server_is_told_to_stop(session: Session) -> None:
    kept = session.connection.cursor(SSCursor)
    kept.execute("SELECT REPEAT('x', 50000) FROM information_schema.columns")
    session.release()
    with pytest.raises(pymysql.MySQLError):
        kept.fetchall()
    assert session.interrupts == 0
    assert session.state() is UNUSABLE
    session.driver.close(session.connection)


def test_a_transaction_whose_time_is_over_before_its_commit_is_rolled_back(database: Database) -> None:
    db, name = database.manager(reserve_s=0.0), deed()

    def work() -> None:
        with db.transaction(0.3) as connection:
            do(connection, name)
            time.sleep(0.4)

    with pytest.raises(DeadlineExceededError, match="not sent"):
        work()
    assert database.count(name) == 0
    assert (db.stats().opened, db.stats().open) == (1, 1)


# --- reset

LEAVING: dict[str, tuple[Callable[[Any], object], str, Any]] = {
    "a user variable": (lambda c: c.query("SET @left = 7"), "SELECT @left", None),
    "a variable set in a query": (lambda c: c.query("SELECT 7 INTO @left"), "SELECT @left", None),
    "a system variable": (
        lambda c: c.query("SET SESSION lock_wait_timeout = 77"),
        "SELECT @@lock_wait_timeout = 77",
        0,
    ),
    "a lock": (lambda c: c.query("SELECT GET_LOCK('left', 0)"), "SELECT IS_FREE_LOCK('left')", 1),
    "a database": (lambda c: c.select_db("information_schema"), "SELECT DATABASE()", "app"),
    "a character set": (lambda c: c.set_character_set("latin1"), "SELECT @@character_set_client", "utf8mb4"),
    "autocommit": (lambda c: c.autocommit(False), "SELECT @@autocommit", 1),
    "a level": (
        lambda c: c.query("SET SESSION TRANSACTION ISOLATION LEVEL SERIALIZABLE"),
        "SELECT @@{isolation} = 'SERIALIZABLE'",
        0,
    ),
}


@pytest.mark.parametrize("name", LEAVING)
def test_a_reset_puts_the_session_back_in_one_round_trip(name: str, session: Session, database: Database) -> None:
    leave, look, expected = LEAVING[name]
    leave(session.connection)
    assert session.driver.has_sent(session.connection)
    database.forget()
    session.driver.send_reset(session.connection, timeout_s=LIMIT_S)
    assert not session.driver.has_sent(session.connection)
    assert session.state() is UNUSABLE
    with pytest.raises(pymysql.OperationalError, match="not read to its end"):
        session.fetch("SELECT 1")
    session.driver.finish_reset(session.connection, timeout_s=LIMIT_S)
    assert database.cost() == (0, 1)
    assert session.state() is CLEAN
    assert database.cost() == (0, 1)
    isolation = session.fetch("SHOW VARIABLES WHERE Variable_name IN ('transaction_isolation', 'tx_isolation')")[0][0]
    assert session.fetch(look.format(isolation=isolation)) == ((expected,),)
    assert session.fetch("SELECT %s", "ä☠") == (("ä☠",),)


def test_five_thousand_resets_back_to_back_give_each_loan_its_own_answer(session: Session) -> None:
    for number in range(5000):
        connection = session.connection
        connection.query(f"SELECT {number}")
        assert connection._result.rows == ((number,),)
        assert session.state() is CLEAN
        session.driver.send_reset(connection, timeout_s=LIMIT_S)
        session.driver.finish_reset(connection, timeout_s=LIMIT_S)


def test_nothing_of_the_users_is_no_reason_for_a_reset(session: Session) -> None:
    assert not session.driver.has_sent(session.connection)
    session.driver.ping(session.connection, timeout_s=LIMIT_S)
    assert session.state() is CLEAN
    assert not session.driver.has_sent(session.connection)
    session.connection.ping()
    assert session.driver.has_sent(session.connection)


def test_a_reset_that_is_not_answered_ends_with_its_time(session: Session, database: Database) -> None:
    database.relay.freeze()
    session.driver.send_reset(session.connection, timeout_s=LIMIT_S)
    began = time.monotonic()
    with pytest.raises(pymysql.OperationalError):
        session.driver.finish_reset(session.connection, timeout_s=0.2)
    assert 0.2 <= time.monotonic() - began < LIMIT_S / 2
    assert session.state() is UNUSABLE
    database.relay.heal()


def test_a_reset_that_the_server_refuses_is_an_error(session: Session, database: Database) -> None:
    database.backend.execute("CREATE DATABASE passing")
    database.backend.execute("GRANT ALL ON passing.* TO app")
    with session_of(database, name="passing") as passing:
        database.backend.execute("DROP DATABASE passing")
        passing.driver.send_reset(passing.connection, timeout_s=LIMIT_S)
        with pytest.raises(pymysql.OperationalError, match="passing"):
            passing.driver.finish_reset(passing.connection, timeout_s=LIMIT_S)
        assert passing.state() is UNUSABLE


def test_a_session_that_is_not_at_rest_is_not_reset(session: Session) -> None:
    session.connection._execute_command(3, "SELECT 1")
    with pytest.raises(pymysql.OperationalError, match="not read to its end"):
        session.driver.send_reset(session.connection, timeout_s=LIMIT_S)


def test_a_session_without_a_database_is_reset_unless_it_has_one_meanwhile(database: Database) -> None:
    with session_of(database, name=None) as session:
        session.fetch("SET @left = 7")
        session.connection.decoders = {}
        session.reset()
        assert session.state() is CLEAN
        assert session.fetch("SELECT @left, DATABASE()") == ((None, None),)
        session.fetch("USE app")
        session.driver.send_reset(session.connection, timeout_s=LIMIT_S)
        with pytest.raises(pymysql.NotSupportedError):
            session.driver.finish_reset(session.connection, timeout_s=LIMIT_S)
        assert session.state() is UNUSABLE


@pytest.mark.parametrize("database", ["mariadb-plain"], indirect=True)
@pytest.mark.parametrize("name", ["app", None])
def test_an_old_server_gets_one_command_at_a_time(name: str | None, database: Database) -> None:
    with session_of(database, name=name) as session:
        connection = session.connection
        connection.server_version = "5.7.44"
        assert not session.driver.can_defer_reset(connection)
        session.fetch("SET @left = 7")
        connection.set_character_set("latin1")
        database.forget()
        session.driver.send_reset(connection, timeout_s=LIMIT_S)
        assert session.state() is UNUSABLE
        session.driver.finish_reset(connection, timeout_s=LIMIT_S)
        assert database.cost() == (0, 3)
        assert session.fetch("SELECT @left, @@character_set_client, DATABASE()") == ((None, "utf8mb4", name),)
        assert session.state() is CLEAN


@pytest.mark.once
def test_mysql_router_takes_a_reset_in_one_write(pooled_mysql: LocalMySQL, certificates: Certificates) -> None:
    with (
        LocalMySqlRouter(backend=pooled_mysql, certificates=certificates, idle_connections=1) as router,
        behind_a_relay(router, is_tls=True, backend=pooled_mysql) as database,
        session_of(database) as session,
    ):
        for number in range(200):
            assert session.fetch("SELECT @left, %s", number) == ((None, number),)
            session.fetch("SET @left = 7")
            session.reset()


# --- what a caller has set on the object


def test_what_was_set_on_the_object_is_restored(session: Session) -> None:
    connection = session.connection
    connection.cursorclass = DictCursor
    connection.decoders[FIELD_TYPE.LONGLONG] = str
    connection.encoders = {}
    connection.use_unicode = False
    connection.autocommit_mode = False
    session.driver.restore(connection)
    assert session.fetch("SELECT 1, 'ä'") == ((1, "ä"),)
    connection.decoders = {}
    connection.encoders[int] = lambda *_: "8"
    session.driver.restore(connection)
    assert session.fetch("SELECT %s", 7) == ((7,),)
    assert connection.autocommit_mode is True


@pytest.mark.parametrize("level", ["serializable", "read committed"])
def test_a_transaction_begins_whatever_cursors_and_decoders_the_user_has_set(level: str, session: Session) -> None:
    connection = session.connection
    connection.cursorclass = DictCursor
    connection.decoders = {FIELD_TYPE.VAR_STRING: lambda _: 1 / 0}
    connection.puts_isolation_back = True  # as behind RDS Proxy, where no reset does so
    session.driver.begin(connection, read_only=False, isolation=level)
    session.driver.rollback(connection, timeout_s=LIMIT_S)
    assert session.state() is CLEAN
    session.driver.restore(connection)
    rows = session.fetch("SHOW VARIABLES WHERE Variable_name IN ('transaction_isolation', 'tx_isolation')")
    assert rows[0][1] == "REPEATABLE-READ"
