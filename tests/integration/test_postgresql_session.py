"""A session of PostgreSQL between two loans, by each of psycopg's connections: what is sent, and when it is at rest."""

from __future__ import annotations

import select
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import rows, sql

from lambda_dbconn import DeadlineExceededError, SessionPinnedError, TransactionAbortedError
from lambda_dbconn.deadline import RELEASED_S
from lambda_dbconn.drivers import SessionState
from tests.support.driven import LIMIT_S, Driven, driven
from tests.support.talking_server import NOTICE, RESULT, ROWS, talking_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lambda_dbconn.testing.servers import LocalPostgres

CLEAN, IN_TRANSACTION, UNUSABLE = SessionState.CLEAN, SessionState.IN_TRANSACTION, SessionState.UNUSABLE


@pytest.fixture(params=["plain", "tls", "asyncio-plain", "asyncio-tls"])
def session(request: pytest.FixtureRequest, postgres: LocalPostgres) -> Iterator[Driven]:
    postgres.execute("CREATE TABLE IF NOT EXISTS deeds (name varchar(64))")
    postgres.execute(f"ALTER TABLE deeds OWNER TO {postgres.user}")
    way = str(request.param)
    with driven(postgres, is_async=way.startswith("asyncio"), is_tls=way.endswith("tls")) as opened:
        yield opened


# The ways to the server


def cursor(session: Driven, name: str = "") -> Any:
    """Make one of psycopg's cursors by calling its class, past the connection."""
    kind = getattr(psycopg, f"Async{name}Cursor" if session.is_async else f"{name}Cursor")
    return kind(session.connection)


def execute(session: Driven) -> None:
    session.do(session.connection.execute("SELECT 'sent'"))


def execute_prepared(session: Driven) -> None:
    session.do(session.connection.execute("SELECT 'sent'", prepare=True))


def executemany(session: Driven) -> None:
    session.do(session.connection.cursor().executemany("SELECT 'sent', %s", [(1,), (2,)]))


def stream(session: Driven) -> None:
    rows_ = session.connection.cursor().stream("SELECT 'sent'")
    session.next(rows_)
    with suppress(StopIteration, StopAsyncIteration):
        session.next(rows_)


def copy(session: Driven) -> None:
    context = session.connection.cursor().copy("COPY deeds FROM STDIN /* sent */")
    session.enter(context)
    session.leave(context)


def server_cursor(session: Driven) -> None:
    use_server_cursor(session, session.connection.cursor("named", withhold=True))


def client_cursor(session: Driven) -> None:
    session.do(cursor(session, "Client").execute("SELECT %s", ["sent"]))


def raw_cursor(session: Driven) -> None:
    session.do(cursor(session, "Raw").execute("SELECT 'sent', $1", [1]))


def direct_cursor(session: Driven) -> None:
    session.do(cursor(session).execute("SELECT 'sent'"))


def direct_server_cursor(session: Driven) -> None:
    kind = psycopg.AsyncServerCursor if session.is_async else psycopg.ServerCursor
    use_server_cursor(session, kind(session.connection, "direct", withhold=True))


def use_server_cursor(session: Driven, named: Any) -> None:
    try:
        session.do(named.execute("SELECT 'sent'"))
        session.do(named.close())
    finally:
        named._closed = True  # or psycopg warns of it


def pipeline(session: Driven) -> None:
    context = session.connection.pipeline()
    session.enter(context)
    try:
        execute(session)
    finally:
        session.leave(context)


def composed(session: Driven) -> None:
    session.do(session.connection.execute(sql.SQL("SELECT {}").format(sql.Literal("sent"))))


TEXTS = [
    execute,
    execute_prepared,
    executemany,
    stream,
    copy,
    server_cursor,
    client_cursor,
    raw_cursor,
    direct_cursor,
    direct_server_cursor,
    pipeline,
    composed,
]


def transaction(session: Driven) -> None:
    context = session.connection.transaction()
    session.enter(context)
    session.leave(context)


def without_autocommit(session: Driven) -> None:
    session.set("autocommit", False)
    session.do(session.connection.execute("SELECT 'sent'"))
    session.do(session.connection.rollback())


