from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from lambda_dbconn import (
    AuthenticationError,
    ConfigurationError,
    ConnectError,
    ConnectionManager,
    ConnectTimeoutError,
    CredentialsError,
    Secret,
    TlsError,
)
from lambda_dbconn.drivers import ErrorKind
from lambda_dbconn.events import ConnectionOpened, WarmUpFailed
from lambda_dbconn.observers.logging import LoggingObserver
from lambda_dbconn.testing.fakes import FakeContext, FakeDriver, FakeError
from tests.unit.conftest import CANARY, INSTANCE, local

if TYPE_CHECKING:
    from lambda_dbconn import Credentials, Settings
    from lambda_dbconn.deadline import Deadline
    from lambda_dbconn.testing.fakes import FakeClock, FakeConnection, FakeServer, RecordingObserver
    from tests.unit.conftest import MakeManager

    Manager = ConnectionManager[FakeConnection]


class Given:
    """Somebody's own provider."""

    def __init__(self, credentials: Credentials) -> None:
        self.credentials = credentials

    def fetch(self, settings: Settings, deadline: Deadline) -> Credentials:
        return self.credentials

    def refused(self, credentials: Credentials) -> bool:
        return False


def host_of(db: Manager) -> str:
    return db.settings.host


# --- making one


def test_what_is_missing_to_verify_the_server_is_found_when_the_manager_is_made(server: FakeServer) -> None:
    settings = local(host=INSTANCE, sslmode="verify-full", auth="secret", secret_id="s", sslrootcert="/nowhere.pem")
    with pytest.raises(ConfigurationError, match=r"sslrootcert is '/nowhere\.pem', where there is no file"):
        ConnectionManager(settings, driver=FakeDriver(server), credentials=Given(None))  # type: ignore[arg-type] # unused
    assert server.counts["open"] == 0


def test_the_default_observer_logs(server: FakeServer) -> None:
    assert isinstance(ConnectionManager(local(), driver=FakeDriver(server)).observer, LoggingObserver)


def test_the_password_of_the_settings_logs_in(make: MakeManager, server: FakeServer) -> None:
    server.password = CANARY
    with make(password=Secret(CANARY)).connection() as conn:
        conn.execute("select 1")


def test_a_refused_password_is_shown_in_no_error_event_or_repr(
    make: MakeManager, server: FakeServer, observer: RecordingObserver
) -> None:
    server.password = "another"
    db = make(password=Secret(CANARY))
    with pytest.raises(ConnectError) as caught, db.connection():
        pytest.fail("nothing was to be lent")
    assert CANARY not in f"{caught.value!r} {caught.value} {observer.events} {db!r} {db.stats()}"


# --- repr


def test_the_repr_shows_where_and_how_many(make: MakeManager) -> None:
    db = make(max_connections=2)
    assert repr(db) == "<ConnectionManager postgresql at localhost:5432: 0 open, 0 lent>"
    with db.connection():
        assert repr(db) == "<ConnectionManager postgresql at localhost:5432: 1 open, 1 lent>"
    assert repr(db) == "<ConnectionManager postgresql at localhost:5432: 1 open, 0 lent>"


# --- warm_up


def test_warm_up_connects_so_that_the_first_borrow_does_not(db: Manager, server: FakeServer) -> None:
    assert db.warm_up() is True
    assert server.counts["open"] == 1
    with db.connection() as conn:
        conn.execute("select 1")
    assert server.counts["open"] == 1
    assert server.sql == ["select 1"]


@pytest.mark.parametrize("error", [ConnectError("no such database"), TlsError("wrong name")])
def test_a_warm_up_that_fails_says_so_and_leaves_the_error_to_the_first_borrow(
    db: Manager, server: FakeServer, error: ConnectError
) -> None:
    server.refuses_with = error
    assert db.warm_up() is False
    with pytest.raises(type(error)), db.connection():
        pytest.fail("nothing was to be lent")


def test_warm_up_keeps_to_the_time_it_is_given(db: Manager, server: FakeServer, clock: FakeClock) -> None:
    server.connect_takes_s = 60
    assert db.warm_up(FakeContext(clock, 2.0)) is False
    assert sum(server.time_limits_s) <= 1.51


