"""Servers of plain sockets that answer whatever a test wants, or nothing, or without end."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Answering:
    """A server whose connections are each given to a function, in a thread of its own.

    Attributes:
        port: On 127.0.0.1.
        is_over: Set when the test is over: what goes on without end must end then.
        asked: How many connections there were.
    """

    def __init__(self, answer: Callable[[socket.socket, threading.Event], None]) -> None:
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads = [threading.Thread(target=self._accept)]
        self.port: int = self._listener.getsockname()[1]
        self.is_over = threading.Event()
        self.asked = 0
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            if self.is_over.is_set():
                connection.close()
                return
            self.asked += 1
            thread = threading.Thread(target=self._serve, args=[connection])
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            self._answer(connection, self.is_over)

    def close(self) -> None:
        """End every thread."""
        self.is_over.set()
        socket.create_connection(("127.0.0.1", self.port)).close()
        for thread in self._threads:
            thread.join()
        self._listener.close()


@contextmanager
def answering(answer: Callable[[socket.socket, threading.Event], None]) -> Iterator[Answering]:
    """Run such a server while the block lasts."""
    server = Answering(answer)
    try:
        yield server
    finally:
        server.close()


def silent(connection: socket.socket, is_over: threading.Event) -> None:
    """Take the request, and never answer."""
    connection.recv(65536)
    is_over.wait()


def trickling(connection: socket.socket, is_over: threading.Event) -> None:
    """Answer a byte at a time, without end."""
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    while not is_over.wait(0.02):
        connection.sendall(b"x")


def trickling_body(connection: socket.socket, is_over: threading.Event) -> None:
    """Send the head at once, and of the body a byte at a time."""
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n{")
    while not is_over.wait(0.02):
        connection.sendall(b" ")


def flooding(connection: socket.socket, is_over: threading.Event) -> None:
    """Send as fast as the line takes it, without end."""
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while not is_over.is_set():
        connection.sendall(b" " * 65536)


WITHOUT_END = [silent, trickling, trickling_body, flooding]
