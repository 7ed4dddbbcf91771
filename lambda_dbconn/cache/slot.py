"""`Slot`: the whole life of one cached connection: open, check, begin, commit, reset, discard.

A slot decides by `policy`, which does no I/O. Whatever may take a round trip is yielded as a call (see
`steps`), which the manager makes or awaits.
"""

from __future__ import annotations

import select
from functools import partial

from lambda_dbconn._values import TYPE_CHECKING, Generic, TypeVar
from lambda_dbconn.cache.policy import (
    GONE,
    PING_LIMIT_S,
    WATCHED,
    ConnectionLimits,
    expiry,
    has_hung_up,
    reason_to_evict,
)
from lambda_dbconn.deadline import RELEASED_S, CancelScope, Deadline, jitter
from lambda_dbconn.drivers import ErrorKind, SessionState
from lambda_dbconn.errors import (
    BORROW_TIMEOUT_REMEDY,
    CommitUnknownError,
    ConnectError,
    DeadlineExceededError,
    TransactionLeftOpenError,
)
from lambda_dbconn.events import (
    ConnectionClosed,
    ConnectionOpened,
    ConnectionReplaced,
    ConnectionReused,
    PingFailed,
    ResetDelayed,
    TransactionRolledBack,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from lambda_dbconn.cache.connector import Connector
    from lambda_dbconn.cache.sansio import Operation
    from lambda_dbconn.deadline import Clock
    from lambda_dbconn.drivers.driver import Driver
    from lambda_dbconn.events import EventDispatcher
    from lambda_dbconn.proxy.guard import PinGuard
    from lambda_dbconn.settings import Settings

C = TypeVar("C")

_FALLBACK_LIFETIME_S = 300.0  # of a reader's connection to the writer: then the reader is tried again
_FOR_READING = "This endpoint is for reading: write through the manager itself, not through its `reader`."
_ANSWER_IS_LATE_S = 1.0  # after such a rest the answer to a reset should long be there


class Resources(Generic[C]):
    """What the slots of one endpoint share.

    Args:
        settings: Limits and names.
        driver: Handles the connections.
        connector: Opens them.
        recorder: Receives the events.
        guard: Sees each statement, behind RDS Proxy or where `on_pin` asks for it; else None.
        clock: For ages and limits.
        sleep: Pauses for seconds; a coroutine function for asyncio.

    Attributes:
        resets: Whether a reset is sent at release: on direct endpoints.
        closes_pinned: Whether a pinned connection is closed at release instead: behind RDS Proxy.
        fallback: Opens connections while `connector` cannot, for a failure that a later attempt may mend; or None.
        waits_for_reset: Whether the answer to a reset is awaited at release.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        driver: Driver[C],
        connector: Connector[C],
        recorder: EventDispatcher,
        guard: PinGuard | None,
        clock: Clock,
        sleep: Callable[[float], Any],
    ) -> None:
        self.settings = settings
        self.address = settings.address
        self.driver = driver
        self.connector = connector
        self.fallback: Connector[C] | None = None
        self.tell = recorder.emit
        self.tells_reuse = recorder.is_enabled_for(ConnectionReused)
        self.guard = guard
        self.clock = clock
        self.sleep = sleep
        self.resets = settings.reset != "never" and not settings.is_proxy
        self.closes_pinned = settings.reset != "never" and settings.is_proxy
        self.waits_for_reset = settings.reset == "wait"

    def deadline(self, context: object) -> Deadline:
        """Return the deadline that a context gives; `ConfigurationError` if it is not one."""
        if isinstance(context, Deadline):
            return context
        return Deadline(context, reserve_s=self.settings.reserve_s, clock=self.clock)  # type: ignore[arg-type]


class Slot(Generic[C]):
    """A place for one connection: empty, at rest or in use.

    Attributes:
        connection: The driver's connection; None when empty.
        scope: The connection's: when what the caller does with it must end.
        is_at_rest: Whether the connection waits for the next acquire in a state that is known. An exception anywhere
            between `prepare` and the end of `settle` leaves it False, and the connection is discarded.
        has_pinned: A statement of this use pins the session behind RDS Proxy.
        outer_error: The identity of the exception that was being handled when the block was entered: none of its own.
        owes_reset: A reset was sent, and its answer has not been read.
        evict_reason: Why the connection must be closed when it comes back: `closed`, `deadline` or `pinned`.
        replaced: How the last connection was discarded, until the next one takes its place.
        uses: How many times the slot was acquired, whichever connection was in it.
        opened: How many connections were opened in it.
    """

    __slots__ = (
        "_expires_monotonic",
        "_expires_wall",
        "_opened_monotonic",
        "_opened_wall",
        "_poll",
        "_rested_monotonic",
        "_rested_wall",
        "_shared",
        "_uses_before",
        "connection",
        "evict_reason",
        "has_pinned",
        "is_at_rest",
        "limits",
        "opened",
        "outer_error",
        "owes_reset",
        "replaced",
        "scope",
        "uses",
    )

    connection: C
    scope: CancelScope
    limits: ConnectionLimits
    evict_reason: str | None

    def __init__(self, shared: Resources[C]) -> None:
        self._shared = shared
        self.uses = self.opened = self.outer_error = 0
        self.replaced: ConnectionReplaced | None = None
        self.empty()

    # --- what is in it

    @property
    def is_empty(self) -> bool:
        """Whether there is no connection in it."""
        return self.connection is None

    def age_s(self) -> float:
        """Return seconds since the connection was opened, by the clock that saw more."""
        clock = self._shared.clock
        return max(clock.monotonic() - self._opened_monotonic, clock.wall() - self._opened_wall)

    def idle_s(self) -> float:
        """Return seconds since the connection came back, by the clock that saw more."""
        clock = self._shared.clock
        return max(clock.monotonic() - self._rested_monotonic, clock.wall() - self._rested_wall)

    def empty(self) -> None:
        """Forget the connection."""
        self.connection = None  # type: ignore[assignment] # whoever uses an empty slot knows it
        self.is_at_rest = True
        self.owes_reset = self.has_pinned = False
        self.evict_reason = None

    def _fill(self, connection: C, scope: CancelScope, limits: ConnectionLimits) -> None:
        """Take in a connection that has just been opened; until the last line the slot is empty."""
        clock = self._shared.clock
        poller = select.poll()
        poller.register(self._shared.driver.fileno(connection), WATCHED)
        self._poll = poller.poll
        self.scope = scope
        self.limits = limits
        self._uses_before = self.uses
        self._opened_monotonic = self._rested_monotonic = clock.monotonic()
        self._opened_wall = self._rested_wall = clock.wall()
        self.is_at_rest = False
        self.opened += 1
        self.connection = connection

    def _events(self) -> int:
        """Return what `poll()` says of the socket now; 0 for silence."""
        return sum(events for _, events in self._poll(0))

    # --- acquire

    def prepare(self, deadline: Deadline) -> Operation[None]:
        """Make the connection ready for the caller: reuse it, check it, or replace it.

        Raises:
            ConnectError, CredentialsError, DeadlineExceededError: A new one was needed and could not be had.
        """
        if not self.is_empty:
            reason = yield from self._check(deadline)
            if reason is not None:
                self.discard(reason)
            elif self._shared.tells_reuse:
                self._shared.tell(ConnectionReused(endpoint=self._shared.address, idle_s=self.idle_s()))
        if self.is_empty:
            yield from self._open(deadline)
        self._hand_over(deadline)

    def _check(self, deadline: Deadline) -> Operation[str | None]:  # noqa: PLR0911 - one for each reason
        """Return why the connection must be replaced, or None when it is good."""
        driver = self._shared.driver
        idle_s = self.idle_s()
        reason = self.evict_reason or expiry(self.limits, age_s=self.age_s(), idle_s=idle_s)
        if reason is not None:
            return reason
        events = self._events()
        if has_hung_up(events) or not driver.is_open(self.connection):
            return "hang_up"
        limit_s = deadline.cap_s(PING_LIMIT_S, doing=f"using the connection to {self._shared.address}")
        self.is_at_rest = False
        if self.owes_reset:
            self._note_late_answer(idle_s, has_answer=bool(events))
            if not (yield from self._finish_reset(limit_s)):
                return "reset_failed"
            events = self._events()  # something else than the answer
            if has_hung_up(events) or not driver.is_open(self.connection):
                return "hang_up"
        if events and not driver.drain(self.connection):
            return "hang_up"
        if (events or idle_s >= self.limits.ping_idle_s) and not (yield from self._ping(idle_s, limit_s)):
            return "ping_failed"
        return None

    def _ping(self, idle_s: float, limit_s: float) -> Operation[bool]:
        shared = self._shared
        try:
            yield partial(shared.driver.ping, self.connection, timeout_s=limit_s)
        except Exception as error:  # noqa: BLE001 - however a ping fails, the connection is not to be used
            shared.tell(PingFailed(endpoint=shared.address, idle_s=idle_s, error=f"{type(error).__name__}: {error}"))
            return False
        return True

    def _open(self, deadline: Deadline) -> Operation[None]:
        shared = self._shared
        started = shared.clock.monotonic()
        where, limits = shared.address, ConnectionLimits.of(shared.settings)
        try:
            until = deadline if shared.fallback is None else self._half(deadline)
            connection, attempts = yield partial(shared.connector.open, until)
        except (ConnectError, DeadlineExceededError) as error:  # of its half of the time, where there is a fallback
            if shared.fallback is None or not error.retryable:
                raise
            connection, attempts = yield partial(shared.fallback.open, deadline)
            where = shared.fallback.address
            limits = limits.replace(max_lifetime_s=min(limits.max_lifetime_s, jitter(_FALLBACK_LIFETIME_S)))
        try:
            scope = CancelScope(
                where=shared.address, monotonic=shared.clock.monotonic, interrupt=shared.connector.interrupt
            )
            shared.driver.bind_scope(connection, scope)
            if shared.guard is not None:
                shared.driver.watch(connection, shared.guard.watcher(self))
            self._fill(connection, scope, limits)
        except BaseException:  # interrupted: nobody else knows the connection
            if self.is_empty:
                shared.driver.close(connection)
            raise
        reason = "first"
        if self.replaced is not None:
            reason = self.replaced.reason
            shared.tell(self.replaced)
            self.replaced = None
        duration_s = shared.clock.monotonic() - started
        shared.tell(ConnectionOpened(endpoint=where, reason=reason, attempts=attempts, duration_s=duration_s))

    def _half(self, deadline: Deadline) -> Deadline:
        """Leave half of the time to the fallback: a proxy without readers may be silent rather than refuse."""
        return Deadline(deadline.remaining_s() / 2, reserve_s=0.0, clock=self._shared.clock)

    def _hand_over(self, deadline: Deadline) -> None:
        """Let the caller use the connection until the deadline, as it was configured."""
        self.is_at_rest = False
        self._shared.driver.restore(self.connection)
        self.scope.ends_at = self._shared.clock.monotonic() + deadline.remaining_s()
        self.has_pinned = False
        self.uses += 1

    def will_change(self, names: Iterable[str]) -> None:
        """Remember variables that the next statement changes and RDS Proxy tracks, to put them back at release."""
        self._shared.driver.remember_tracked(self.connection, names)

    # --- in use

    def begin(self, deadline: Deadline, *, read_only: bool, isolation: str | None) -> Operation[None]:
        """Send BEGIN; when that finds the connection lost, open another one: nothing else has been sent.

        Raises:
            ConnectError, CredentialsError, DeadlineExceededError: The connection is lost, and no other can be had.
            Exception: The driver's own.
        """
        begin = partial(self._shared.driver.begin, read_only=read_only, isolation=isolation)
        try:
            yield partial(begin, self.connection)
        except Exception as error:
            if self._failure(error)[0] not in GONE:
                raise
            self.discard("lost")
            yield from self._open(deadline)
            self._hand_over(deadline)
            yield partial(begin, self.connection)

    def commit(self) -> Operation[None]:
        """Commit: one round trip. Past the deadline nothing is sent.

        Raises:
            CommitUnknownError: The connection was lost while COMMIT was on its way.
            TransactionAbortedError: The transaction had failed, or had ended inside the block.
            DeadlineExceededError: COMMIT was not sent.
            Exception: The driver's own: nothing was committed.
        """
        driver = self._shared.driver
        was_over = has_hung_up(self._events()) or not driver.is_open(self.connection)
        try:
            yield partial(driver.commit, self.connection)
        except Exception as error:
            if not was_over and self._failure(error)[0] is ErrorKind.LOST:
                raise CommitUnknownError(
                    f"the connection to {self._shared.address} was lost while COMMIT was on its way"
                ) from error
            raise

    def _failure(self, error: BaseException) -> tuple[ErrorKind, BaseException]:
        """Return what an error means that was raised in a block, and which one in its chain says so."""
        cause: BaseException | None = error
        for _ in range(10):  # chains are short; a circular one must not hold us
            if cause is None or id(cause) == self.outer_error:
                break
            try:
                found = self._shared.driver.classify(self.connection, cause)
            except Exception:  # noqa: BLE001 - no file descriptor is left for an import, say: do not keep what is unknown
                found = ErrorKind.LOST
            if found is ErrorKind.REFUSED:
                self._shared.connector.refuse()  # the next connection needs other credentials
            if found is not ErrorKind.OTHER:
                return found, cause
            cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
        return ErrorKind.OTHER, error

    # --- release

    def settle(self, error: BaseException | None, *, is_read_only: bool) -> Operation[ErrorKind]:
        """Clean the connection for the next acquire, or discard it; return what the error meant.

        Raises:
            TransactionLeftOpenError: It came back inside a transaction, and no error is being raised.
        """
        if self.is_empty:  # lost at BEGIN, and no other could be had
            return ErrorKind.OTHER
        limit_s = self.scope.cleaning_s()
        late_error = None
        if error is None:
            error = late_error = yield from self._read_rest(limit_s)
        # Before the state is asked for: that puts right what the error may have come from.
        failure = ErrorKind.OTHER if error is None else self._outcome(error, is_read_only=is_read_only)
        if self.scope.has_expired and self.evict_reason != "closed":
            self.evict_reason = "deadline"  # that it has pinned, too, matters no more
        self.scope.ends_at = RELEASED_S
        state = self._state(limit_s)
        reason = reason_to_evict(state, failure, self.evict_reason)
        if reason is None and not (yield from self._clean(state, limit_s)):
            reason = "unclean"
        if reason is None:
            self._rest()
        else:
            self.discard(reason)
        if state is SessionState.IN_TRANSACTION:
            where = self._shared.address
            self._shared.tell(TransactionRolledBack(endpoint=where, is_left_open=error is None))
            if error is None:
                raise TransactionLeftOpenError(f"a transaction on {where} was left open; it was rolled back")
        if late_error is not None:
            raise late_error
        return failure

    def _read_rest(self, limit_s: float) -> Operation[Exception | None]:
        """Read results that the caller has left unread; return the server's error among them, which is the caller's."""
        try:
            yield partial(self._shared.driver.read_rest, self.connection, within_s=lambda: limit_s)
        except Exception as error:  # noqa: BLE001 - raised at the end
            return error
        return None

    def _outcome(self, error: BaseException, *, is_read_only: bool) -> ErrorKind:
        """Return what the error that ended a block means; add what helps to it as a note."""
        failure, cause = self._failure(error)
        if failure is ErrorKind.BUSY:
            _add_note(cause, BORROW_TIMEOUT_REMEDY)
        elif failure is ErrorKind.READ_ONLY:
            if self._shared.settings.is_read_only:
                _add_note(cause, _FOR_READING)
                return ErrorKind.OTHER
            if is_read_only:
                return ErrorKind.OTHER
        return failure

    def may_be_committed(self) -> bool:
        """Say whether something of the transaction that `begin` began may have been committed already."""
        return not self.is_empty and self._shared.driver.has_left_transaction(self.connection)

    def may_retry(self, error: BaseException) -> bool:
        """Say whether another attempt is possible after this error: COMMIT took no effect, and there is time left."""
        is_final = isinstance(error, (CommitUnknownError, DeadlineExceededError))
        return not (is_final or self.is_empty or self.scope.has_expired)

    def _state(self, limit_s: float) -> SessionState:
        """Return the session's state; raises nothing."""
        try:
            return self._shared.driver.state(self.connection, within_s=lambda: limit_s)
        except Exception:  # noqa: BLE001 - a session that cannot tell its state is discarded, whatever the cause
            return SessionState.UNUSABLE

    def _clean(self, state: SessionState, limit_s: float) -> Operation[bool]:
        """Roll back what is open and send a reset; return False when the session cannot be reused."""
        shared = self._shared
        try:
            if state is SessionState.IN_TRANSACTION:
                yield partial(shared.driver.rollback, self.connection, timeout_s=limit_s)
                if self._state(limit_s) is not SessionState.CLEAN:
                    return False
            if shared.closes_pinned:
                if shared.driver.has_unseen(self.connection):
                    return False
                yield partial(shared.driver.put_back_tracked, self.connection, timeout_s=limit_s)
            if not shared.resets or not shared.driver.has_sent(self.connection):
                return True
            self.owes_reset = True
            shared.driver.send_reset(self.connection, timeout_s=limit_s)
        except Exception:  # noqa: BLE001 - a session that cannot be cleaned is discarded, whatever the cause
            return False
        if shared.waits_for_reset or not shared.driver.can_defer_reset(self.connection):
            return (yield from self._finish_reset(limit_s))
        return True

    def _finish_reset(self, limit_s: float) -> Operation[bool]:
        """Read the answer to a reset; return False when the session cannot be reused."""
        try:
            yield partial(self._shared.driver.finish_reset, self.connection, timeout_s=limit_s)
        except Exception:  # noqa: BLE001 - as in `_clean`
            return False
        self.owes_reset = False
        return True

    def _note_late_answer(self, idle_s: float, *, has_answer: bool) -> None:
        """Wait for answers at release from now on, if one should be there by now and is not."""
        shared = self._shared
        if has_answer or idle_s < _ANSWER_IS_LATE_S or shared.waits_for_reset:
            return
        shared.waits_for_reset = True
        shared.tell(ResetDelayed(endpoint=shared.address, idle_s=idle_s))

    def _rest(self) -> None:
        """Note that the connection came back in a known state, now."""
        clock = self._shared.clock
        self._rested_monotonic, self._rested_wall = clock.monotonic(), clock.wall()
        self.is_at_rest = True

    # --- discard

    def discard(self, reason: str) -> None:
        """Close the connection without waiting, and remember why."""
        self._leave(reason, may_close=True)

    def take_over(self, *, may_close: bool) -> None:
        """Discard what an owner has left that cannot come back; without closing it when a live thread may still use it.

        A connection that is dropped is closed when nothing refers to it any more.
        """
        self._leave("abandoned", may_close=may_close)

    def _leave(self, reason: str, *, may_close: bool) -> None:
        if self.is_empty:
            return
        shared, connection = self._shared, self.connection
        age_s, idle_s = self.age_s(), self.idle_s()
        uses = self.uses - self._uses_before
        self.scope.ends_at = RELEASED_S
        self.empty()
        if may_close:
            shared.driver.close(connection)
        shared.tell(ConnectionClosed(endpoint=shared.address, reason=reason, age_s=age_s, uses=uses))
        if reason != "closed":
            self.replaced = ConnectionReplaced(endpoint=shared.address, reason=reason, age_s=age_s, idle_s=idle_s)


def _add_note(error: BaseException, note: str) -> None:
    """Add what helps beside the driver's words, once; the error stays what it is."""
    if note not in getattr(error, "__notes__", ()):
        error.add_note(note)
