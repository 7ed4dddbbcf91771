"""Opening a connection when the server is away, silent, slow, full or on its way down: it ends, and says why."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest

from lambda_dbconn import ConnectError, ConnectTimeoutError, DeadlineExceededError, ProxyBusyError
from lambda_dbconn.drivers import addresses
from lambda_dbconn.events import ConnectFailed, ConnectionOpened
from tests.support.clients import REFUSED, connect, wait_until
from tests.support.database import LIMIT_S, behind_a_relay, in_background, wait_for_end

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lambda_dbconn import ConnectionManager
    from lambda_dbconn.testing.certificates import Certificates
    from lambda_dbconn.testing.servers import LocalServer
    from tests.support.database import Database

SHORT_S = 0.4
"""A time limit below psycopg's two seconds. That it is kept is asserted loosely: this machine may be busy."""

PATIENT_S = 60.0
TRICKLE_PAUSE_S = 0.05


def fails_to_connect(db: ConnectionManager[Any], context: float | None = None) -> tuple[ConnectError, float]:
    """Return the error, and how long it took; it has to end within the limit, give or take a busy machine."""
    started_s = time.monotonic()
    with pytest.raises(ConnectError) as raised, db.connection(context):
        pytest.fail("it is connected")
    return raised.value, time.monotonic() - started_s


# Nobody answers


def test_a_refused_connect_is_tried_again_until_the_limit(database: Database) -> None:
    database.relay.refuse()
    db = database.manager(connect_timeout_s=SHORT_S)
    error, took_s = fails_to_connect(db)
    failures = database.observer.of(ConnectFailed)
    assert type(error) is ConnectError
    assert error.retryable
    assert "HOST and PORT" in error.remedy
    assert [event.attempt for event in failures] == list(range(1, len(failures) + 1))
    assert f"({len(failures)} tries)" in str(error)
    assert len(failures) > 1
    assert took_s < SHORT_S + 5
    database.relay.accept()
    with db.connection():
        assert database.observer.of(ConnectionOpened)[0].reason == "first"


@pytest.mark.parametrize("timeout_s", [0.1, SHORT_S])
def test_a_server_that_accepts_and_never_answers_is_given_up_at_the_limit(timeout_s: float, database: Database) -> None:
    database.relay.black_hole()
    error, took_s = fails_to_connect(database.manager(connect_timeout_s=timeout_s))
    assert isinstance(error, ConnectTimeoutError)
    assert isinstance(error, TimeoutError)
    assert timeout_s <= took_s < timeout_s + 5
    assert database.relay.connects == 1
    assert len(database.observer.of(ConnectFailed)) == 1


def test_an_address_that_swallows_packets_is_given_up_at_the_limit(database: Database) -> None:
    with swallowing_port() as port:
        error, took_s = fails_to_connect(database.manager(port=port, connect_timeout_s=SHORT_S))
    assert isinstance(error, ConnectTimeoutError)
    assert SHORT_S <= took_s < SHORT_S + 5


