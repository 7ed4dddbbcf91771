"""Sockets for PyMySQL, all of whose waits can be given one common end.

A socket's own time limit begins anew with every call, so a server that trickles would hold the caller for ever. The
sockets here never block, and wait in one place, which knows when all must be over. That is one system call for each
statement more than a socket takes that waits for ever. Python's own limit would be two more, and with TLS three: it
polls before it writes and before it reads, and a TLS socket tries to read in vain before that.
"""

from __future__ import annotations

import select
import socket
import ssl

from lambda_dbconn._values import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from lambda_dbconn.deadline import Limit

_DAY_S = 86_400.0


class _Limited:
    """Stands before a socket's own class: no call of PyMySQL's waits any longer than until the limit.

    Attributes:
        limit: When all calls must end; looked at anew by each.
    """

    __slots__ = ()
    limit: Limit
    _input: select.poll

    def keep(self: Any, limit: Limit) -> None:
        """Wait by oneself from now on, until the limit at most."""
        self.limit = limit
        self._input = _poll(self, select.POLLIN)
        self.settimeout(0.0)

    def settimeout(self, _value: float | None) -> None:
        """Never block. PyMySQL sets its own time limit, and means that there is none."""
        super().settimeout(0.0)  # type: ignore[misc] # the socket's

    def _refuse_if_over(self) -> None:
        """Raise what a wait would, for what may be done without one."""
        if self.limit.ends_at <= self.limit.monotonic():
            raise TimeoutError("timed out")

    def _wait(self, poll: select.poll) -> None:
        """Wait for what is polled for."""
        limit = self.limit
        while True:
            left_s = limit.ends_at - limit.monotonic()
            if left_s <= 0.0:
                raise TimeoutError("timed out")
            if poll.poll(min(left_s, _DAY_S) * 1000.0):
                return

    def _wait_to_send(self) -> None:
        self._wait(_poll(self, select.POLLOUT))


class Socket(_Limited, socket.socket):
    """A plain socket with a limit."""

    def recv_into(self, *arguments: Any) -> int:
        """Receive."""
        while True:
            self._wait(self._input)
            try:
                return super().recv_into(*arguments)
            except BlockingIOError:  # the kernel has taken it back: a checksum was wrong
                continue

    def sendall(self, data: Any, *flags: Any) -> None:
        """Send all."""
        self._refuse_if_over()
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[self.send(rest, *flags) :]
            except BlockingIOError:
                self._wait_to_send()


class TlsSocket(_Limited, ssl.SSLSocket):
    """A TLS socket with a limit. What is called here are the two methods that `SSLSocket`'s own come down to."""

    _may_hold_more = False  # of what has been received, and no poll tells of

    def recv_into(self, buffer: Any, *arguments: Any) -> int:
        """Receive."""
        wanted = arguments[0] if arguments else len(buffer)
        if self._may_hold_more:
            self._refuse_if_over()  # or an answer that never stops coming would never be waited for
        else:
            self._wait(self._input)
        while True:
            try:
                count: int = self.read(wanted, buffer)  # type: ignore[assignment] # with a buffer it counts
            except ssl.SSLWantReadError:
                self._wait(self._input)
            except ssl.SSLWantWriteError:
                self._wait_to_send()
            else:
                self._may_hold_more = count == wanted
                return count

    def sendall(self, data: Any, *_flags: Any) -> None:
        """Send all, as one message."""
        self._refuse_if_over()
        self._do(self.write, data)

    def shake_hands(self) -> None:
        """Agree with the server."""
        self._do(self.do_handshake)

    def _do(self, call: Callable[..., object], *arguments: Any) -> None:
        """Call until it has not to wait any more."""
        while True:
            try:
                call(*arguments)
            except ssl.SSLWantReadError:
                self._wait(self._input)
            except ssl.SSLWantWriteError:
                self._wait_to_send()
            else:
                return


def _poll(sock: Any, events: int) -> select.poll:
    poll = select.poll()
    poll.register(sock, events)
    return poll


class TlsContext(ssl.SSLContext):
    """Makes a socket with a limit a TLS socket with the same, which the handshake keeps to already."""

    sslsocket_class = TlsSocket

    def wrap_socket(self, sock: Any, **options: Any) -> Any:  # type: ignore[override] # as PyMySQL calls it
        """Begin TLS."""
        wrapped: Any = super().wrap_socket(sock, **{**options, "do_handshake_on_connect": False})
        try:
            wrapped.keep(sock.limit)
            wrapped.shake_hands()
        except BaseException:
            wrapped.close()
            raise
        return wrapped