def test_warm_up_without_a_context_takes_five_seconds_at_most(make: MakeManager, server: FakeServer) -> None:
    server.connect_takes_s = 60
    assert make(connect_timeout_s=60, reserve_s=30).warm_up() is False
    assert sum(server.time_limits_s) <= 5.01


def test_a_warm_up_that_fails_is_told_at_once_and_by_the_first_loan_that_fails(
    db: Manager, server: FakeServer, observer: RecordingObserver
) -> None:
    server.refuse(error=ConnectError("no such database"))
    assert db.warm_up() is False
    assert [event.error for event in observer.of(WarmUpFailed)] == [f"ConnectError: {ConnectError('no such database')}"]
    server.refuses_with = TlsError("wrong name")
    with pytest.raises(TlsError) as caught, db.connection():
        pytest.fail("nothing was to be lent")
    assert [note for note in caught.value.__notes__ if "no such database" in note] == caught.value.__notes__
    server.refuses_with = TlsError("wrong name")  # another one: the same would still have the note
    with pytest.raises(TlsError) as caught, db.connection():
        pytest.fail("nothing was to be lent")
    assert not hasattr(caught.value, "__notes__")


def test_a_warm_up_that_failed_is_forgotten_when_the_fault_has_passed(db: Manager, server: FakeServer) -> None:
    server.refuse(error=ConnectError("no such database"))
    assert db.warm_up() is False
    with db.connection() as conn:
        conn.execute("select 1")
    db.close()
    server.refuses_with = TlsError("wrong name")
    with pytest.raises(TlsError) as caught, db.connection():
        pytest.fail("nothing was to be lent")
    assert not hasattr(caught.value, "__notes__")


def test_a_provider_that_raises_anything_fails_no_warm_up(
    server: FakeServer, clock: FakeClock, observer: RecordingObserver
) -> None:
    def fail() -> Credentials:
        raise LookupError("no vault")

    db = ConnectionManager(local(), driver=FakeDriver(server), clock=clock, observer=observer, credentials=fail)
    assert db.warm_up() is False
    assert ["raised LookupError" in event.error for event in observer.of(WarmUpFailed)] == [True]
    with pytest.raises(CredentialsError) as caught, db.connection():
        pytest.fail("nothing was to be lent")
    assert "raised LookupError" in caught.value.__notes__[0]


def test_a_warm_up_while_the_connection_is_lent_fails_and_harms_nothing(db: Manager) -> None:
    with db.connection() as conn:
        assert db.warm_up() is False
        conn.execute("select 1")


# --- reader


def test_without_a_read_only_endpoint_the_reader_is_the_manager_itself(db: Manager) -> None:
    assert db.reader is db


def test_a_reader_at_the_same_host_is_the_manager_itself(make: MakeManager) -> None:
    db = make(reader_host="localhost")
    assert db.reader is db


def test_the_reader_is_one_manager_for_the_read_only_endpoint(make: MakeManager) -> None:
    db = make(reader_host="127.0.0.1", signing_host="db.example.com", max_idle_s=60)
    assert db.reader is db.reader
    assert db.reader.reader is db.reader
    assert host_of(db.reader) == "127.0.0.1"
    assert db.reader.settings == db.settings.replace(host="127.0.0.1", signing_host=None)


def test_writer_and_reader_may_be_lent_to_one_thread_at_once(
    make: MakeManager, server: FakeServer, observer: RecordingObserver
) -> None:
    db = make(reader_host="127.0.0.1")
    with db.connection() as writer, db.reader.connection() as reader:
        assert writer is not reader
    assert [vars(event)["endpoint"] for event in observer.events] == ["localhost:5432", "127.0.0.1:5432"]
    assert db.stats().opened == db.reader.stats().opened == 1
    assert server.most_open == 2


def test_closing_the_manager_closes_its_reader(make: MakeManager, server: FakeServer) -> None:
    db = make(reader_host="127.0.0.1")
    for manager in (db, db.reader):
        manager.warm_up()
    db.close()
    assert [conn.closes for conn in server.connections] == [1, 1]