def two_phase(session: Driven) -> None:
    session.set("autocommit", False)
    session.do(session.connection.tpc_begin("mine"))
    session.do(session.connection.tpc_rollback())


WAYS = [*TEXTS, transaction, without_autocommit, two_phase]


@pytest.mark.parametrize("way", WAYS)
def test_a_loan_in_which_something_was_sent_is_known_by_each_way(
    way: Callable[[Driven], None], session: Driven
) -> None:
    assert not session.driver.has_sent(session.connection)
    way(session)
    assert session.driver.has_sent(session.connection)
    session.driver.send_reset(session.connection, timeout_s=LIMIT_S)
    assert not session.driver.has_sent(session.connection)


def test_what_the_library_sends_itself_is_not_the_users(session: Driven) -> None:
    session.do(session.driver.ping(session.connection, timeout_s=LIMIT_S))
    session.do(session.driver.rollback(session.connection, timeout_s=LIMIT_S))
    session.do(session.driver.reset(session.connection, timeout_s=LIMIT_S))
    assert not session.driver.has_sent(session.connection)


# Once the deadline has passed


@pytest.mark.parametrize("way", WAYS)
def test_nothing_is_sent_once_the_deadline_has_passed_and_the_connection_goes_on(
    way: Callable[[Driven], None], session: Driven
) -> None:
    before = session.activity()
    with session.over(), pytest.raises(DeadlineExceededError, match="it was not sent"):
        way(session)
    assert session.activity() == before
    assert not session.driver.has_sent(session.connection)
    assert not session.scope.has_expired
    session.driver.restore(session.connection)
    assert session.state is CLEAN
    assert session.fetch("SELECT 1") == [(1,)]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("is_reset_owed", [False, True], ids=["at rest", "reset owed"])
def test_a_connection_that_was_released_sends_nothing_and_says_so(
    is_reset_owed: bool, way: Callable[[Driven], None], session: Driven
) -> None:
    if is_reset_owed:
        session.driver.send_reset(session.connection, timeout_s=LIMIT_S)
        wait_for_answer(session)
    before = session.activity()
    with session.over(RELEASED_S), pytest.raises(psycopg.InterfaceError, match="was released at the end of its `with`"):
        way(session)
    assert session.activity() == before
    assert not session.driver.has_sent(session.connection)
    if is_reset_owed:
        session.do(session.driver.finish_reset(session.connection, timeout_s=LIMIT_S))
    assert session.fetch("SELECT 1") == [(1,)]


def begin_and_insert(session: Driven) -> None:
    session.do(session.driver.begin(session.connection, read_only=False, isolation=None))
    session.do(session.connection.execute("INSERT INTO deeds VALUES ('late')"))


def deeds(session: Driven) -> int:
    return int(session.server.query("SELECT count(*) FROM deeds WHERE name = 'late'")[0][0])


def commit(session: Driven) -> Any:
    return session.driver.commit(session.connection)


def rollback(session: Driven) -> Any:
    return session.connection.rollback()


@pytest.mark.parametrize("end", [commit, rollback])
def test_a_transaction_that_the_deadline_overtakes_is_rolled_back_by_the_library(
    end: Callable[[Driven], Any], session: Driven
) -> None:
    begin_and_insert(session)
    before = session.activity()
    with session.over():
        with pytest.raises(DeadlineExceededError, match="it was not sent"):
            session.do(end(session))
        assert session.activity() == before
        assert session.state is IN_TRANSACTION
        session.do(session.driver.rollback(session.connection, timeout_s=LIMIT_S))
        assert session.state is CLEAN
    assert deeds(session) == 0
    assert session.fetch("SELECT 1") == [(1,)]


def test_a_failed_transaction_is_no_deadline_when_both_are_true(session: Driven) -> None:
    begin_and_insert(session)
    with pytest.raises(psycopg.errors.DivisionByZero):
        session.do(session.connection.execute("SELECT 1 / 0"))
    with session.over(), pytest.raises(TransactionAbortedError):
        session.do(session.driver.commit(session.connection))
    assert session.state is IN_TRANSACTION  # for the library to roll back


