"""A server of PostgreSQL's protocol that lets anybody in, and answers the first query without end."""

from __future__ import annotations

import socket
import struct
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


def message(kind: bytes, body: bytes = b"") -> bytes:
    """Frame a message of the protocol, version 3."""
    return kind + struct.pack("!i", len(body) + 4) + body


READY = message(b"Z", b"I")
NOTICE = message(b"N", b"SNOTICE\0C00000\0Mstill here\0\0")
ROWS = message(b"T", struct.pack("!h", 0)) + message(b"D", struct.pack("!h", 0))
RESULT = message(b"C", b"SELECT 0\0")


@contextmanager
def talking_server(answer: bytes, *, pause_s: float) -> Iterator[int]:
    """Yield the port of a server that repeats an answer, with a pause after each, until its client goes away."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with suppress(OSError), listener.accept()[0] as client:
                client.recv(65536)  # the start-up packet
                client.sendall(message(b"R", struct.pack("!i", 0)) + READY)
                client.recv(65536)
                while True:
                    client.sendall(answer)
                    time.sleep(pause_s)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield int(listener.getsockname()[1])
        finally:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            thread.join()
