"""How the sockets of a MySQL connection keep to a limit: with a pair of sockets and no server."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pymysql
import pytest
from pymysql.connections import MySQLResult
from pymysql.protocol import MysqlPacket

from lambda_dbconn.deadline import CancelScope, Limit
from lambda_dbconn.drivers.commits import may_commit
from lambda_dbconn.drivers.mysql import MysqlDriver
from lambda_dbconn.drivers.mysql_connection import Connection
from lambda_dbconn.drivers.mysql_socket import Socket, TlsContext
from lambda_dbconn.testing.certificates import Certificates

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LIMIT_S = 0.3
LATE_S = 1.0
MUCH = b"x" * 20_000_000  # more than any socket takes while nobody reads


def within(seconds: float) -> Limit:
    return Limit(time.monotonic, time.monotonic() + seconds)


class Ends:
    """Our socket, limited to ten seconds, and the server's end of it."""

    def __init__(self) -> None:
        ours, self.server = socket.socketpair()
        self.server.settimeout(10.0)
        self.sock = Socket(fileno=ours.detach())
        self.sock.keep(within(10.0))

    def speak_tls(self, certificates: Certificates) -> None:
        """Put TLS on both ends."""
        context = TlsContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cafile=certificates.ca_path)
        agreeing = threading.Thread(target=self._agree, args=(certificates,))
        agreeing.start()
        self.sock = context.wrap_socket(self.sock, server_hostname="localhost")
        agreeing.join()
        self.server.settimeout(10.0)

    def _agree(self, certificates: Certificates) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificates.server_certificate_path, certificates.server_key_path)
        self.server = context.wrap_socket(self.server, server_side=True)

    def receive(self, count: int = 1) -> int:
        return self.sock.recv_into(bytearray(count))


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates.create(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(params=["plain", "tls"])
def ends(request: pytest.FixtureRequest, certificates: Certificates) -> Iterator[Ends]:
    made = Ends()
    try:
        if request.param == "tls":
            made.speak_tls(certificates)
        yield made
    finally:
        made.sock.close()
        made.server.close()


def took_s(call: Callable[[], object]) -> float:
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        call()
    return time.monotonic() - began


def test_nothing_is_waited_for_beyond_the_limit(ends: Ends) -> None:
    ends.sock.limit = within(LIMIT_S)
    assert LIMIT_S - 0.01 < took_s(ends.receive) < LATE_S


def test_a_reader_that_does_not_read_is_waited_for_no_longer(ends: Ends) -> None:
    ends.sock.limit = within(LIMIT_S)
    assert LIMIT_S - 0.01 < took_s(lambda: ends.sock.sendall(MUCH)) < LATE_S


def test_when_the_time_is_over_nothing_is_sent_or_received(ends: Ends) -> None:
    ends.server.sendall(b"x")
    ends.sock.limit = within(0.0)
    with pytest.raises(TimeoutError):
        ends.receive()
    with pytest.raises(TimeoutError):
        ends.sock.sendall(b"x")
    ends.server.settimeout(0.05)
    with pytest.raises(TimeoutError):
        ends.server.recv(1)


def test_a_limit_that_is_moved_holds_for_the_next_call(ends: Ends) -> None:
    limit = ends.sock.limit = within(LIMIT_S)
    ends.server.sendall(b"x")
    assert ends.receive() == 1
    limit.ends_at = float("inf")
    late = threading.Timer(LIMIT_S * 2, lambda: ends.server.sendall(b"y"))
    late.start()
    assert ends.receive() == 1
    late.join()
    limit.ends_at = time.monotonic() + 0.05
    assert took_s(ends.receive) < LATE_S


def test_all_is_sent_to_a_reader_that_takes_its_time_and_comes_back(ends: Ends) -> None:
    back = threading.Thread(target=lambda: ends.server.sendall(_receive_all(ends.server, len(MUCH))[::-1]))
    back.start()
    ends.sock.sendall(MUCH)
    received, buffer = 0, bytearray(8192)
    while received < len(MUCH):
        received += ends.sock.recv_into(buffer)
    back.join()
    assert received == len(MUCH)


def _receive_all(sock: socket.socket, count: int) -> bytes:
    received = bytearray()
    while len(received) < count:
        received += sock.recv(1 << 20)
    return bytes(received)


@pytest.mark.parametrize("size", [1, 8, 9])
def test_what_a_call_has_left_in_the_tls_layer_is_not_waited_for(ends: Ends, size: int) -> None:
    """A record is decrypted as a whole: the socket is silent, and what was not asked for yet is there."""
    ends.server.sendall(b"x" * size * 3)
    ends.sock.limit = within(LIMIT_S)
    assert [ends.receive(size) for _ in range(3)] == [size] * 3
    assert took_s(ends.receive) < LATE_S


def test_what_need_not_be_waited_for_is_not_received_when_the_time_is_over(ends: Ends) -> None:
    """Or an answer that comes quicker than it is read would be read for ever."""
    ends.server.sendall(b"x" * 16)
    assert ends.receive(8) == 8
    ends.sock.limit = within(0.0)
    with pytest.raises(TimeoutError):
        ends.receive(8)


def test_the_end_is_no_wait(ends: Ends) -> None:
    ends.server.close()
    with suppress(BrokenPipeError):  # with TLS some of OpenSSL's versions still try to answer; PyMySQL knows both
        assert ends.receive() == 0


def test_whoever_asks_for_a_blocking_socket_does_not_get_one(ends: Ends) -> None:
    ends.sock.settimeout(None)
    assert ends.sock.gettimeout() == 0.0


def test_a_server_that_sends_its_record_bit_by_bit_does_not_hold_the_caller(certificates: Certificates) -> None:
    """Each byte would begin a socket's own time limit anew, and what reads from the socket is OpenSSL."""
    ends, between = Ends(), Ends()
    ends.sock, between.sock = between.sock, ends.sock  # ends.sock <-> between.server, between.sock <-> ends.server
    stop = threading.Event()
    relay = threading.Thread(target=_trickle, args=(between.server, between.sock, stop))
    relay.start()
    try:
        ends.speak_tls(certificates)
        stop.set()
        ends.server.sendall(b"x" * 100)
        ends.sock.limit = within(LIMIT_S)
        assert LIMIT_S - 0.01 < took_s(ends.receive) < LATE_S
    finally:
        for sock in (ends.sock, ends.server, between.sock, between.server):
            sock.close()
        relay.join()


def _trickle(client: socket.socket, server: socket.socket, is_slow: threading.Event) -> None:
    """Carry bytes both ways until either end is closed; slowly to the client, once that is asked for."""
    server.setblocking(False)
    client.setblocking(False)
    try:
        while True:
            for source, target in ((client, server), (server, client)):
                slowly = source is server and is_slow.is_set()
                try:
                    data = socket.socket.recv(source, 1 if slowly else 65_536)
                except BlockingIOError:
                    continue
                if not data:
                    return
                socket.socket.send(target, data)
            time.sleep(0.02)
    except OSError:
        return


def test_a_handshake_keeps_to_the_limit_and_leaves_no_socket_open(certificates: Certificates) -> None:
    ends = Ends()
    context = TlsContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cafile=certificates.ca_path)
    ends.sock.limit = within(LIMIT_S)
    with ends.server:
        assert took_s(lambda: context.wrap_socket(ends.sock, server_hostname="localhost")) < LATE_S
        assert ends.server.recv(65_536)  # the client's hello
        assert not ends.server.recv(1)