def test_a_transaction_block_of_psycopgs_that_the_deadline_overtakes_commits_nothing(session: Driven) -> None:
    context = session.connection.transaction()
    session.enter(context)
    session.do(session.connection.execute("INSERT INTO deeds VALUES ('late')"))
    with session.over(), pytest.raises(DeadlineExceededError, match="it was not sent"):
        session.leave(context)
    session.do(session.driver.rollback(session.connection, timeout_s=LIMIT_S))
    assert session.state is UNUSABLE  # psycopg still counts the block
    assert deeds(session) == 0


def test_a_stream_that_the_deadline_overtakes_is_cut(session: Driven) -> None:
    numbers = session.connection.cursor().stream("SELECT generate_series(1, 1000000)")
    assert session.next(numbers) == (1,)
    with session.over(), pytest.raises(DeadlineExceededError, match="has not answered"):
        session.next(numbers)
    assert session.scope.has_expired
    assert not session.driver.is_open(session.connection)


def test_a_copy_that_the_deadline_overtakes_is_cut_and_copies_nothing(session: Driven) -> None:
    context = session.connection.cursor().copy("COPY deeds FROM STDIN")
    copying = session.enter(context)
    session.do(copying.write_row(["late"]))
    with session.over(), pytest.raises(DeadlineExceededError, match="has not answered"):
        session.leave(context)
    assert session.scope.has_expired
    assert not session.driver.is_open(session.connection)
    assert deeds(session) == 0


@pytest.mark.parametrize("ends_at", [-1.0, RELEASED_S], ids=["over", "released"])
def test_the_librarys_own_calls_are_not_bound_by_the_users_deadline(ends_at: float, session: Driven) -> None:
    begin_and_insert(session)
    with session.over(ends_at):
        session.do(session.driver.rollback(session.connection, timeout_s=LIMIT_S))
        session.do(session.driver.ping(session.connection, timeout_s=LIMIT_S))
        session.reset()
        session.do(session.driver.reset(session.connection, timeout_s=LIMIT_S))
        assert session.state is CLEAN
    assert session.fetch("SELECT 1") == [(1,)]


# At rest or not


def test_a_session_at_rest_is_clean(session: Driven) -> None:
    assert session.state is CLEAN
    for way in WAYS:
        way(session)
        session.driver.restore(session.connection)
        assert session.state is CLEAN, way


def numbers_in_a_transaction(session: Driven) -> Any:
    """Return a generator of the user's that stays inside a transaction block of psycopg's."""
    connection = session.connection

    async def asynchronous() -> Any:
        async with connection.transaction():
            for row in await (await connection.execute("SELECT generate_series(1, 3)")).fetchall():
                yield row

    def synchronous() -> Any:
        with connection.transaction():
            yield from connection.execute("SELECT generate_series(1, 3)")

    return asynchronous() if session.is_async else synchronous()


def notifications(session: Driven) -> Any:
    session.do(session.connection.execute("LISTEN here"))
    session.do(session.connection.execute("NOTIFY here"))
    return session.connection.notifies(timeout=LIMIT_S)


def unread_stream(session: Driven) -> Any:
    return session.connection.cursor().stream("SELECT generate_series(1, 3)")


@pytest.mark.parametrize("make", [numbers_in_a_transaction, notifications, unread_stream])
def test_a_generator_that_outlives_its_loan_costs_the_connection(
    make: Callable[[Driven], Any], session: Driven
) -> None:
    alive = make(session)
    session.next(alive)
    if session.state is IN_TRANSACTION:
        session.do(session.driver.rollback(session.connection, timeout_s=LIMIT_S))
    assert session.state is UNUSABLE
    session.driver.close(session.connection)
    session.do(alive.aclose() if session.is_async else alive.close())  # late, and for nobody's harm


def test_a_two_phase_transaction_that_was_not_finished_costs_the_connection(session: Driven) -> None:
    session.set("autocommit", False)
    session.do(session.connection.tpc_begin("mine"))
    assert session.state is IN_TRANSACTION
    session.do(session.driver.rollback(session.connection, timeout_s=LIMIT_S))
    assert session.state is UNUSABLE


