"""A MySQL session is reused only when the driver knows that nothing is left to be read, and what state it is in."""

from __future__ import annotations

import random
import signal
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pymysql
import pytest
from pymysql.constants import COMMAND
from pymysql.cursors import DictCursor, SSCursor

from lambda_dbconn.drivers import SessionState, mysql
from lambda_dbconn.drivers.mysql_connection import Connection
from tests.support.database import LIMIT_S, MANY_ROWS, database_of, deed, do, fetch
from tests.support.mysql_driver import Session, session_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from tests.support.database import Database

CLEAN, IN_TRANSACTION, UNUSABLE = SessionState.CLEAN, SessionState.IN_TRANSACTION, SessionState.UNUSABLE
OUT_OF_STEP = "not read to its end"

MYSQL = [pytest.param(f"mysql-{way}", marks=pytest.mark.once) for way in ("tls", "plain")]


@pytest.fixture(params=["mariadb-tls", "mariadb-plain", *MYSQL])
def database(request: pytest.FixtureRequest) -> Iterator[Database]:
    """Each server, and each way: what a socket may hold back is not the same."""
    yield from database_of(request)


@pytest.fixture
def session(database: Database) -> Iterator[Session]:
    procedures(database)
    with session_of(database) as session:
        yield session


def procedures(database: Database) -> None:
    """Make procedures that send several results, fail, or leave a transaction open."""
    for name, body in {
        "two": "select 1; select 2;",
        "two_then_fail": "select 1; signal sqlstate '45000' set message_text = 'the second part failed';",
        "much": f"select 1; {MANY_ROWS};",
        "pay": "start transaction; insert into deeds values ('pay'); signal sqlstate '45000'; commit;",
        "settle": "insert into deeds values ('settle'); commit; start transaction; select 1;",
        "begin_only": "start transaction;",
    }.items():
        database.backend.execute(f"DROP PROCEDURE IF EXISTS {name}")
        database.backend.execute(f"CREATE PROCEDURE {name}() BEGIN {body} END")
        database.backend.execute(f"GRANT EXECUTE ON PROCEDURE app.{name} TO app")


# --- nothing that costs a round trip where the server has said all


def insert(connection: Any) -> object:
    return query(connection, f"INSERT INTO deeds VALUES ('{deed()}')")


QUIET: dict[str, Callable[[Any], object]] = {
    "a query": lambda c: c.cursor().execute("SELECT 1"),
    "no rows": lambda c: c.cursor().execute("SELECT 1 FROM dual WHERE 1 = 0"),
    "an insert": insert,
    "many rows at once": lambda c: c.cursor().executemany("INSERT INTO deeds VALUES (%s)", [["a"], ["b"]]),
    "one by one": lambda c: c.cursor().executemany("DELETE FROM deeds WHERE name = %s", [["a"], ["b"]]),
    "ping": lambda c: c.ping(),
    "commit": lambda c: c.commit(),
    "a transaction": lambda c: (c.begin(), insert(c), c.commit()),
    "rollback": lambda c: (c.begin(), insert(c), c.rollback()),
    "select_db": lambda c: c.select_db("information_schema"),
    "set_character_set": lambda c: c.set_character_set("utf8mb4", "utf8mb4_bin"),
    "show_warnings": lambda c: c.show_warnings(),
    "autocommit": lambda c: (c.autocommit(False), c.autocommit(True)),
    "all of a procedure's results": lambda c: all_results(c, "CALL two()"),
    "streamed": lambda c: c.cursor(SSCursor).execute("DO 1") or streamed(c, "SELECT 1 UNION SELECT 2"),
    "dictionaries": lambda c: c.cursor(DictCursor).execute("SELECT 1 AS one"),
    "rows after an error": lambda c: (failed(c, "SELECT nothing"), c.cursor().execute("SELECT 1")),
}


def all_results(connection: Any, statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)
        while cursor.nextset():
            pass


