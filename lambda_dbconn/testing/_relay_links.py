"""The sockets of a fault relay: who is connected to whom, what is under way, and where it is cut.

One thread owns every socket here and sits in ``select()``, never in ``recv()``. With a thread for each
direction, ``close()`` would send neither FIN nor RST until the other thread's ``recv()`` returned, and the
fault that a test asked for would come late or never.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
import time
from collections import deque
from dataclasses import dataclass, field
from functools import partial
from selectors import EVENT_READ, EVENT_WRITE, DefaultSelector
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

Ending = Literal["fin", "rst"]

_READ_BYTES = 65_536
_HELD_LIMIT_BYTES = 4 * 1024 * 1024  # a sender who outruns its receiver is then no longer read
_DRAIN_READS = 64
_LINGER_ZERO = struct.pack("ii", 1, 0)


@dataclass(slots=True, kw_only=True)
class Chunk:
    """Bytes under way, and what happens to their link once they have been sent."""

    data: bytes
    due_s: float
    then: Callable[[Link], None] | None = None
    is_judged: bool = False


@dataclass(slots=True, kw_only=True, eq=False)
class Flow:
    """One direction of a link."""

    source: socket.socket
    sink: socket.socket
    is_from_client: bool
    held: deque[Chunk] = field(default_factory=deque)
    held_bytes: int = 0
    has_ended: bool = False  # the source will say no more
    is_done: bool = False  # the sink has been told so
    is_blocked: bool = False  # the sink's send buffer is full

    def is_due(self, now_s: float) -> bool:
        """Whether the first held chunk can go out."""
        return bool(self.held) and not self.is_blocked and self.held[0].due_s <= now_s


@dataclass(slots=True, kw_only=True, eq=False)
class Link:
    """A client's connection and the server's; without a server, what the client says is swallowed."""

    client: socket.socket
    server: socket.socket | None = None
    flows: tuple[Flow, ...] = ()
    is_connecting: bool = False
    is_answer_awaited: bool = False


class Cut(Protocol):
    """Decides when a link is cut; asked once about each chunk, in the order of sending."""

    ending: Ending

    def allowed_bytes(self, flow: Flow, data: bytes) -> int | None:
        """How much of ``data`` goes through before the cut; None: all of it, and no cut yet."""


@dataclass(slots=True, kw_only=True)
class Counters:
    """What has passed; see the properties of ``FaultRelay``."""

    connects: int = 0
    round_trips: int = 0
    bytes_from_client: int = 0
    bytes_from_server: int = 0


@dataclass(slots=True, kw_only=True)
class Faults:
    """The faults that last until they are ended; as it comes, none."""

    is_black_hole: bool = False
    is_frozen: bool = False
    delay_s: float = 0.0
    cut: Cut | None = None


class RelayLinks:
    """The relay's listener and links; once :meth:`run` has begun, for the thread that runs it alone."""

    def __init__(self, *, address: tuple[str, int], target: tuple[str, int]) -> None:
        self._target = target
        self._selector = DefaultSelector()
        # Bound but never listening: the port stays ours, and refuses, while there is no listener.
        self._reservation = _bound_socket(address)
        self.address: tuple[str, int] = self._reservation.getsockname()
        self._listener: socket.socket | None = None
        self._wake_receiver, self.wake_sender = socket.socketpair()
        self._wake_receiver.settimeout(0)
        self._selector.register(self._wake_receiver, EVENT_READ)
        self.open: set[Link] = set()
        self.counters = Counters()
        self.commands: deque[Callable[[], None]] = deque()
        self.faults = Faults()
        self._is_stopping = False
        self.listen()

    def run(self) -> None:
        """Forward and bind_scope until told to stop: for each of ``commands``, ``wake_sender`` is sent one byte."""
        try:
            while not self._is_stopping:
                ready = self._selector.select(self._until_due_s())
                for key, mask in ready:
                    if isinstance(key.data, Link) and key.data in self.open:
                        self._on_ready(key.data, key.fileobj, mask)
                self._accept_waiting()
                self._deliver_due()
                if any(key.fileobj is self._wake_receiver for key, _ in ready):
                    # Last, and one at a time: so a command comes after what its caller had sent before.
                    self._wake_receiver.recv(1)
                    self.commands.popleft()()
                for link in self.open:
                    self._watch(link)
        finally:
            self.end_all("rst")
            self.stop_listening()
            self._reservation.close()
            self._selector.close()
            self._wake_receiver.close()

    # What commands do

    def stop(self) -> None:
        """Leave :meth:`run`."""
        self._is_stopping = True

    def listen(self) -> None:
        """Accept connections from now on."""
        if self._listener is None:
            self._listener = _bound_socket(self.address)
            self._listener.listen(128)
            self._selector.register(self._listener, EVENT_READ)

    def stop_listening(self) -> None:
        """Refuse connections from now on."""
        if self._listener is not None:
            self._selector.unregister(self._listener)
            self._listener.close()
            self._listener = None

    def vanish(self) -> None:
        """Reset every server's side, and leave every client alone with an established socket."""
        for link in self.open:
            if link.server is not None:
                self._close_socket(link.server, "rst")
                link.server, link.flows, link.is_connecting = None, (), False

    def end_all(self, ending: Ending) -> None:
        """Close both sides of every link."""
        for link in tuple(self.open):
            self._end(link, client=ending, server=ending)

    # The loop

    def _until_due_s(self) -> float | None:
        if self.faults.is_frozen:
            return None
        flows = [flow for link in self.open for flow in link.flows if flow.held and not flow.is_blocked]
        due = [flow.held[0].due_s for flow in flows]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _accept_waiting(self) -> None:
        while self._listener is not None:
            try:
                client, _ = self._listener.accept()
            except ConnectionAbortedError:
                continue
            except BlockingIOError:
                return
            self._open(client)

    def _open(self, client: socket.socket) -> None:
        self.counters.connects += 1
        link = Link(client=_tuned(client))
        self.open.add(link)
        if self.faults.is_black_hole:
            return
        server = link.server = _tuned(socket.socket())
        link.is_connecting = True
        link.flows = (
            Flow(source=client, sink=server, is_from_client=True),
            Flow(source=server, sink=client, is_from_client=False),
        )
        if server.connect_ex(self._target) not in (0, errno.EINPROGRESS):
            self._end(link)

    def _on_ready(self, link: Link, sock: object, mask: int) -> None:
        if link.server is None:
            self._swallow(link)
        elif link.is_connecting:
            link.is_connecting = False
            if link.server.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self._end(link)
        else:
            for flow in link.flows:
                if sock is flow.source and mask & EVENT_READ:
                    self._read(link, flow)
                if sock is flow.sink and mask & EVENT_WRITE:
                    flow.is_blocked = False

    def _swallow(self, link: Link) -> None:
        with contextlib.suppress(BlockingIOError):
            try:
                data = link.client.recv(_READ_BYTES)
            except ConnectionError:
                data = b""
            self.counters.bytes_from_client += len(data)
            if not data:
                self._end(link)

    def _read(self, link: Link, flow: Flow) -> None:
        chunk = Chunk(data=b"", due_s=time.monotonic() + self.faults.delay_s)
        try:
            chunk.data = flow.source.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            chunk.then = self._end
        else:
            if not chunk.data:
                chunk.then = partial(self._end_flow, flow)
        flow.has_ended = chunk.then is not None
        flow.held.append(chunk)
        flow.held_bytes += len(chunk.data)
        self._count(link, flow, len(chunk.data))

    def _count(self, link: Link, flow: Flow, size_bytes: int) -> None:
        if flow.is_from_client:
            self.counters.bytes_from_client += size_bytes
            link.is_answer_awaited |= size_bytes > 0
        else:
            self.counters.bytes_from_server += size_bytes
            self.counters.round_trips += link.is_answer_awaited and size_bytes > 0
            link.is_answer_awaited &= size_bytes == 0

    def _deliver_due(self) -> None:
        if not self.faults.is_frozen:
            for link in tuple(self.open):
                for flow in link.flows:
                    self._deliver(link, flow)

    def _deliver(self, link: Link, flow: Flow) -> None:
        while flow.is_due(time.monotonic()):
            chunk = flow.held[0]
            self._judge(chunk, flow)
            if chunk.data and not self._send(chunk, flow):
                return
            flow.held.popleft()
            if chunk.then is not None:
                chunk.then(link)

    def _judge(self, chunk: Chunk, flow: Flow) -> None:
        if self.faults.cut is None or chunk.is_judged or not chunk.data:
            return
        chunk.is_judged = True
        allowed_bytes = self.faults.cut.allowed_bytes(flow, chunk.data)
        if allowed_bytes is not None:
            chunk.data = chunk.data[:allowed_bytes]
            # FIN to the server: a reset could overtake, on some systems, what was forwarded.
            chunk.then = partial(self._end, client=self.faults.cut.ending, server="fin")
            self.faults.cut = None

    def _send(self, chunk: Chunk, flow: Flow) -> bool:
        """Send what the sink takes; True when that was all of the chunk."""
        try:
            sent_bytes = flow.sink.send(chunk.data)
        except BlockingIOError:
            flow.is_blocked = True
            return False
        except OSError:
            # Whatever the sink said before it went is still to be read, from the other flow.
            flow.has_ended, chunk.then = True, partial(self._end_flow, flow)
            return True
        flow.held_bytes -= sent_bytes
        chunk.data = chunk.data[sent_bytes:]
        return not chunk.data

    def _end_flow(self, flow: Flow, link: Link) -> None:
        flow.held.clear()
        flow.is_done = True
        with contextlib.suppress(OSError):
            flow.sink.shutdown(socket.SHUT_WR)
        if all(each.is_done for each in link.flows):
            self._end(link, client="fin", server="fin")

    def _end(self, link: Link, *, client: Ending = "rst", server: Ending = "rst") -> None:
        self.open.discard(link)
        for flow in link.flows:
            flow.held.clear()
        self._close_socket(link.client, client)
        if link.server is not None:
            self._close_socket(link.server, server)

    def _close_socket(self, sock: socket.socket, ending: Ending) -> None:
        self._set_events(sock, 0)
        if ending == "rst":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
        else:
            _drain(sock)
        sock.close()

    # What to wait for

    def _watch(self, link: Link) -> None:
        wanted = {link.client: 0} if link.server is None else {link.client: 0, link.server: 0}
        if link.server is None:
            wanted[link.client] = EVENT_READ
        elif link.is_connecting:
            wanted[link.server] = EVENT_WRITE
        elif not self.faults.is_frozen:
            for flow in link.flows:
                if not flow.has_ended and flow.held_bytes < _HELD_LIMIT_BYTES:
                    wanted[flow.source] |= EVENT_READ
                if flow.is_blocked:
                    wanted[flow.sink] |= EVENT_WRITE
        for sock, events in wanted.items():
            self._set_events(sock, events, link)

    def _set_events(self, sock: socket.socket, events: int, link: Link | None = None) -> None:
        key = self._selector.get_map().get(sock)
        if key is None and events:
            self._selector.register(sock, events, link)
        elif key is not None and not events:
            self._selector.unregister(sock)
        elif key is not None and key.events != events:
            self._selector.modify(sock, events, link)


def _bound_socket(address: tuple[str, int]) -> socket.socket:
    sock = socket.socket()
    sock.settimeout(0)
    # Both, as Linux shares an address by the first and macOS by the second.
    for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
        sock.setsockopt(socket.SOL_SOCKET, option, 1)
    sock.bind(address)
    return sock


def _tuned(sock: socket.socket) -> socket.socket:
    sock.settimeout(0)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def _drain(sock: socket.socket) -> None:
    """Read what has arrived: closing a socket with unread data would send RST in place of FIN."""
    with contextlib.suppress(OSError):
        for _ in range(_DRAIN_READS):
            if not sock.recv(_READ_BYTES):
                return