def test_a_reader_that_cannot_be_reached_is_stood_in_for_by_the_writer_for_a_while(
    make: MakeManager, server: FakeServer, observer: RecordingObserver, clock: FakeClock
) -> None:
    db = make(reader_host="127.0.0.1", reader_fallback="writer", connect_timeout_s=0.1)  # no time for a second try
    server.refuse()
    for _ in range(2):
        db.reader.run(lambda conn: conn.execute("select 1"))
    clock.advance(301)
    db.reader.run(lambda conn: conn.execute("select 1"))
    opened = observer.of(ConnectionOpened)
    assert [(event.endpoint, event.reason) for event in opened] == [
        ("localhost:5432", "first"),
        ("127.0.0.1:5432", "lifetime"),
    ]
    assert db.stats().opened == 0  # it was the reader's own connection, wherever it led


def test_a_reader_that_is_silent_after_a_late_secret_is_stood_in_for_too(
    make: MakeManager, server: FakeServer, observer: RecordingObserver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "lambda_dbconn.cache.backoff.jitter", lambda longest_s, share: longest_s
    )  # time for a second try only
    server.demand("open", CredentialsError("throttled", retryable=True), ConnectTimeoutError("silent", retryable=True))
    db = make(reader_host="127.0.0.1", reader_fallback="writer", connect_timeout_s=0.16)
    with db.reader.connection():
        pass
    assert [event.endpoint for event in observer.of(ConnectionOpened)] == ["localhost:5432"]


@pytest.mark.parametrize(
    ("fallback", "error"),
    [("none", ConnectError("refused", retryable=True)), ("writer", AuthenticationError("wrong password"))],
)
def test_a_reader_is_not_stood_in_for_unasked_or_where_no_later_try_would_do(
    make: MakeManager, server: FakeServer, fallback: str, error: ConnectError
) -> None:
    server.refuse(1, error)
    db = make(reader_host="127.0.0.1", reader_fallback=fallback, connect_timeout_s=0.1)
    with pytest.raises(type(error)) as caught, db.reader.connection():
        pytest.fail("nothing was to be lent")
    assert caught.value is error
    assert server.counts["open"] == 1


@pytest.mark.parametrize("lend", ["connection", "transaction"])
def test_a_write_on_a_reader_keeps_its_error_and_gets_one_note(
    make: MakeManager, server: FakeServer, lend: str
) -> None:
    db = make(reader_host="127.0.0.1")
    refusal = FakeError("read-only", ErrorKind.READ_ONLY)
    for _ in range(2):
        server.demand("execute" if lend == "connection" else "commit", refusal)
        with pytest.raises(FakeError) as caught, getattr(db.reader, lend)() as conn:
            conn.execute("insert")
        assert caught.value is refusal
    (note,) = refusal.__notes__
    assert "for reading" in note
    assert server.connections[0].closes == 0


# --- what it says of itself


def test_describe_opens_nothing_and_tells_nothing(db: Manager, server: FakeServer, observer: RecordingObserver) -> None:
    assert db.describe().endpoint == "localhost:5432 (other host), database by default"
    assert (server.counts["open"], observer.events) == (0, [])


# --- what the caller may pass


@pytest.mark.parametrize("context", [None, 5, 5.0])
def test_a_context_may_be_nothing_or_a_number(db: Manager, context: float | None) -> None:
    with db.connection(context) as conn:
        conn.execute("select 1")
    with db.transaction(context) as conn:
        conn.execute("select 1")
    assert db.run(lambda conn: conn.number, context) == 1


@pytest.mark.parametrize("isolation", ["", "serializable; drop table employee", "SERIALIZABLE", 1])
def test_no_text_of_the_caller_becomes_sql_but_the_four_levels(db: Manager, server: FakeServer, isolation: Any) -> None:
    with pytest.raises(ConfigurationError, match="the argument isolation is"):
        db.transaction(isolation=isolation)
    with pytest.raises(ConfigurationError, match="the argument isolation is"):
        db.run(lambda conn: None, isolation=isolation)
    assert server.sql == []
    assert server.counts["open"] == 0
