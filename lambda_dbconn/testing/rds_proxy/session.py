"""A client's session, as far as it is the same for both protocols."""

from __future__ import annotations

import asyncio
import traceback
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, TypeVar

from lambda_dbconn.testing.rds_proxy.ledger import SessionRecord
from lambda_dbconn.testing.rds_proxy.stream import StreamEndedError
from lambda_dbconn.testing.rds_proxy.texts import RefusedError

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable

    from lambda_dbconn.testing.rds_proxy.core import Core
    from lambda_dbconn.testing.rds_proxy.pool import DatabaseConnection
    from lambda_dbconn.testing.rds_proxy.stream import Stream
    from lambda_dbconn.testing.rds_proxy.texts import Refusal

_T = TypeVar("_T")

_GREETING_TIMEOUT_S = 60.0  # PostgreSQL's own

_ENDED = "The TCP channel was closed by either the client or the proxy."
_SAID_GOODBYE = "The client requested that the connection close."
_LEFT_IN_THE_MIDDLE = (
    "The database connection closed. Reason: The client connection that borrowed this database connection from the "
    "connection pool was closed in the middle of a request."
)
_PINNED = (
    "The client session was pinned to the database connection [dbConnection={number}] for the remainder of the "
    "session. The proxy can't reuse this connection until the session ends. Reason: {reason}"
)


class Session(ABC):
    """From a client's first byte to its last.

    Attributes:
        record: What others may see of it.
        connection: The database connection that it has, if any.
    """

    def __init__(self, core: Core, sock: socket.socket) -> None:
        self.core = core
        self._stream: Stream | None = None
        self.connection: Any = None
        self.record = SessionRecord(number=core.ledger.new_number(), user="", database="")
        self._sock = sock
        self._last_connection: DatabaseConnection | None = None
        self._is_waiting = False
        self._timers: list[asyncio.TimerHandle] = []
        self._active_s = 0.0

    @property
    def stream(self) -> Stream:
        """The client's bytes, once TLS has been agreed upon.

        Raises:
            StreamEndedError: It has not.
        """
        if self._stream is None:
            raise StreamEndedError
        return self._stream

    async def run(self) -> None:
        """Serve the client until one side hangs up."""
        is_counted = False
        reason = _ENDED
        try:
            async with asyncio.timeout(_GREETING_TIMEOUT_S):
                is_welcome = await self._greet()
            if is_welcome:
                self.core.ledger.client_came()
                is_counted = True
                await self._enter()
                await self._serve()
                reason = _SAID_GOODBYE
        except (StreamEndedError, OSError):
            pass  # the client left, TLS failed, or the database connection broke and the client has been told
        except RefusedError as error:
            self._refuse(error.refusal)
        except Exception:  # noqa: BLE001 - one client's nonsense, or a mistake here, is to end one session
            self._log("ERROR", traceback.format_exc())
        finally:
            if is_counted:
                self.core.ledger.client_left()
            self.record.is_open = False
            self._log("INFO", f"The client connection closed. Reason: {reason}")
            self._hang_up()
            if self._stream is not None:
                await self._stream.wait_closed()

    def abort(self) -> None:
        """End the session now, whatever it is doing."""
        if self._stream is not None:
            self._stream.abort()

    @property
    @abstractmethod
    def is_busy(self) -> bool:
        """Whether the client waits for an answer."""

    @abstractmethod
    async def _greet(self) -> bool:
        """Agree upon TLS and learn who is there; False if nobody wants to log in."""

    @abstractmethod
    async def _log_in(self) -> None:
        """Check who is there, and let it in.

        Raises:
            RefusedError: It must stay out.
        """

    @abstractmethod
    async def _serve(self) -> None:
        """Hand requests and answers on until the client says goodbye."""

    @abstractmethod
    def _fits(self, connection: Any) -> bool:
        """Say whether a database connection is in the state that this session expects."""

    @abstractmethod
    async def _connect(self) -> Any:
        """Open a database connection that fits."""

    @abstractmethod
    def _tell(self, refusal: Refusal) -> None:
        """Tell the client that this is the end."""

    # What both protocols need.

    async def _enter(self) -> None:
        try:
            self.core.admit(self.record.user)
            await self._log_in()
        except RefusedError as error:
            self.core.ledger.refused[error.refusal.text] += 1
            raise
        self.core.ledger.logins += 1
        self.core.ledger.sessions.append(self.record)
        loop, options = asyncio.get_running_loop(), self.core.options
        self._active_s = loop.time()
        self._timers = [
            loop.call_later(options.max_client_life_s, self._cut_off),
            loop.call_later(options.idle_client_timeout_s, self._check_idle),
        ]

    async def _begin_request(self) -> None:
        """Take note that the client wants something, and be as slow as was asked for."""
        self._active_s = asyncio.get_running_loop().time()
        if self.core.delay_s:
            await asyncio.sleep(self.core.delay_s)

    async def _hear(self, reading: Awaitable[_T]) -> _T:
        """Wait for what a client that is logging in says, for as long as it may take to greet.

        Raises:
            TimeoutError: It says nothing.
        """
        async with asyncio.timeout(_GREETING_TIMEOUT_S):
            return await reading

    def _end_request(self) -> None:
        self._active_s = asyncio.get_running_loop().time()

    def _pin(self, reason: str) -> None:
        if self.record.pin_reason is None:
            self.record.pin_reason = reason
            self.core.ledger.pins[reason] += 1
            self._log("WARN", _PINNED.format(number=self.connection.number, reason=reason))

    async def _borrow(self) -> None:
        """Get a database connection, which `connection` then is.

        Raises:
            RefusedError: There is none.
            StreamEndedError: Nobody wants it any more.
        """
        self._is_waiting = True
        try:
            self.connection = await self.core.pool.borrow(self._fits, self._connect, self._last_connection)
        finally:
            self._is_waiting = False
        if self.stream.is_ended:
            self._give_back()  # rather than run a statement whose client has given up
            raise StreamEndedError

    def _give_back(self) -> None:
        self._last_connection = self.connection
        self.core.pool.give_back(self.connection)
        self.connection = None

    def _log(self, level: str, text: str) -> None:
        self.core.ledger.write(level, self.record.number, text)

    def _refuse(self, refusal: Refusal) -> None:
        if self._stream is not None:
            self._tell(refusal)

    def _hang_up(self) -> None:
        for timer in self._timers:
            timer.cancel()
        if self.connection is not None:
            if self.is_busy:
                self._log("WARN", _LEFT_IN_THE_MIDDLE)
            # Nobody else may have it with what this session has left in it.
            self.core.pool.discard(self.connection)
        if self._stream is not None:
            self._stream.close()
        else:
            self._sock.close()

    def _cut_off(self) -> None:
        if self._stream is not None:
            self._stream.close()

    def _check_idle(self) -> None:
        loop, timeout_s = asyncio.get_running_loop(), self.core.options.idle_client_timeout_s
        idle_s = 0.0 if self.is_busy or self._is_waiting else loop.time() - self._active_s
        if idle_s >= timeout_s:
            self._cut_off()
        else:
            self._timers[-1] = loop.call_later(timeout_s - idle_s, self._check_idle)
