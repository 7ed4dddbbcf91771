"""Byte streams with bounded buffers, and a relay that looks at what it hands on.

asyncio's own streams lose the start of a TLS handshake that a client sends together with its request for TLS, as
MySQL clients do. Here everything before TLS is read from the socket, byte by counted byte, and only then is the
socket given to a transport.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

_BUFFER_BYTES = 256 * 1024
_HANDSHAKE_TIMEOUT_S = 10.0
_GOODBYE_TIMEOUT_S = 0.1  # for the other side's close_notify, which drivers do not send


class StreamEndedError(Exception):
    """The other side has gone, or this one has hung up."""


async def receive_exactly(sock: socket.socket, count: int) -> bytes:
    """Read so many bytes from a socket, and not one more.

    Raises:
        StreamEndedError: It ended before.
    """
    received = b""
    while len(received) < count:
        chunk = await asyncio.get_running_loop().sock_recv(sock, count - len(received))
        if not chunk:
            raise StreamEndedError
        received += chunk
    return received


class Stream(asyncio.Protocol):
    """A connection whose received bytes wait in `buffer`; no more are read while too many wait there."""

    def __init__(self) -> None:
        self.buffer = bytearray()
        self.is_ended = False
        self.on_end: Callable[[], None] | None = None
        self._arrived: asyncio.Future[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._closed = asyncio.Event()

    @classmethod
    async def accepted(cls, sock: socket.socket, tls: ssl.SSLContext | None) -> Stream:
        """Take over a client's socket, as the server's side of TLS."""
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _, stream = await asyncio.get_running_loop().connect_accepted_socket(
            cls,
            _handed_over(sock),
            ssl=tls,
            ssl_handshake_timeout=_HANDSHAKE_TIMEOUT_S if tls else None,
            ssl_shutdown_timeout=_GOODBYE_TIMEOUT_S if tls else None,
        )
        return stream

    @classmethod
    async def connected(cls, sock: socket.socket, tls: ssl.SSLContext | None, host: str) -> Stream:
        """Take over a socket that is connected to a server, as the client's side of TLS."""
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _, stream = await asyncio.get_running_loop().create_connection(
            cls,
            sock=_handed_over(sock),
            ssl=tls,
            server_hostname=host if tls else None,
            ssl_handshake_timeout=_HANDSHAKE_TIMEOUT_S if tls else None,
        )
        return stream

    async def read(self, count: int) -> bytes:
        """Take so many bytes, which must fit in memory.

        Raises:
            StreamEndedError: It ended before.
        """
        while len(self.buffer) < count:
            await self.more_than(len(self.buffer))
        taken = bytes(self.buffer[:count])
        del self.buffer[:count]
        return taken

    async def more_than(self, count: int) -> None:
        """Wait until `buffer` holds more than so many bytes; no time if it has grown while the caller was waiting.

        Raises:
            StreamEndedError: Nothing more will come.
        """
        while len(self.buffer) <= count:
            if self.is_ended:
                raise StreamEndedError
            self._transport.resume_reading()
            self._arrived = asyncio.get_running_loop().create_future()
            await self._arrived

    def write(self, data: bytes) -> None:
        """Send, at the latest when the other side takes it; `drain` says when enough of it has gone."""
        if not self.is_ended:
            self._transport.write(data)

    async def drain(self) -> None:
        """Wait while too much that was written waits to be sent."""
        await self._writable.wait()

    def close(self) -> None:
        """Hang up when all that was written is sent."""
        self._transport.close()
        self._end()

    def abort(self) -> None:
        """Hang up at once."""
        self._transport.abort()
        self._end()

    async def wait_closed(self) -> None:
        """Wait until the socket is closed."""
        await self._closed.wait()

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:  # noqa: D102
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:  # noqa: D102
        self.buffer += data
        if len(self.buffer) > _BUFFER_BYTES:
            self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> None:  # noqa: D102
        self._end()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: D102, ARG002
        self._end()
        self._closed.set()

    def pause_writing(self) -> None:  # noqa: D102
        self._writable.clear()

    def resume_writing(self) -> None:  # noqa: D102
        self._writable.set()

    def _wake(self) -> None:
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)

    def _end(self) -> None:
        if self.is_ended:
            return
        self.is_ended = True
        self._writable.set()  # nobody is to wait for what nobody will take
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_exception(StreamEndedError())
        if self.on_end is not None:
            self.on_end()


class Relay:
    """Hands bytes on from one stream to another, unchanged and in bounded memory, and looks at them before.

    What is passed on stays in the source's buffer until `flush`, or until more has to be waited for, so that many
    small messages travel together.
    """

    def __init__(self, source: Stream, destination: Stream | None = None) -> None:
        self.source = source
        self.destination = destination
        self._passed = 0

    async def peek(self, count: int) -> bytes:
        """Return the next bytes without passing them on.

        Raises:
            StreamEndedError: The source ended before.
        """
        if len(self.source.buffer) - self._passed < count:
            await self.flush()
        while len(self.source.buffer) - self._passed < count:
            await self.source.more_than(len(self.source.buffer))
        return bytes(self.source.buffer[self._passed : self._passed + count])

    async def pass_on(self, count: int) -> None:
        """Pass on the next bytes, of which not all need to have come.

        Raises:
            StreamEndedError: The source ended before.
        """
        while (available := len(self.source.buffer) - self._passed) < count:
            count -= available
            self._passed += available
            await self.flush()
            await self.source.more_than(self._passed)
        self._passed += count

    async def drop(self, count: int) -> None:
        """Let the next bytes vanish; what was passed on before goes out.

        Raises:
            StreamEndedError: The source ended before.
        """
        await self.flush()
        while (available := len(self.source.buffer)) < count:
            count -= available
            self.source.buffer.clear()
            await self.source.more_than(0)
        del self.source.buffer[:count]

    def unsent(self) -> bytes:
        """Take what was passed on and has not been written, for the caller to write."""
        taken = bytes(self.source.buffer[: self._passed])
        del self.source.buffer[: self._passed]
        self._passed = 0
        return taken

    async def flush(self) -> None:
        """Write what was passed on, and wait while the destination is behind."""
        if self._passed and self.destination is not None:
            self.destination.write(self.unsent())
            await self.destination.drain()


def _handed_over(sock: socket.socket) -> socket.socket:
    """Take the socket from its owner, whose `close` does nothing then.

    Who gives up in the middle of a TLS handshake would close what asyncio still watches, and the next connection with
    the same file descriptor would fail ("is used by transport").
    """
    return socket.socket(fileno=sock.detach())


async def connect_socket(host: str, port: int) -> socket.socket:
    """Connect to a server that is expected to be near.

    Raises:
        OSError: There is none.
    """
    sock = socket.socket()
    sock.setblocking(False)  # noqa: FBT003
    try:
        await asyncio.get_running_loop().sock_connect(sock, (host, port))
    except BaseException:
        sock.close()
        raise
    return sock
