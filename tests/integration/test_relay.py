"""The fault relay, between plain sockets: what each fault makes of a connection, as both ends see it."""

from __future__ import annotations

import contextlib
import gc
import os
import select
import socket
import struct
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from lambda_dbconn.testing.relay import FaultRelay

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.once

LIMIT_S = 10.0


@dataclass
class Lab:
    listener: socket.socket
    relay: FaultRelay
    sockets: contextlib.ExitStack

    def dial(self) -> socket.socket:
        client = socket.create_connection((self.relay.host, self.relay.port), LIMIT_S)
        return self.sockets.enter_context(client)

    def answer(self) -> socket.socket:
        server, _ = self.listener.accept()
        server.settimeout(LIMIT_S)
        return self.sockets.enter_context(server)

    def connect(self) -> tuple[socket.socket, socket.socket]:
        return self.dial(), self.answer()


@pytest.fixture
def lab() -> Iterator[Lab]:
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        listener.settimeout(LIMIT_S)
        relay = FaultRelay(target_host="127.0.0.1", target_port=listener.getsockname()[1])
        yield Lab(listener, stack.enter_context(relay), stack)


def passes(sender: socket.socket, receiver: socket.socket, data: bytes = b"hello") -> bool:
    sender.sendall(data)
    return read(receiver, len(data)) == data


def read(sock: socket.socket, size_bytes: int) -> bytes:
    data = bytearray()
    while len(data) < size_bytes and (more := sock.recv(size_bytes - len(data))):
        data += more
    return bytes(data)


def read_to_end(sock: socket.socket) -> tuple[bytes, str]:
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while more := sock.recv(65_536):
            data += more
        return data, "FIN"
    return data, "RST"


def is_silent(sock: socket.socket, for_s: float = 0.1) -> bool:
    return not select.select([sock], [], [], for_s)[0]


def test_what_either_side_says_reaches_the_other(lab: Lab) -> None:
    client, server = lab.connect()
    assert passes(client, server, b"question")
    assert passes(server, client, b"answer")


@pytest.mark.parametrize("is_from_client", [True, False])
def test_more_than_the_buffers_hold_passes_whole_and_in_order(is_from_client: bool, lab: Lab) -> None:
    ends = lab.connect()
    sender, receiver = ends if is_from_client else reversed(ends)
    data = os.urandom(16 * 1024 * 1024)
    thread = threading.Thread(target=sender.sendall, args=(data,))
    thread.start()
    assert read(receiver, len(data)) == data
    thread.join()


def test_a_client_that_has_finished_sending_still_gets_its_answer(lab: Lab) -> None:
    client, server = lab.connect()
    client.sendall(b"last words")
    client.shutdown(socket.SHUT_WR)
    assert read_to_end(server) == (b"last words", "FIN")
    server.sendall(b"understood")
    server.close()
    assert read_to_end(client) == (b"understood", "FIN")
    lab.relay.wait_for_connections(0)


@pytest.mark.parametrize("is_from_client", [True, False])
def test_a_reset_by_one_end_is_a_reset_for_the_other(is_from_client: bool, lab: Lab) -> None:
    ends = lab.connect()
    leaver, stayer = ends if is_from_client else reversed(ends)
    assert passes(leaver, stayer)
    leaver.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    leaver.close()
    assert read_to_end(stayer) == (b"", "RST")


def test_the_last_words_of_a_server_reach_a_client_that_was_talking(lab: Lab) -> None:
    client, server = lab.connect()
    lab.relay.delay(0.3)
    server.sendall(b"FATAL")
    server.close()
    lab.relay.delay(0)
    for _ in range(3):
        client.sendall(b"query")
        assert is_silent(client, 0.01)
    assert read(client, 5) == b"FATAL"


def test_a_server_that_is_down_resets_the_client(lab: Lab) -> None:
    lab.listener.close()
    with pytest.raises(ConnectionResetError):
        lab.dial().recv(1)


def test_refused_connections_are_accepted_again_on_the_same_port(lab: Lab) -> None:
    client, server = lab.connect()
    lab.relay.refuse()
    with pytest.raises(ConnectionRefusedError):
        lab.dial()
    assert passes(client, server)
    lab.relay.accept()
    assert passes(*lab.connect())


def test_nobody_else_gets_the_port_while_it_refuses(lab: Lab) -> None:
    lab.relay.refuse()
    with socket.socket() as thief, pytest.raises(OSError, match="already in use"):
        thief.bind((lab.relay.host, lab.relay.port))


def test_a_connection_that_was_made_just_before_refusing_is_served(lab: Lab) -> None:
    client = lab.dial()
    lab.relay.refuse()
    assert passes(client, lab.answer())


def test_a_black_hole_swallows_new_connections_only(lab: Lab) -> None:
    ends = lab.connect()
    lab.relay.black_hole()
    lost = lab.dial()
    lost.sendall(b"anybody?")
    assert passes(*ends)
    lab.relay.accept()
    assert passes(*lab.connect())
    assert is_silent(lost)
    assert is_silent(lab.listener, 0)