def streamed(connection: Any, statement: str) -> object:
    with connection.cursor(SSCursor) as cursor:
        cursor.execute(statement)
        return cursor.fetchall()


def failed(connection: Any, statement: str, cursor: Any = None) -> object:
    made = connection.cursor(cursor)
    with pytest.raises(pymysql.MySQLError):
        made.execute(statement) and made.fetchall()
    return made


OPEN: dict[str, Callable[[Any], object]] = {
    "a transaction": lambda c: c.begin(),
    "a transaction with rows": lambda c: (c.begin(), query(c, "SELECT 1")),
    "a procedure's": lambda c: query(c, "CALL begin_only()"),
    "without autocommit": lambda c: (c.autocommit(False), query(c, "SELECT * FROM deeds LIMIT 1")),
}


@pytest.mark.parametrize("name", OPEN)
def test_an_open_transaction_is_known_without_a_round_trip(name: str, session: Session, database: Database) -> None:
    OPEN[name](session.connection)
    database.forget()
    assert session.state() is IN_TRANSACTION
    assert database.cost() == (0, 0)
    session.driver.rollback(session.connection, timeout_s=LIMIT_S)
    assert session.state() is CLEAN
    assert session.fetch("SELECT @@autocommit") == ((1,),)


@pytest.mark.parametrize("name", QUIET)
def test_a_reply_that_was_read_to_its_end_needs_no_round_trip_at_release(
    name: str, session: Session, database: Database
) -> None:
    QUIET[name](session.connection)
    database.forget()
    assert session.state() is CLEAN
    assert database.cost() == (0, 0)
    assert session.fetch("SELECT 7") == ((7,),)


# --- one round trip where it has not

UNCERTAIN: dict[str, tuple[Callable[[Any], object], SessionState]] = {
    "an error": (lambda c: failed(c, "SELECT nothing"), CLEAN),
    "a syntax error": (lambda c: failed(c, "SELEC"), CLEAN),
    "a duplicate KILL": (lambda c: suppressed(c.kill, 999_999), CLEAN),
    "an error in a stream": (
        lambda c: failed(
            c, "SELECT IF(i = 3, (SELECT 1 UNION SELECT 2), i) FROM (SELECT 1 i UNION SELECT 3) n", SSCursor
        ),
        CLEAN,
    ),
    "a character set that the server does not have": (
        lambda c: suppressed(lambda: c.set_character_set("utf8mb4", "no_such_collation")),
        CLEAN,
    ),
    "no such database": (lambda c: suppressed(lambda: c.select_db("no_such_database")), CLEAN),
    "an error in an open transaction": (lambda c: (c.begin(), failed(c, "SELECT nothing")), IN_TRANSACTION),
    "a procedure that failed in its own transaction": (lambda c: failed(c, "CALL pay()"), IN_TRANSACTION),
}


def suppressed(call: Callable[..., object], *arguments: Any) -> None:
    with pytest.raises(pymysql.MySQLError):
        call(*arguments)


@pytest.mark.parametrize("name", UNCERTAIN)
def test_after_an_error_one_round_trip_tells_the_state(name: str, session: Session, database: Database) -> None:
    act, expected = UNCERTAIN[name]
    act(session.connection)
    database.forget()
    assert session.state() is expected
    assert database.cost() == (0, 1)
    if expected is IN_TRANSACTION:
        session.driver.rollback(session.connection, timeout_s=LIMIT_S)
        assert session.state() is CLEAN
    assert session.fetch("SELECT 7") == ((7,),)


def test_a_procedure_that_failed_in_its_own_transaction_does_not_touch_the_next_loan(database: Database) -> None:
    procedures(database)
    db, name = database.manager(), deed()
    database.backend.execute("DELETE FROM deeds WHERE name = 'pay'")
    with suppress(pymysql.MySQLError), db.connection() as connection:
        fetch(connection, "CALL pay()")
    with db.connection() as connection:
        do(connection, name)
    with db.transaction() as connection:
        fetch(connection, "SELECT 1")
    db.close()
    assert (database.count(name), database.count("pay")) == (1, 0)
    assert database.reasons() == []