def open_pipeline(session: Driven) -> Any:
    context = session.connection.pipeline()
    session.enter(context)
    return context


def open_copy(session: Driven) -> Any:
    context = session.connection.cursor().copy("COPY deeds FROM STDIN")
    session.enter(context)
    return context


@pytest.mark.parametrize("make", [open_pipeline, open_copy])
def test_a_pipeline_or_copy_that_was_not_left_costs_the_connection(
    make: Callable[[Driven], Any], session: Driven
) -> None:
    alive = make(session)
    assert session.state is UNUSABLE
    session.driver.close(session.connection)
    with suppress(psycopg.Error):
        session.leave(alive)


def test_the_end_of_a_transaction_is_seen_whoever_ended_it(session: Driven) -> None:
    def has_left() -> bool:
        return bool(session.driver.has_left_transaction(session.connection))

    begin_and_insert(session)
    assert not has_left()
    with pytest.raises(psycopg.errors.DivisionByZero):
        session.do(session.connection.execute("SELECT 1 / 0"))
    assert not has_left()
    session.do(session.connection.execute("ROLLBACK"))
    assert has_left()
    begin_and_insert(session)
    session.do(session.connection.execute("COMMIT"))
    assert has_left()
    begin_and_insert(session)
    session.do(session.connection.execute("COMMIT"))
    session.do(session.connection.execute("BEGIN"))
    assert has_left()
    session.server.execute("DELETE FROM deeds WHERE name = 'late'")


def test_a_closed_connection_is_seen_before_its_file_descriptor_is_looked_at(session: Driven) -> None:
    descriptor = session.driver.fileno(session.connection)
    session.driver.send_reset(session.connection, timeout_s=LIMIT_S)
    session.connection.pgconn.finish()
    silent, other = socket.socketpair()
    with silent, other:
        assert silent.fileno() == descriptor  # the system gives the number to whoever comes next
        assert not session.driver.is_open(session.connection)
        assert not session.driver.drain(session.connection)
        assert session.state is UNUSABLE
        with pytest.raises(psycopg.OperationalError):
            session.do(session.driver.finish_reset(session.connection, timeout_s=LIMIT_S))


# The reset

PROBE = """
    SELECT session_user::text, current_user::text, current_setting('search_path'), current_setting('statement_timeout'),
           current_setting('lock_timeout'), current_setting('timezone'), current_setting('application_name'),
           current_setting('client_encoding'), current_setting('default_transaction_read_only'),
           coalesce(current_setting('app.tenant', true), ''), to_regclass('pg_temp.things')::text,
           (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()),
           (SELECT count(*) FROM pg_prepared_statements), (SELECT count(*) FROM pg_cursors),
           (SELECT count(*) FROM pg_listening_channels())
"""
DIRT = [
    "SELECT set_config('app.tenant', 'x, true)', false)",
    "SET timezone = 'Asia/Tokyo'",
    "SET application_name = 'mine'",
    "SET client_encoding = 'LATIN1'",
    "SET lock_timeout = '1ms'",
    "SELECT pg_advisory_lock(7), pg_advisory_lock_shared(8)",
    "PREPARE mine AS SELECT 1",
    "DECLARE held CURSOR WITH HOLD FOR SELECT 1",
    "LISTEN here",
    "CREATE TEMP TABLE things (id int)",
    "SET default_transaction_read_only = on",
    "SET search_path = hostile, public, pg_catalog",
    "SET ROLE app_role",
    "SET statement_timeout = '7min'",
]


HOSTILE = (
    "CREATE FUNCTION hostile.pg_advisory_unlock_all() RETURNS void LANGUAGE plpgsql AS "
    "$$ BEGIN RAISE EXCEPTION 'the hostile function was called'; END $$"
)