# --- the connection


@pytest.mark.parametrize(
    ("owner", "names"),
    [
        (pymysql.Connection, ["_write_bytes", "_execute_command", "_read_packet", "_read_ok_packet", "_force_close"]),
        (pymysql.Connection, ["_read_query_result", "_sock", "_rfile"]),
        (MySQLResult, ["_check_packet_is_eof", "_read_row_from_packet", "_finish_unbuffered_query", "__del__"]),
        (MySQLResult, ["_read_rowdata_packet_unbuffered", "read", "init_unbuffered_query"]),
    ],
)
def test_the_private_names_of_pymysql_that_the_driver_rests_on_are_there(owner: type, names: list[str]) -> None:
    assert [name for name in names if name not in vars(owner)] == []


def test_an_error_of_the_server_is_told_from_one_of_pymysqls_own_by_its_sqlstate() -> None:
    assert MysqlPacket(b"\xff\x15\x04#28000no", "utf8").is_error_packet()
    with pytest.raises(pymysql.OperationalError) as raised:
        MysqlPacket(b"\xff\x15\x04#28000no", "utf8").raise_for_error()
    assert raised.value.sqlstate == "28000"
    assert pymysql.OperationalError(2013, "lost").sqlstate is None


@pytest.fixture
def connection() -> Iterator[Connection]:
    ends = Ends()
    made = Connection(defer_connect=True)
    made._sock = ends.sock
    with ends.sock, ends.server:
        yield made
    made._sock = None