# --- what was not read to its end


def stream(connection: Any, statement: str) -> Any:
    cursor = connection.cursor(SSCursor)
    cursor.execute(statement)
    cursor.fetchone()
    return cursor


def query(connection: Any, statement: str) -> Any:
    cursor = connection.cursor()
    cursor.execute(statement)
    return cursor


OWED: dict[str, Callable[[Any], object]] = {
    "a command": lambda c: c._execute_command(COMMAND.COM_QUERY, "SELECT 1"),
    "a prepared statement": lambda c: c._execute_command(COMMAND.COM_STMT_PREPARE, "SELECT 1"),
    "change of user": lambda c: c._execute_command(0x11, b"app\0\0app\0"),
    "many rows": lambda c: stream(c, MANY_ROWS),
    "many rows of a second result": lambda c: query(c, "CALL much()"),
}


@pytest.mark.parametrize("name", OWED)
def test_what_is_owed_makes_the_session_unusable(name: str, session: Session) -> None:
    kept = OWED[name](session.connection)
    assert session.state() is UNUSABLE
    session.driver.close(session.connection)
    del kept  # whose finalizer reads on, unless it knows better


def test_a_statement_is_not_sent_while_another_ones_reply_is_owed(session: Session) -> None:
    session.connection._execute_command(COMMAND.COM_QUERY, "SELECT 'theirs'")
    for ask in (lambda: session.fetch("SELECT 'mine'"), session.connection.commit, session.connection.next_result):
        with pytest.raises(pymysql.OperationalError, match=OUT_OF_STEP):
            ask()


SMALL = {
    "rows": lambda c: stream(c, "SELECT 1 UNION SELECT 2 UNION SELECT 3"),
    "two results": lambda c: query(c, "CALL two()"),
}


@pytest.mark.parametrize("name", SMALL)
def test_a_small_rest_is_read_at_release(name: str, session: Session) -> None:
    kept = SMALL[name](session.connection)
    assert session.state() is CLEAN
    assert session.fetch("SELECT 7") == ((7,),)
    assert kept.nextset() is None


def test_twenty_loans_with_an_unread_second_result_need_one_connection(database: Database) -> None:
    procedures(database)
    db = database.manager()
    for _ in range(20):
        with db.connection() as connection:
            assert query(connection, "CALL two()").fetchall() == ((1,),)
    assert db.stats().opened == 1


def test_an_error_in_an_unread_result_is_raised_at_the_end_of_its_own_loan(session: Session) -> None:
    query(session.connection, "CALL two_then_fail()")
    with pytest.raises(pymysql.OperationalError, match="the second part failed"):
        session.driver.read_rest(session.connection, within_s=lambda: LIMIT_S)
    session.driver.read_rest(session.connection, within_s=lambda: LIMIT_S)  # once
    assert session.state() is CLEAN


def test_reading_a_rest_ends_with_its_time(session: Session, database: Database) -> None:
    query(session.connection, "CALL much()")
    database.relay.freeze()
    assert session.driver.state(session.connection, within_s=lambda: 0.05) is UNUSABLE
    database.relay.heal()


def test_rows_that_were_given_up_are_not_taken_for_the_end(session: Session) -> None:
    cursor = stream(session.connection, MANY_ROWS)
    session.driver.close(session.connection)
    with pytest.raises(pymysql.InterfaceError, match="rest of the rows"):
        cursor.fetchone()


