"""How a limit comes on the socket of a MySQL connection, and goes: with a pair of sockets and no server."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING

import pytest

from lambda_dbconn.deadline import Course, Cutoff
from lambda_dbconn.drivers.mysql_connection import Connection, Socket

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Ends:
    """A connection's socket, and the server's end of it."""

    def __init__(self) -> None:
        ours, self.server = socket.socketpair()
        self.sock = Socket(fileno=ours.detach())
        self.connection = Connection(defer_connect=True)
        self.connection._sock = self.sock

    def cut_off(self, left_s: float | None, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        course = Course(where="here", monotonic=monotonic, interrupt=lambda _: None)
        self.connection.cut_off(None if left_s is None else Cutoff(monotonic() + left_s, course))

    def receive(self) -> int:
        return self.sock.recv_into(bytearray(1))


@pytest.fixture
def ends() -> Iterator[Ends]:
    made = Ends()
    with made.sock, made.server:
        yield made
    made.connection._sock = None


def test_a_socket_that_is_limited_waits_no_longer(ends: Ends) -> None:
    ends.cut_off(0.05)
    with pytest.raises(TimeoutError):
        ends.receive()


def test_when_the_time_is_over_nothing_is_sent_or_received(ends: Ends) -> None:
    ends.server.sendall(b"x")
    ends.cut_off(0.0)
    with pytest.raises(TimeoutError):
        ends.receive()
    with pytest.raises(TimeoutError):
        ends.sock.sendall(b"x")


@pytest.mark.parametrize("sends_first", [True, False])
def test_the_first_call_after_a_limit_was_lifted_finds_a_plain_socket(ends: Ends, *, sends_first: bool) -> None:
    ends.server.sendall(b"xx")
    ends.cut_off(0.3)
    assert ends.receive() == 1
    assert 0 < (ends.sock.gettimeout() or 0) <= 0.3
    ends.cut_off(None)
    if sends_first:
        ends.sock.sendall(b"y")
        assert ends.server.recv(9) == b"y"
    else:
        assert ends.receive() == 1
    assert type(ends.sock) is Socket
    assert ends.sock.gettimeout() is None


def test_one_limit_after_another_needs_no_plain_socket_in_between(ends: Ends) -> None:
    for left_s in (60.0, 30.0, 60.0):
        ends.server.sendall(b"x")
        ends.cut_off(left_s)
        assert ends.receive() == 1
        assert left_s - 1 < (ends.sock.gettimeout() or 0) <= left_s
        ends.cut_off(None)


def test_a_connection_without_a_socket_takes_any_limit(ends: Ends) -> None:
    ends.connection._sock = None
    ends.cut_off(1.0)
    ends.cut_off(None)
    assert ends.connection.cutoff is None


@pytest.mark.parametrize("moment", [0.0, 1e9])
def test_the_managers_clock_may_be_another_one(ends: Ends, moment: float) -> None:
    ends.server.sendall(b"x")
    ends.cut_off(60.0, monotonic=lambda: moment)
    assert ends.receive() == 1
    assert 59 < (ends.sock.gettimeout() or 0) <= 60