def test_the_relay_sees_a_client_leave_its_black_hole(lab: Lab) -> None:
    lab.relay.black_hole()
    client = lab.dial()
    assert lab.relay.open_connections == 1
    client.close()
    lab.relay.wait_for_connections(0)


def test_psycopg_gives_up_on_a_black_hole_by_its_own_time_limit(lab: Lab) -> None:
    lab.relay.black_hole()
    with pytest.raises(psycopg.errors.ConnectionTimeout):
        psycopg.connect(host=lab.relay.host, port=lab.relay.port, user="u", dbname="d", connect_timeout=2)
    assert lab.relay.connects == 1


def test_psycopg_tells_a_refused_connection_from_a_lost_one(lab: Lab) -> None:
    lab.relay.cut_after(bytes_from_client=0)
    with pytest.raises(psycopg.OperationalError, match="server closed the connection unexpectedly"):
        psycopg.connect(host=lab.relay.host, port=lab.relay.port, user="u", dbname="d", sslmode="disable")
    lab.relay.refuse()
    with pytest.raises(psycopg.OperationalError, match="Connection refused"):
        psycopg.connect(host=lab.relay.host, port=lab.relay.port, user="u", dbname="d", sslmode="disable")


def test_freeze_holds_bytes_both_ways_and_thaw_delivers_them(lab: Lab) -> None:
    client, server = lab.connect()
    lab.relay.delay(0.3)
    client.sendall(b"one")  # held as late already
    lab.relay.freeze()
    client.sendall(b"two")
    server.sendall(b"three")
    assert is_silent(server, 0.4)
    assert lab.relay.is_armed is False  # which wakes the relay
    assert is_silent(server)
    assert is_silent(client, 0)
    lab.relay.thaw()
    assert read(server, 6) == b"onetwo"
    assert read(client, 5) == b"three"


def test_freeze_comes_after_what_its_caller_had_sent_before(lab: Lab) -> None:
    client, server = lab.connect()
    assert passes(client, server)
    client.sendall(b"through")
    lab.relay.freeze()
    assert read(server, 7) == b"through"


def test_a_connection_made_while_frozen_works_after_the_thaw(lab: Lab) -> None:
    lab.relay.freeze()
    client = lab.dial()
    client.sendall(b"patience")
    server = lab.answer()
    assert is_silent(server)
    lab.relay.thaw()
    assert read(server, 8) == b"patience"


def test_the_end_of_a_connection_is_held_too(lab: Lab) -> None:
    client, server = lab.connect()
    lab.relay.freeze()
    client.close()
    assert is_silent(server)
    lab.relay.thaw()
    assert read_to_end(server) == (b"", "FIN")


def test_after_vanish_the_server_is_reset_and_the_client_is_never_answered(lab: Lab) -> None:
    client, server = lab.connect()
    lab.relay.vanish()
    assert read_to_end(server) == (b"", "RST")
    client.sendall(b"hello?")
    assert is_silent(client)
    assert lab.relay.open_connections == 1
    assert passes(*lab.connect())


@pytest.mark.parametrize("fault", ["fin", "rst"])
def test_fin_and_rst_have_reached_both_ends_when_they_return(fault: str, lab: Lab) -> None:
    client, server = lab.connect()
    assert passes(client, server)
    getattr(lab.relay, fault)()
    for end in (client, server):
        assert not is_silent(end, 0)
        assert read_to_end(end) == (b"", fault.upper())


@pytest.mark.parametrize("fault", ["fin", "rst", "vanish"])
def test_faults_act_on_a_frozen_connection(fault: str, lab: Lab) -> None:
    client, server = lab.connect()
    lab.relay.freeze()
    client.sendall(b"lost")
    getattr(lab.relay, fault)()
    assert read_to_end(server) == (b"", "FIN" if fault == "fin" else "RST")
    assert is_silent(client) if fault == "vanish" else read_to_end(client) == (b"", fault.upper())


def test_delay_keeps_the_order_and_holds_up_no_other_connection(lab: Lab) -> None:
    client, server = lab.connect()
    others = lab.connect()
    lab.relay.delay(1.0)
    started_s = time.monotonic()
    client.sendall(b"one")
    lab.relay.delay(0)
    client.sendall(b"two")  # not late itself, but behind one that is
    assert passes(*others)
    assert passes(server, client)
    assert is_silent(server, 0)
    assert read(server, 6) == b"onetwo"
    assert time.monotonic() - started_s >= 1.0


@pytest.mark.parametrize("ending", ["fin", "rst"])
def test_cut_after_forwards_exactly_so_many_bytes_of_the_server(ending: str, lab: Lab) -> None:
    client, server = lab.connect()
    lab.relay.cut_after(bytes_from_server=5, ending="fin" if ending == "fin" else "rst")
    assert passes(client, server, b"does not count")
    assert passes(server, client, b"abc")
    server.sendall(b"de")
    assert read_to_end(client) == (b"de", ending.upper())
    assert read_to_end(server) == (b"", "FIN")