@pytest.fixture
def dirt(postgres: LocalPostgres) -> Iterator[list[str]]:
    """Statements that leave something of every kind, last of all a function that is named as one of the server's."""
    user = postgres.user
    for statement in [
        "CREATE ROLE app_role",
        f"GRANT app_role TO {user}",
        "CREATE SEQUENCE counter",
        f"GRANT ALL ON SEQUENCE counter TO {user}",
        "CREATE SCHEMA hostile",
        HOSTILE,
        f"GRANT USAGE ON SCHEMA hostile TO {user}, app_role",
    ]:
        postgres.execute(statement)
    yield ["SELECT nextval('counter')", *DIRT]
    for statement in ["DROP SCHEMA hostile CASCADE", "DROP SEQUENCE counter", "DROP ROLE app_role"]:
        postgres.execute(statement)


def test_whatever_was_left_in_the_session_is_undone_by_the_reset(dirt: list[str], session: Driven) -> None:
    before = session.fetch(PROBE)
    for statement in dirt:
        session.do(session.connection.execute(statement))
    session.reset()
    assert session.fetch(PROBE) == before
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
        session.fetch("SELECT currval('counter')")


@pytest.mark.parametrize(
    ("setting", "value", "shown"),
    [("role", "'app_role'", "app_role"), ("search_path", "hostile, pg_catalog", "hostile, pg_catalog")],
)
def test_what_is_set_for_the_login_itself_is_kept_by_the_reset(
    setting: str, value: str, shown: str, dirt: list[str], session: Driven
) -> None:
    user = session.server.user
    session.server.execute(f"ALTER ROLE {user} SET {setting} = {value}")
    try:
        with driven(session.server, is_async=session.is_async, is_tls=False) as other:
            before = other.fetch(PROBE)
            assert other.fetch(f"SHOW {setting}") == [(shown,)]
            other.fetch("SELECT pg_catalog.pg_advisory_lock(7)")
            other.do(other.connection.execute("SET ROLE none"))
            other.reset()
            assert other.fetch(PROBE) == before
    finally:
        session.server.execute(f"ALTER ROLE {user} RESET {setting}")


def test_the_reset_keeps_the_plans_of_functions(session: Driven) -> None:
    session.reset()
    assert b"DISCARD ALL" not in sent_by_reset(session)
    assert b"PLANS" not in sent_by_reset(session)


def sent_by_reset(session: Driven) -> bytes:
    return str(session.activity()[1]).encode()


def test_the_session_is_not_at_rest_until_the_reset_is_answered(session: Driven) -> None:
    execute(session)
    session.driver.send_reset(session.connection, timeout_s=LIMIT_S)
    assert session.state is UNUSABLE
    wait_for_answer(session)
    assert session.driver.drain(session.connection)
    assert session.state is UNUSABLE
    session.do(session.driver.finish_reset(session.connection, timeout_s=LIMIT_S))
    assert session.state is CLEAN
    assert not has_spoken(session)