def test_load_local_leaves_nothing_to_read(
    session: Session, database: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    path = tmp_path / "rows.txt"
    path.write_text("".join(f"x{number}\n" for number in range(10_000)))
    monkeypatch.setattr(mysql, "Connection", lambda **options: Connection(local_infile=True, **options))
    ((before,),) = database.backend.query("SELECT @@global.local_infile")
    database.backend.execute("SET GLOBAL local_infile = 1")
    try:
        session.reopen()
        session.fetch(f"LOAD DATA LOCAL INFILE '{path}' INTO TABLE deeds")
        database.forget()
        assert session.state() is CLEAN
        assert database.cost() == (0, 0)
        failed(session.connection, f"LOAD DATA LOCAL INFILE '{path}x' INTO TABLE deeds")
        assert session.state() is UNUSABLE  # the error is PyMySQL's: it does not say whether the server has answered
    finally:
        database.backend.execute("SET GLOBAL local_infile = %s", before)


# --- interrupts


class Struck(BaseException):
    """What a signal handler raises."""


STATEMENTS: dict[str, Callable[[Any, int], object]] = {
    "query": lambda c, n: fetch(c, "SELECT %s, REPEAT('x', 5000)", n),
    "stream": lambda c, n: stream(c, f"SELECT {n} UNION SELECT {n} + 1"),
    "two results": lambda c, n: query(c, "CALL two()"),
    "two results, read": lambda c, n: all_results(c, "CALL two()"),
    "error": lambda c, n: suppressed(lambda: fetch(c, f"SELECT nothing{n}")),
    "transaction": lambda c, n: (c.begin(), c.commit()),
}


@contextmanager
def struck_at(place: int) -> Iterator[list[int]]:
    """Raise at the so many-th place in PyMySQL's code and ours; yield what counts them."""
    seen = [0]

    def trace(frame: FrameType, event: str, _: object) -> Any:
        if "pymysql" not in frame.f_code.co_filename and "lambda_dbconn/drivers" not in frame.f_code.co_filename:
            return None
        if event in ("call", "line", "return"):
            seen[0] += 1
            if seen[0] == place:
                raise Struck
        return trace

    sys.settrace(trace)
    try:
        yield seen
    finally:
        sys.settrace(None)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # in a destructor nobody can catch it
@pytest.mark.parametrize("database", ["mariadb-tls", "mariadb-plain"], indirect=True)
@pytest.mark.parametrize("name", STATEMENTS)
def test_an_interrupt_at_any_place_gives_the_next_loan_no_other_answer(name: str, session: Session) -> None:
    place, seen = 0, [0]
    while seen[0] >= place:
        place += 1
        with suppress(Struck), struck_at(place) as seen:
            STATEMENTS[name](session.connection, place)
        check_next(session, place)
    assert place > 50


def check_next(session: Session, number: int) -> None:
    """End the loan, and see that the next one, on this connection or another, gets its own answer."""
    state = session.state()
    if state is IN_TRANSACTION:
        session.driver.rollback(session.connection, timeout_s=LIMIT_S)
        state = session.state()
    if state is UNUSABLE:
        session.reopen()
    assert session.fetch("SELECT %s, 'next'", number) == ((number, "next"),)


@pytest.mark.parametrize("go_on", ["release", "next row", "next statement", "close"])
def test_the_half_of_a_packet_that_an_interrupt_has_left_is_not_read_as_the_next(
    go_on: str, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The value, which may be a stranger's, reads as the end of the rows when its packet's header is gone."""
    value = bytes((0, 0, 6, 0xFE, 0, 0, 2, 0))
    connection: Any = session.connection
    cursor = stream(connection, f"SELECT 'first' UNION ALL SELECT x'{value.hex()}' UNION ALL SELECT 'third'")
    with monkeypatch.context() as patch:
        reads = iter((connection._read_bytes,))

        def read(count: int) -> bytes:
            for real in reads:
                return bytes(real(count))
            raise Struck

        patch.setattr(connection, "_read_bytes", read, raising=False)
        with pytest.raises(Struck):
            cursor.fetchone()
    if go_on == "next row":
        with pytest.raises(pymysql.OperationalError, match=OUT_OF_STEP):
            cursor.fetchone()
    elif go_on == "next statement":
        with pytest.raises(pymysql.OperationalError, match=OUT_OF_STEP):
            query(connection, "SELECT 1")
    elif go_on == "close":
        cursor.close()
    assert session.state() is UNUSABLE


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # as above
def test_a_storm_of_signals_gives_no_loan_another_ones_answer(session: Session) -> None:
    chance = random.Random(7)

    def strike(*_: object) -> None:
        raise Struck

    before = signal.signal(signal.SIGALRM, strike)
    interrupts, number = 0, 0
    try:
        while interrupts < 200:
            number += 1
            name = chance.choice(list(STATEMENTS))
            try:
                signal.setitimer(signal.ITIMER_REAL, chance.uniform(0.00005, 0.0012))
                STATEMENTS[name](session.connection, number)
                signal.setitimer(signal.ITIMER_REAL, 0)
            except Struck:
                interrupts += 1
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
            check_next(session, number)
    finally:
        signal.signal(signal.SIGALRM, before)


# --- has the transaction been left?

LEFT: dict[str, Callable[[Any], object]] = {
    "COMMIT": lambda c: query(c, "COMMIT"),
    "ROLLBACK": lambda c: query(c, "ROLLBACK"),
    "DDL": lambda c: query(c, "CREATE TABLE IF NOT EXISTS other_deeds (name varchar(64))"),
    "LOCK TABLES": lambda c: query(c, "LOCK TABLES deeds READ"),
    "ANALYZE TABLE, which sends rows": lambda c: query(c, "ANALYZE TABLE deeds"),
    "autocommit": lambda c: (c.autocommit(False), query(c, "COMMIT")),
    "BEGIN": lambda c: (query(c, "COMMIT"), query(c, "BEGIN")),
    "DDL that fails": lambda c: failed(c, "CREATE TABLE deeds (name int)"),
    "DDL without an answer": lambda c: c._execute_command(COMMAND.COM_QUERY, "/* why */ CREATE TABLE deeds (name int)"),
    "a procedure that fails": lambda c: failed(c, "CALL pay()"),
    "a procedure that commits, and begins again": lambda c: (query(c, "COMMIT"), query(c, "CALL settle()")),
}
STAYED: dict[str, Callable[[Any], object]] = {
    "nothing": lambda c: None,
    "rows": lambda c: query(c, "SELECT 1"),
    "streamed rows": lambda c: streamed(c, "SELECT 1 UNION SELECT 2"),
    "a row": insert,
    "an error": lambda c: failed(c, "SELECT nothing"),
    "a row without an answer": lambda c: c._execute_command(COMMAND.COM_QUERY, "INSERT INTO deeds VALUES ('x')"),
    "ping": lambda c: c.ping(),
    "a savepoint": lambda c: (query(c, "SAVEPOINT s"), query(c, "ROLLBACK TO SAVEPOINT s")),
    "procedure": lambda c: all_results(c, "CALL two()"),
    "temporary table": lambda c: query(c, "CREATE TEMPORARY TABLE passing (i int)"),
}


@pytest.mark.parametrize(("name", "expected"), [*((name, True) for name in LEFT), *((name, False) for name in STAYED)])
def test_it_is_known_whether_a_transaction_was_left(name: str, expected: bool, session: Session) -> None:
    session.driver.begin(session.connection, read_only=False, isolation=None)
    (LEFT.get(name) or STAYED[name])(session.connection)
    assert session.driver.has_left_transaction(session.connection) is expected
    if session.state() is UNUSABLE:
        session.reopen()
    session.driver.rollback(session.connection, timeout_s=LIMIT_S)
    session.driver.begin(session.connection, read_only=True, isolation="serializable")
    session.fetch("SELECT 1")
    assert not session.driver.has_left_transaction(session.connection)