def test_cut_after_forwards_exactly_so_many_bytes_of_the_client(lab: Lab) -> None:
    client, server = lab.connect()
    lab.relay.cut_after(bytes_from_client=7)
    client.sendall(b"one\ntwo\nthree\n")
    assert read_to_end(client) == (b"", "RST")
    assert read_to_end(server) == (b"one\ntwo", "FIN")


def test_cut_after_nothing_stops_the_next_byte(lab: Lab) -> None:
    client, server = lab.connect()
    lab.relay.cut_after(bytes_from_client=0)
    assert passes(server, client, b"greeting")
    client.sendall(b"never")
    assert read_to_end(client) == (b"", "RST")
    assert read_to_end(server) == (b"", "FIN")


def test_cut_after_wants_one_direction(lab: Lab) -> None:
    with pytest.raises(ValueError, match="not both"):
        lab.relay.cut_after(bytes_from_client=1, bytes_from_server=1)


@pytest.mark.parametrize("is_forwarded", [True, False])
def test_cut_when_decides_whether_the_server_hears_of_the_commit(is_forwarded: bool, lab: Lab) -> None:
    client, server = lab.connect()
    lab.relay.cut_when(client_sends=b"COMMIT", forward=is_forwarded)
    assert passes(client, server, b"insert")
    assert lab.relay.is_armed
    client.sendall(b"Q COMMIT;")
    assert read_to_end(client) == (b"", "RST")
    assert not lab.relay.is_armed
    assert read_to_end(server) == (b"Q COMMIT;" if is_forwarded else b"", "FIN")


def test_cut_when_finds_a_text_that_comes_in_pieces(lab: Lab) -> None:
    client, server = lab.connect()
    lab.relay.cut_when(client_sends=b"COMMIT", forward=False)
    assert passes(client, server, b"COM")
    client.sendall(b"MIT")
    assert read_to_end(client) == (b"", "RST")
    assert read_to_end(server) == (b"", "FIN")


def test_a_cut_spares_the_other_connections(lab: Lab) -> None:
    client, _ = lab.connect()
    others = lab.connect()
    lab.relay.cut_when(client_sends=b"COMMIT", forward=False)
    client.sendall(b"COMMIT")
    assert read_to_end(client) == (b"", "RST")
    assert passes(*others, b"COMMIT")


def test_heal_ends_every_lasting_fault(lab: Lab) -> None:
    ends = lab.connect()
    lab.relay.delay(60)
    lab.relay.cut_after(bytes_from_client=0)
    lab.relay.freeze()
    lab.relay.refuse()
    lab.relay.heal()
    assert passes(*ends)
    assert passes(*lab.connect())


def test_counters_tell_connections_and_bytes(lab: Lab) -> None:
    client, server = lab.connect()
    assert passes(client, server, b"four")
    assert passes(server, client, b"ten bytes!")
    lab.connect()
    assert (lab.relay.connects, lab.relay.bytes_from_client, lab.relay.bytes_from_server) == (2, 4, 10)
    lab.relay.reset_counters()
    assert lab.relay.connects == lab.relay.bytes_from_client == lab.relay.bytes_from_server == 0


def test_a_round_trip_counts_when_the_server_answers(lab: Lab) -> None:
    client, server = lab.connect()
    for round_trips in (0, 1):
        assert passes(client, server)
        assert passes(client, server)
        assert lab.relay.round_trips == round_trips
        assert passes(server, client)
        assert passes(server, client)
        assert lab.relay.round_trips == round_trips + 1


def test_waiting_for_connections_ends_with_the_numbers_in_the_error(lab: Lab) -> None:
    lab.connect()
    with pytest.raises(TimeoutError, match=r"1 connections open after 0\.01 s, not 3"):
        lab.relay.wait_for_connections(3, timeout_s=0.01)


def test_close_resets_both_ends_and_leaves_no_thread_and_no_file(lab: Lab) -> None:
    def resources() -> tuple[set[threading.Thread], int]:
        gc.collect()
        return set(threading.enumerate()), len(list(Path("/proc/self/fd").iterdir()))

    before = resources()
    relay = FaultRelay(target_host="localhost", target_port=lab.listener.getsockname()[1])
    with socket.create_connection((relay.host, relay.port), LIMIT_S) as client, lab.answer() as server:
        relay.freeze()
        relay.close()
        relay.close()
        assert read_to_end(client) == (b"", "RST")
        assert read_to_end(server) == (b"", "RST")
    threads, files = resources()
    assert threads - before[0] == set()  # one of another test's may just have ended
    assert files <= before[1]
    assert relay.connects == 1
    with pytest.raises(RuntimeError, match="is closed"):
        relay.freeze()