@contextmanager
def swallowing_port(host: str = "127.0.0.1", port: int = 0) -> Iterator[int]:
    """Yield a port whose queue of connections is full: what knocks there is not even refused."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind((host, port))
        listener.listen(0)
        for _ in range(3):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            with suppress(BlockingIOError):
                filler.connect(listener.getsockname())
        yield listener.getsockname()[1]


def test_the_deadline_ends_a_connect_before_its_own_limit(database: Database) -> None:
    database.relay.black_hole()
    db = database.manager(connect_timeout_s=PATIENT_S, reserve_s=0.5)
    error, took_s = fails_to_connect(db, context=0.5 + SHORT_S)
    assert isinstance(error, ConnectTimeoutError)
    assert took_s < SHORT_S + 5


def test_the_deadline_ends_the_pauses_between_tries(database: Database) -> None:
    database.relay.refuse()
    db = database.manager(connect_timeout_s=PATIENT_S, reserve_s=0.5)
    error, took_s = fails_to_connect(db, context=0.5 + SHORT_S)
    assert error.retryable
    assert took_s < SHORT_S + 5


def test_without_time_left_nothing_is_tried(database: Database) -> None:
    db = database.manager(reserve_s=1.0)
    with pytest.raises(DeadlineExceededError, match="reserved"), db.connection(0.9):
        pytest.fail("it is connected")
    assert database.relay.connects == 0


def test_a_frozen_server_is_given_up_at_the_limit_and_good_again_after_the_thaw(own_database: Database) -> None:
    db = own_database.manager(connect_timeout_s=SHORT_S)
    own_database.server.freeze()
    error, took_s = fails_to_connect(db)
    assert isinstance(error, ConnectTimeoutError)
    assert took_s < SHORT_S + 5
    own_database.server.thaw()
    with own_database.manager().connection() as connection:
        assert own_database.session_id(connection)


# Somebody answers slowly


def test_a_login_whose_every_step_is_late_is_given_up_at_the_limit(database: Database) -> None:
    database.relay.delay(SHORT_S / 3)  # no step alone is too late: a round trip takes two thirds of the limit
    error, took_s = fails_to_connect(database.manager(connect_timeout_s=SHORT_S))
    assert isinstance(error, ConnectTimeoutError)
    assert took_s < SHORT_S + 5


def test_a_slow_login_is_waited_for_within_the_limit(database: Database) -> None:
    database.relay.delay(0.05)
    with database.manager(connect_timeout_s=PATIENT_S).connection() as connection:
        database.relay.delay(0)
        assert database.session_id(connection)
    assert database.observer.of(ConnectionOpened)[0].attempts == 1


@pytest.mark.parametrize(
    ("database", "answers"),
    [
        ("postgres-plain", [b"R" + (2000).to_bytes(4, "big")]),
        ("postgres-tls", [b"S", b"\x16\x03\x03" + (2000).to_bytes(2, "big")]),
        ("mariadb-plain", [(2000).to_bytes(3, "little") + b"\0"]),
        ("mariadb-tls", [(2000).to_bytes(3, "little") + b"\0"]),
    ],
    indirect=["database"],
    ids=["postgres-plain", "postgres-tls", "mariadb-plain", "mariadb-tls"],
)
def test_a_server_that_answers_a_byte_at_a_time_is_given_up_at_the_limit(
    answers: list[bytes], database: Database
) -> None:
    with trickling_port(answers, is_asked=database.is_postgresql) as port:
        error, took_s = fails_to_connect(database.manager(port=port, connect_timeout_s=SHORT_S))
    assert took_s < SHORT_S + 5
    assert isinstance(error, ConnectTimeoutError)


@contextmanager
def trickling_port(answers: list[bytes], *, is_asked: bool) -> Iterator[int]:
    """Yield a port that gives these answers, and the rest of the last one byte by byte, for as long as a test lasts.

    Args:
        answers: Each is sent when the client has spoken.
        is_asked: Whether this holds for the first one, too.
    """
    is_over = threading.Event()

    def speak(client: socket.socket) -> Iterator[None]:
        for answer in answers:
            while (is_asked or answer is not answers[0]) and not has_spoken(client):
                yield
            client.send(answer)
        for _ in range(int(LIMIT_S / TRICKLE_PAUSE_S)):
            yield
            client.send(b"\0")

    def serve() -> None:
        speakers: list[Iterator[None]] = []
        while not is_over.wait(TRICKLE_PAUSE_S):
            with suppress(BlockingIOError):
                client = stack.enter_context(listener.accept()[0])
                client.setblocking(False)
                speakers.append(speak(client))
            for speaker in speakers:
                with suppress(OSError):
                    next(speaker, None)

    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        listener.setblocking(False)
        stack.enter_context(in_background(serve))
        stack.callback(is_over.set)
        yield listener.getsockname()[1]


@pytest.fixture(autouse=True)
def _no_address_is_known_to_be_silent() -> None:
    addresses.forget()


def has_spoken(client: socket.socket) -> bool:
    try:
        return bool(client.recv(65_536))
    except BlockingIOError:
        return False


@pytest.mark.parametrize("database", ["mariadb-plain", "mariadb-tls"], indirect=True)
def test_a_server_that_talks_nonsense_is_an_error_of_ours(database: Database) -> None:
    greeting = b"\n" + bytes(40)  # of a server without a version, which PyMySQL cannot make a number of
    with trickling_port([len(greeting).to_bytes(3, "little") + b"\0" + greeting], is_asked=False) as port:
        error, _ = fails_to_connect(database.manager(port=port, connect_timeout_s=PATIENT_S))
    assert not error.retryable


# Another address, another moment


@pytest.mark.parametrize("is_silent", [True, False], ids=["silent", "swallowing"])
def test_a_dead_first_address_costs_its_share_of_the_limit_and_no_try(
    is_silent: bool, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(addresses, "resolve", lambda *_: ["127.0.0.2", "127.0.0.1"])
    with ExitStack() as stack:
        try:
            if is_silent:
                stack.enter_context(socket.create_server(("127.0.0.2", database.relay.port)))
            else:
                stack.enter_context(swallowing_port("127.0.0.2", database.relay.port))
        except OSError as error:
            pytest.skip(f"this machine has no second loopback address: {error}")
        with database.manager(connect_timeout_s=2.0).connection() as connection:
            assert database.session_id(connection)
    assert database.relay.connects == 1
    opened = database.observer.of(ConnectionOpened)[0]
    assert opened.attempts == 1
    assert 1.0 <= opened.duration_s < 2.0
    assert not database.observer.of(ConnectFailed)


def test_an_address_that_did_not_answer_is_not_waited_for_again(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(addresses, "resolve", lambda *_: ["127.0.0.2", "127.0.0.1"])
    with ExitStack() as stack:
        try:
            dead = stack.enter_context(socket.create_server(("127.0.0.2", database.relay.port)))
        except OSError as error:
            pytest.skip(f"this machine has no second loopback address: {error}")
        dead.setblocking(False)
        for _ in range(3):
            with database.manager(connect_timeout_s=2.0).connection() as connection:
                assert database.session_id(connection)
        dead.accept()[0].close()  # of the first connect
        with pytest.raises(BlockingIOError):
            dead.accept()
    assert database.relay.connects == 3


def test_when_all_addresses_are_dead_the_error_names_each(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "resolve", lambda *_: ["127.0.0.2", "127.0.0.1"])
    database.relay.refuse()
    error, _ = fails_to_connect(database.manager(connect_timeout_s=SHORT_S))
    assert "127.0.0.1" in str(error)
    assert "127.0.0.2" in str(error)


def test_a_server_that_restarts_meanwhile_is_waited_for(own_database: Database) -> None:
    server, failures = own_database.server, own_database.observer
    db = own_database.manager(connect_timeout_s=PATIENT_S)
    server.stop()

    def start_when_missed() -> None:
        wait_until(lambda: len(failures.of(ConnectFailed)) > 1)
        server.start()

    with in_background(start_when_missed), db.connection() as connection:
        assert own_database.session_id(connection)
    opened = failures.of(ConnectionOpened)
    assert [event.attempts for event in opened] == [len(failures.of(ConnectFailed)) + 1]
    assert all(event.error.startswith("ConnectError") for event in failures.of(ConnectFailed))


def test_a_session_lost_with_its_server_is_replaced_once_the_server_is_back(own_database: Database) -> None:
    db = own_database.manager(reserve_s=0.5)  # what is to connect has all the time that it needs on a busy machine
    with db.connection() as connection:
        fileno = connection.fileno()
    own_database.server.kill()
    wait_for_end(fileno)
    error, _ = fails_to_connect(db, context=0.5 + SHORT_S)
    assert error.retryable
    assert own_database.reasons() == []
    own_database.server.start()
    with db.connection() as connection:
        assert own_database.session_id(connection)
    assert own_database.reasons() == ["hang_up"]


@pytest.mark.parametrize("own_database", ["own_postgres-plain", "own_postgres-tls"], indirect=True)
def test_a_server_that_is_shutting_down_is_worth_another_try(own_database: Database) -> None:
    server = own_database.server
    with connect(server):
        os.kill(server.pid, signal.SIGTERM)  # "smart": no new sessions, and an end when the last one is over
        wait_until(lambda: "received smart shutdown request" in server.log())
        error, _ = fails_to_connect(own_database.manager(connect_timeout_s=SHORT_S))
    assert "the database system is shutting down" in own_database.observer.of(ConnectFailed)[0].error
    assert error.retryable
    assert error.remedy.startswith("Wait")
    server.restart()
    with own_database.manager().connection() as connection:
        assert own_database.session_id(connection)


@pytest.mark.parametrize(("is_tls", "reserved"), [(False, 0), (True, 3)], ids=["plain", "tls"])
def test_a_full_server_is_busy_and_lets_in_when_a_place_is_free(
    is_tls: bool, reserved: int, server_class: type[LocalServer], certificates: Certificates
) -> None:
    few = {"max_connections": "10"}
    if server_class.engine == "postgresql":  # whose words depend on whether administrators still get in
        few["superuser_reserved_connections"] = str(reserved)
    with (
        server_class(certificates=certificates, extra_options=few) as server,
        behind_a_relay(server, is_tls=is_tls) as database,
        ExitStack() as stack,
    ):
        others: list[Any] = []
        while len(others) <= 10:
            try:
                others.append(connect(server, is_tls=is_tls))
            except REFUSED:
                break
            stack.callback(others[-1].close)
        error, took_s = fails_to_connect(database.manager(connect_timeout_s=SHORT_S))
        assert isinstance(error, ProxyBusyError)
        assert error.retryable
        assert "limit" in error.remedy
        assert took_s < SHORT_S + 5
        tries = len(database.observer.of(ConnectFailed))
        assert tries > 1

        def leave_when_missed() -> None:
            wait_until(lambda: len(database.observer.of(ConnectFailed)) > tries)
            stack.close()

        patient = database.manager(connect_timeout_s=PATIENT_S)
        with in_background(leave_when_missed), patient.connection() as connection:
            assert database.session_id(connection)


# The end of a connection that is dead already


def test_closing_a_dead_connection_never_blocks(database: Database) -> None:
    db = database.manager()
    with db.connection() as connection, socket.socket(fileno=os.dup(connection.fileno())) as raw:
        database.relay.freeze()
        raw.setblocking(False)
        with suppress(BlockingIOError):
            while True:  # until not a byte more fits between here and the relay
                raw.send(bytes(65_536))
    raw.close()
    started_s = time.monotonic()
    db.close()
    assert time.monotonic() - started_s < 5, "it waited for somebody to read what it said"
    assert db.stats().open == 0
    database.relay.heal()