def test_a_reply_is_owed_from_before_the_first_byte(session: Driven, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = session.connection

    class Interrupted:
        def send_query(self, _text: bytes) -> None:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(connection, "pgconn", Interrupted())
        with pytest.raises(KeyboardInterrupt):
            session.driver.send_reset(connection, timeout_s=LIMIT_S)
    assert session.state is UNUSABLE


def wait_for_answer(session: Driven) -> None:
    poll = select.poll()
    poll.register(session.driver.fileno(session.connection), select.POLLIN)
    assert poll.poll(LIMIT_S * 1000)
    while session.activity()[0] != "idle":  # all of it was sent
        pass


def has_spoken(session: Driven) -> bool:
    poll = select.poll()
    poll.register(session.driver.fileno(session.connection), select.POLLIN)
    return bool(poll.poll(0))


def test_an_answer_that_was_read_already_is_not_waited_for(session: Driven) -> None:
    session.driver.send_reset(session.connection, timeout_s=LIMIT_S)
    wait_for_answer(session)
    assert session.driver.drain(session.connection)
    assert not has_spoken(session)
    session.do(session.driver.finish_reset(session.connection, timeout_s=0.0))
    assert session.state is CLEAN


def test_a_reset_that_the_server_does_not_live_to_answer_is_an_error(session: Driven) -> None:
    session.server.kill_session(session.connection.pgconn.backend_pid)
    with pytest.raises(psycopg.OperationalError):
        session.reset()
    assert session.state is UNUSABLE


ENDLESS = [(NOTICE, 0.02), (NOTICE * 1000, 0.0), (ROWS * 1000, 0.0), (RESULT * 1000, 0.0)]
SHORT_S = 0.3


@pytest.fixture(params=[False, True], ids=["sync", "asyncio"])
def is_async(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.mark.parametrize(("answer", "pause_s"), ENDLESS, ids=["trickle", "notices", "rows", "results"])
@pytest.mark.parametrize("call", ["finish_reset", "ping", "rollback"])
def test_a_server_that_talks_without_end_is_given_up_at_the_limit(
    call: str, answer: bytes, pause_s: float, is_async: bool, postgres: LocalPostgres
) -> None:
    with (
        talking_server(answer, pause_s=pause_s) as port,
        driven(postgres, is_async=is_async, is_tls=False, port=port) as session,
    ):
        if call == "finish_reset":
            session.driver.send_reset(session.connection, timeout_s=SHORT_S)
        with pytest.raises(psycopg.OperationalError):
            session.do(getattr(session.driver, call)(session.connection, timeout_s=SHORT_S))
        assert session.state is UNUSABLE


@pytest.mark.parametrize(("answer", "pause_s"), ENDLESS, ids=["trickle", "notices", "rows", "results"])
def test_a_statement_that_is_answered_without_end_is_cut_at_the_deadline(
    answer: bytes, pause_s: float, is_async: bool, postgres: LocalPostgres
) -> None:
    with (
        talking_server(answer, pause_s=pause_s) as port,
        driven(postgres, is_async=is_async, is_tls=False, port=port) as session,
        session.over(time.monotonic() + SHORT_S),
    ):
        with pytest.raises(DeadlineExceededError, match="has not answered"):
            execute(session)
        assert not session.driver.is_open(session.connection)


@pytest.mark.parametrize("threshold", [0, 1, 5])
def test_prepared_statements_of_psycopgs_own_survive_any_number_of_resets(threshold: int, session: Driven) -> None:
    for _ in range(4):
        session.connection.prepare_threshold = threshold
        session.connection.prepared_max = 2
        session.set("autocommit", False)
        session.fetch("SELECT %s::int", 1)
        session.do(session.connection.rollback())
        session.set("autocommit", True)
        with pytest.raises(psycopg.errors.DivisionByZero):
            session.fetch("SELECT 1 / %s::int", 0)
        for number in range(10):
            assert session.fetch("SELECT %s::int", number) == [(number,)]
            assert session.fetch(f"SELECT {number % 4}, %s::text", "x") == [(number % 4, "x")]
        session.reset()
        assert session.connection.prepare_threshold is None
        assert session.connection.prepared_max == 100
        assert session.fetch("SELECT count(*) FROM pg_prepared_statements") == [(0,)]


def test_notifications_that_nobody_has_read_are_forgotten_by_the_reset(session: Driven) -> None:
    session.do(session.connection.execute("LISTEN here"))
    session.do(session.connection.execute("NOTIFY here, 'psycopg has it'"))
    session.server.execute("NOTIFY here, 'the server has it'")
    session.reset()
    told: list[Any] = []
    session.connection.add_notify_handler(told.append)
    session.fetch("SELECT 1")
    assert told == []
    session.connection.remove_notify_handler(told.append)

    async def later() -> list[Any]:
        return [each async for each in session.connection.notifies(timeout=0)]

    assert (session.do(later()) if session.is_async else list(session.connection.notifies(timeout=0))) == []


def test_notices_of_the_reset_reach_the_users_handler_and_hurt_nobody(session: Driven) -> None:
    told: list[str] = []

    def note(notice: psycopg.errors.Diagnostic) -> None:
        told.append(str(notice.message_primary))
        raise ValueError("a handler's own error")

    session.connection.add_notice_handler(note)
    session.do(session.connection.execute("SET client_min_messages = debug1"))
    session.do(session.connection.execute("CREATE TEMP TABLE noisy (id serial primary key)"))
    session.reset()
    assert told
    assert session.state is CLEAN


# The connection object


def configured(session: Driven) -> dict[str, Any]:
    connection = session.connection
    names = ("row_factory", "cursor_factory", "server_cursor_factory", "prepare_threshold", "prepared_max")
    transactions = ("autocommit", "isolation_level", "read_only", "deferrable")
    return {name: getattr(connection, name) for name in names + transactions}


@pytest.mark.parametrize("ends_at", [float("inf"), -1.0, RELEASED_S], ids=["in time", "over", "released"])
def test_what_was_set_on_the_connection_object_is_put_back(ends_at: float, session: Driven) -> None:
    before = configured(session)
    assert before["autocommit"] is True
    assert before["prepare_threshold"] is None
    assert before["row_factory"] is rows.tuple_row
    connection = session.connection
    connection.row_factory = rows.dict_row
    connection.cursor_factory = psycopg.AsyncClientCursor if session.is_async else psycopg.ClientCursor
    connection.server_cursor_factory = psycopg.AsyncRawServerCursor if session.is_async else psycopg.RawServerCursor
    connection.prepare_threshold = 0
    connection.prepared_max = 7
    session.set("isolation_level", psycopg.IsolationLevel.SERIALIZABLE)
    session.set("read_only", True)
    session.set("deferrable", True)
    session.set("autocommit", False)
    session.fetch("SELECT 1 AS one")
    session.do(connection.rollback())
    sent = session.activity()
    with session.over(ends_at):
        session.driver.restore(connection)
    assert configured(session) == before
    assert session.activity() == sent
    assert session.fetch("SHOW transaction_isolation") == [("read committed",)]


def test_a_closed_connection_can_be_restored_as_well(session: Driven) -> None:
    before = configured(session)
    session.connection.row_factory = rows.dict_row
    session.driver.close(session.connection)
    session.driver.restore(session.connection)
    assert configured(session) == before


# Statements that are looked at


@pytest.mark.parametrize("way", TEXTS)
def test_each_statement_is_seen_before_it_is_sent_however_its_cursor_was_made(
    way: Callable[[Driven], None], session: Driven
) -> None:
    seen: list[bytes] = []
    session.driver.watch(session.connection, seen.append)
    way(session)
    assert any(b"sent" in bytes(text) for text in seen)
    assert not session.driver.has_unseen(session.connection)


@pytest.mark.parametrize("way", TEXTS)
def test_a_statement_that_is_refused_when_it_is_seen_is_not_sent(
    way: Callable[[Driven], None], session: Driven
) -> None:
    def refuse(_text: str | bytes) -> None:
        raise SessionPinnedError("it was not sent")

    session.driver.watch(session.connection, refuse)
    with pytest.raises(SessionPinnedError):
        way(session)
    assert "sent" not in str(session.activity()[1])


def test_the_text_that_is_seen_has_the_values_that_psycopg_puts_into_it(session: Driven) -> None:
    seen: list[bytes] = []
    session.driver.watch(session.connection, seen.append)
    session.do(cursor(session, "Client").execute("SELECT set_config('app.tenant', %s, true)", ["x, false)"]))
    assert seen == [b"SELECT set_config('app.tenant', 'x, false)', true)"]


def test_what_psycopg_sends_of_itself_is_not_unseen(session: Driven) -> None:
    session.driver.watch(session.connection, lambda _: None)
    for way in (transaction, without_autocommit, two_phase):
        way(session)
    assert not session.driver.has_unseen(session.connection)


def test_what_is_sent_by_somebody_elses_generator_is_known_to_be_unseen(session: Driven) -> None:
    session.driver.watch(session.connection, lambda _: None)
    pgconn = session.connection.pgconn

    def mine() -> Any:
        pgconn.send_query(b"LISTEN here")
        return (yield from psycopg.generators.execute(pgconn))

    session.do(session.connection.wait(mine()))
    assert session.driver.has_unseen(session.connection)