def scope(*, monotonic: Callable[[], float] = time.monotonic) -> CancelScope:
    return CancelScope(where="here", monotonic=monotonic, interrupt=lambda _: None)


def test_a_limit_of_its_own_takes_the_cutoffs_place_until_it_is_taken_back(connection: Connection) -> None:
    assert connection._sock is not None
    obeyed = scope()
    connection.bind_scope(obeyed)
    assert connection._sock.limit is obeyed
    connection.limit(time.monotonic() + 1.0)
    assert 0 < connection._sock.limit.left_s() <= 1.0
    connection.limit(None)
    assert connection._sock.limit is obeyed


def test_a_connection_without_a_socket_takes_any_limit(connection: Connection) -> None:
    connection._sock = None
    connection.bind_scope(scope())
    connection.limit(1.0)
    connection.limit(None)


@pytest.mark.parametrize("moment", [0.0, 1e9])
def test_the_managers_clock_may_be_another_one(connection: Connection, moment: float) -> None:
    assert connection._sock is not None
    obeyed = scope(monotonic=lambda: moment)
    connection.bind_scope(obeyed)
    obeyed.ends_at = moment + 60.0
    connection._sock.sendall(b"x")
    obeyed.ends_at = moment
    with pytest.raises(TimeoutError):
        connection._sock.sendall(b"x")


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("8.0.35", True),
        ("8.4.3", True),
        ("9.7.4-2", True),
        ("10.11.19-MariaDB-deb12", True),
        ("5.5.5-10.6.14-MariaDB-log", True),
        ("5.5.5-10.4.8", True),
        ("5.7.12", False),
        ("5.7.44-log", False),
        ("5.6.10", False),
        ("unknown", False),
        ("", False),
    ],
)
def test_only_mysql_8_and_mariadb_take_several_commands_at_once(version: str, expected: bool) -> None:
    made = Connection(defer_connect=True)
    made.server_version = version
    assert MysqlDriver().can_defer_reset(made) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("INSERT INTO t VALUES (1)", False),
        (b"/* trace */ update t set a = 'alter table'", False),
        ("(SELECT 1) UNION (SELECT 2)", False),
        ("-- why\nWITH a AS (SELECT 1) SELECT * FROM a", False),
        ("SAVEPOINT a", False),
        ("", False),
        ("ALTER TABLE t ADD a int", True),
        ("/* select */ TRUNCATE t", True),
        (b"commit", True),
        ("CALL pay()", True),
        ("SET autocommit = 1", True),
        ("/*! commit */", True),
        ("\N{SNOWMAN}", True),
    ],
)
def test_what_is_not_known_to_commit_nothing_may_commit(text: str | bytes, expected: bool) -> None:
    assert may_commit("mysql", text) is expected
