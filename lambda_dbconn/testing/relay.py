"""A TCP relay that stands in front of a real server and breaks the path to it on request."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self, TypeVar

from lambda_dbconn.testing._relay_links import Counters, Faults, RelayLinks

if TYPE_CHECKING:
    from collections.abc import Callable

    from lambda_dbconn.testing._relay_links import Cut, Ending, Flow

_T = TypeVar("_T")

_COMMAND_TIMEOUT_S = 10.0


class FaultRelay:
    """Forwards TCP connections to a server, until it is told to misbehave.

    Listens on IPv4 loopback from construction to :meth:`close`. A fault is in force when its method returns,
    and comes after everything that the calling thread had sent through the relay before. Faults add up
    (``delay`` and ``freeze``, say); :meth:`heal` ends those that last.

    Any thread may call any method. Nothing is encrypted or decrypted: TLS passes through.

    Args:
        target_host: name or address of the real server; resolved to IPv4 once, here.
        target_port: TCP port of the real server.
        host: address to listen on: with `127.0.0.2` and the `port` of something at `127.0.0.1`, one name can have two
            addresses.
        port: TCP port to listen on; 0 for any that is free.

    Raises:
        OSError: the name cannot be resolved, or no port is free.
    """

    def __init__(self, *, target_host: str, target_port: int, host: str = "127.0.0.1", port: int = 0) -> None:
        target = (socket.gethostbyname(target_host), target_port)
        self._links = RelayLinks(address=(host, port), target=target)
        self.host, self.port = self._links.address
        self._name = f"FaultRelay({self.host}:{self.port} -> {target_host}:{target_port})"
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._links.run, name=self._name, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return self._name

    # Faults for new connections

    def refuse(self) -> None:
        """Refuse new connections (ECONNREFUSED); the port stays reserved. :meth:`accept` ends it."""
        self._call(self._links.stop_listening)

    def black_hole(self) -> None:
        """Accept new connections, and never forward or answer anything on them. :meth:`accept` ends it."""
        self._impose(is_black_hole=True)
        self._call(self._links.listen)

    def accept(self) -> None:
        """Forward new connections, on the same port as ever; those in a black hole stay there."""
        self._impose(is_black_hole=False)
        self._call(self._links.listen)

    # Faults for existing connections

    def fin(self) -> None:
        """Close both sides of every connection in good order (FIN); bytes still held are lost."""
        self._call(lambda: self._links.end_all("fin"))

    def rst(self) -> None:
        """Reset both sides of every connection (RST); bytes still held are lost."""
        self._call(lambda: self._links.end_all("rst"))

    def vanish(self) -> None:
        """Leave every client half-open: the server's side is reset, the client's stays, unanswered.

        The local kernel still acknowledges what the client sends, so neither keepalives nor
        ``TCP_USER_TIMEOUT`` notice: only a time limit on the answer does.
        """
        self._call(self._links.vanish)

    # Faults for both

    def freeze(self) -> None:
        """Hold all bytes, ends of connections included, until :meth:`thaw`; new connections are accepted."""
        self._impose(is_frozen=True)

    def thaw(self) -> None:
        """Deliver what :meth:`freeze` held, in order, and go on."""
        self._impose(is_frozen=False)

    def delay(self, delay_s: float) -> None:
        """Deliver each chunk that arrives from now on ``delay_s`` seconds late, order kept; 0 ends it.

        Applies to each direction, so a round trip is late twice. Connections do not wait for each other.
        """
        self._impose(delay_s=delay_s)

    def cut_after(
        self,
        *,
        bytes_from_server: int | None = None,
        bytes_from_client: int | None = None,
        ending: Ending = "rst",
    ) -> None:
        """Cut one connection once exactly so many further bytes of one direction have been forwarded.

        Bytes of all connections count together; the one that carries the last of them is cut. With 0, the
        cut comes before the next byte of that direction. The client's side ends by ``ending``; the server's
        always by a FIN, so that what was forwarded is read. Replaces any other cut that is armed.

        Raises:
            ValueError: not exactly one direction was given.
        """
        count = bytes_from_server if bytes_from_client is None else bytes_from_client
        if count is None or None not in (bytes_from_server, bytes_from_client):
            raise ValueError("give bytes_from_server or bytes_from_client, and not both")
        is_from_client = bytes_from_client is not None
        cut = _CutAfterBytes(ending=ending, is_from_client=is_from_client, remaining_bytes=count)
        self._impose(cut=cut)

    def cut_when(self, *, client_sends: bytes, forward: bool, ending: Ending = "rst") -> None:
        """Cut the connection on which a client sends these bytes (plaintext only, case-sensitive).

        Whether they reach the server or not, no answer to them reaches the client. Replaces any other cut
        that is armed.

        Args:
            client_sends: such as ``b"COMMIT"``; found even if it comes in pieces.
            forward: whether the chunk in which they end reaches the server before the cut.
            ending: how the client's side ends; the server's always ends by a FIN.
        """
        self._impose(cut=_CutAtText(ending=ending, text=client_sends, forward=forward))

    @property
    def is_armed(self) -> bool:
        """Whether a cut is still waiting for its moment."""
        return self._read(lambda: self._links.faults.cut is not None)

    def heal(self) -> None:
        """End every lasting fault: accept, thaw, no delay, no cut armed."""

        def heal() -> None:
            self._links.faults = Faults()
            self._links.listen()

        self._call(heal)

    # What has passed

    @property
    def connects(self) -> int:
        """Connections accepted since :meth:`reset_counters`."""
        return self._read(lambda: self._links.counters.connects)

    @property
    def round_trips(self) -> int:
        """Times that the server spoke after the client had, since :meth:`reset_counters`.

        A greeting, a notification or a goodbye without an answer does not count.
        """
        return self._read(lambda: self._links.counters.round_trips)

    @property
    def bytes_from_client(self) -> int:
        """Bytes received from clients since :meth:`reset_counters`, forwarded or not."""
        return self._read(lambda: self._links.counters.bytes_from_client)

    @property
    def bytes_from_server(self) -> int:
        """Bytes received from the server since :meth:`reset_counters`, forwarded or not."""
        return self._read(lambda: self._links.counters.bytes_from_server)

    @property
    def open_connections(self) -> int:
        """Client connections that the relay still holds; while frozen, it does not see them end."""
        return self._read(lambda: len(self._links.open))

    def reset_counters(self) -> None:
        """Set all counters to 0."""

        def reset() -> None:
            self._links.counters = Counters()

        self._call(reset)

    def wait_for_connections(self, count: int, *, timeout_s: float = 5.0) -> None:
        """Wait until exactly ``count`` client connections are open.

        Raises:
            TimeoutError: they are not, after ``timeout_s`` seconds.
        """
        give_up_s = time.monotonic() + timeout_s
        while (now_open := self.open_connections) != count:
            if time.monotonic() > give_up_s:
                raise TimeoutError(f"{self!r}: {now_open} connections open after {timeout_s} s, not {count}")
            time.sleep(0.005)

    def close(self) -> None:
        """Reset what is open and stop; afterwards the counters can still be read. Idempotent.

        Raises:
            TimeoutError: the relay's thread did not stop within 10 seconds.
        """
        if self._thread.is_alive():
            with contextlib.suppress(RuntimeError):  # another thread closed it first
                self._call(self._links.stop)
        self._thread.join(_COMMAND_TIMEOUT_S)
        if self._thread.is_alive():
            raise TimeoutError(f"{self!r}: the thread has not stopped after {_COMMAND_TIMEOUT_S} s")
        self._links.wake_sender.close()

    # From the caller's thread to the relay's

    def _call(self, command: Callable[[], _T]) -> _T:
        """Run ``command`` in the relay's thread, and wait for it."""
        future: Future[_T] = Future()

        def run() -> None:
            try:
                future.set_result(command())
            except Exception as error:  # noqa: BLE001 - raised again, in the thread that asked
                future.set_exception(error)

        with self._lock:  # a byte for each command, in the same order
            self._links.commands.append(run)
            try:
                self._links.wake_sender.send(b"\0")
            except OSError as error:
                raise RuntimeError(f"{self!r} is closed") from error
        return future.result(_COMMAND_TIMEOUT_S)

    def _impose(self, **faults: bool | float | Cut) -> None:
        def impose() -> None:
            for name, value in faults.items():
                setattr(self._links.faults, name, value)

        self._call(impose)

    def _read(self, value: Callable[[], _T]) -> _T:
        return self._call(value) if self._thread.is_alive() else value()


@dataclass(slots=True, kw_only=True)
class _CutAfterBytes:
    """Cuts when so many further bytes of one direction have gone through."""

    ending: Ending
    is_from_client: bool
    remaining_bytes: int

    def allowed_bytes(self, flow: Flow, data: bytes) -> int | None:
        """See :class:`Cut`."""
        if flow.is_from_client is not self.is_from_client:
            return None
        if self.remaining_bytes <= len(data):
            return self.remaining_bytes
        self.remaining_bytes -= len(data)
        return None


@dataclass(slots=True, kw_only=True)
class _CutAtText:
    """Cuts before or after the chunk in which a client's bytes complete a text."""

    ending: Ending
    text: bytes
    forward: bool
    tails: dict[Flow, bytes] = field(default_factory=dict)  # the text may lie across chunks

    def allowed_bytes(self, flow: Flow, data: bytes) -> int | None:
        """See :class:`Cut`."""
        if not flow.is_from_client:
            return None
        seen = self.tails.get(flow, b"") + data
        if self.text in seen:
            return len(data) if self.forward else 0
        self.tails[flow] = seen[max(0, len(seen) - len(self.text) + 1) :]
        return None
