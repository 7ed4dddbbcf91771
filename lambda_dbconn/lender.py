"""`Lender`: keeps the slots; checks a connection before each loan and cleans it after.

It carries out what `liveness` and `lease` decide. There is no lock on the way of a loan: a slot belongs to whoever
popped it from the stack of idle slots, and a pop is atomic.
"""

from __future__ import annotations

from _thread import get_ident

from lambda_dbconn._typing import TYPE_CHECKING, Generic, TypeVar
from lambda_dbconn.clock import jitter
from lambda_dbconn.deadline import Course, Cutoff, Deadline
from lambda_dbconn.drivers.driver import Failure, SessionState
from lambda_dbconn.errors import CommitUnknownError, ConnectError, ConnectionInUseError, TransactionLeftOpenError
from lambda_dbconn.events import (
    ConnectionClosed,
    ConnectionOpened,
    ConnectionReplaced,
    ConnectionReused,
    PingFailed,
    TransactionRolledBack,
)
from lambda_dbconn.lease import Slot, discard_reason
from lambda_dbconn.lifecycle import watch
from lambda_dbconn.liveness import PING_LIMIT_S, Limits, has_hung_up, judge
from lambda_dbconn.proxy_messages import BORROW_TIMEOUT_REMEDY

if TYPE_CHECKING:
    from lambda_dbconn.clock import Clock
    from lambda_dbconn.connector import Connector
    from lambda_dbconn.deadline import InvocationContext
    from lambda_dbconn.drivers.driver import Driver
    from lambda_dbconn.pin_guard import PinGuard
    from lambda_dbconn.settings import Settings
    from lambda_dbconn.stats import Recorder, Stats

C = TypeVar("C")

_CLEAN = SessionState.CLEAN
_OTHER = Failure.OTHER
_UNLIMITED_S = float("inf")
_FALLBACK_LIFETIME_S = 300.0  # of a reader's connection to the writer: then the reader is tried again
_NOTES = {
    Failure.BUSY: BORROW_TIMEOUT_REMEDY,
    Failure.READ_ONLY: "This endpoint is for reading: write through the manager itself, not through its `reader`.",
}
_CLEANING_LIMIT_S = 5.0  # for a rollback and the like at return; a session that takes longer is discarded
_SHORTEST_CLEANING_S = 0.05  # of the reserve, when nothing else is left


class Lender(Generic[C]):
    """Lends at most `max_connections` connections, one to a thread. Threads may share it; so may forks.

    Args:
        settings: Limits and names.
        driver: What the connections are.
        connector: Opens them.
        recorder: Is told the events.
        guard: Is shown the statements; None if nobody looks at them.
        clock: For ages.

    Attributes:
        fallback: Opens connections while `connector` cannot, for a failure that a later try may mend; or None.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        driver: Driver[C],
        connector: Connector[C],
        recorder: Recorder,
        guard: PinGuard | None,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._where = settings.address
        self._using = f"using the connection to {self._where}"
        self._driver = driver
        self._connector = connector
        self.fallback: Connector[C] | None = None
        self._recorder = recorder
        self._tell = recorder.tell
        self._tells_reuse = recorder.wants(ConnectionReused)
        self._clock = clock
        self._monotonic = clock.monotonic
        self._wall = clock.wall
        self._guard = guard
        self._course = Course(where=settings.address, monotonic=clock.monotonic, interrupt=connector.interrupt)
        self._make_slots()
        watch(self)

    def _make_slots(self) -> None:
        self._slots: tuple[Slot[C], ...] = tuple(Slot() for _ in range(self._settings.max_connections))
        self._idle = list(self._slots)
        self._lent: dict[int, Slot[C]] = {}  # by thread

    # --- the loan

    def acquire(self, context: InvocationContext | float | Deadline | None) -> Slot[C]:
        """Return a slot whose connection is good; this thread's until `release`.

        On the happy path the cost is one `poll()`; after `ping_idle_s`, or when the server spoke, a round trip.

        Raises:
            ConnectionInUseError: This thread has one already, or all are lent.
            ConnectError, CredentialsError, DeadlineExceededError: A new one was needed and could not be had.
        """
        thread = get_ident()
        if thread in self._lent:
            raise ConnectionInUseError(f"this thread already holds a connection to {self._where}")
        try:
            slot = self._idle.pop()
        except IndexError:
            raise ConnectionInUseError(
                f"all {len(self._slots)} connections to {self._where} that max_connections allows are lent"
            ) from None
        slot.thread = thread
        self._lent[thread] = slot
        try:
            if self._monotonic() < slot.trusted_monotonic and self._wall() < slot.trusted_wall and not slot.poll(0):
                if context is not None:
                    self._limit(slot, self.deadline(context).cap_s(_UNLIMITED_S, doing=self._using))
                if self._tells_reuse:
                    self._reused(slot)
            else:
                deadline = self.deadline(context)
                if not self._is_good(slot, deadline):
                    self._fill(slot, deadline)
                self._limit(slot, deadline.remaining_s())
        except BaseException:
            self._take_back(slot)
            raise
        slot.loans += 1
        return slot

    def _limit(self, slot: Slot[C], left_s: float) -> None:
        """Let what the caller does with the connection end when so much time has passed."""
        if left_s < _UNLIMITED_S:
            slot.cutoff = Cutoff(left_s, self._course)
            self._driver.cut_off(slot.connection, slot.cutoff)

    def _is_good(self, slot: Slot[C], deadline: Deadline) -> bool:
        """Judge a connection that is not beyond doubt; discard it when it is not good."""
        if slot.is_empty:
            return False
        idle_s = slot.idle_s(self._clock)
        verdict = judge(slot.limits, age_s=slot.age_s(self._clock), idle_s=idle_s, events=slot.events())
        reason = verdict.reason
        if verdict.is_doubtful:
            limit_s = deadline.cap_s(PING_LIMIT_S, doing=f"checking the connection to {self._where}")
            if verdict.has_spoken and not self._driver.drain(slot.connection):
                reason = "hang_up"
            else:
                reason = self._ping(slot.connection, idle_s, limit_s)
        if reason is not None:
            self.discard(slot, reason)
            return False
        if self._tells_reuse:
            self._reused(slot)
        return True

    def _ping(self, connection: C, idle_s: float, limit_s: float) -> str | None:
        try:
            self._driver.ping(connection, timeout_s=limit_s)
        except Exception as error:  # noqa: BLE001 - however a ping fails, the connection is not to be lent
            self._tell(PingFailed(endpoint=self._where, idle_s=idle_s, error=f"{type(error).__name__}: {error}"))
            return "ping_failed"
        return None

    def deadline(self, context: InvocationContext | float | Deadline | None) -> Deadline:
        """Return the deadline that a context gives.

        Raises:
            ConfigurationError: It is not a context.
        """
        if isinstance(context, Deadline):
            return context
        return Deadline(context, reserve_s=self._settings.reserve_s, clock=self._clock)

    def replace(self, slot: Slot[C], deadline: Deadline) -> None:
        """Give a lent slot another connection, because the one that it has is lost.

        Raises:
            ConnectError, CredentialsError, DeadlineExceededError: It cannot be had.
        """
        self.discard(slot, "lost")
        self._fill(slot, deadline)
        self._limit(slot, deadline.remaining_s())
        slot.loans += 1

    def _fill(self, slot: Slot[C], deadline: Deadline) -> None:
        started = self._monotonic()
        where, limits = self._where, Limits.of(self._settings)
        try:
            connection, attempts = self._connector.open(deadline if self.fallback is None else self._half(deadline))
        except ConnectError as error:
            if self.fallback is None or not error.retryable:
                raise
            connection, attempts = self.fallback.open(deadline)
            where = self.fallback.address
            limits = limits.replace(max_lifetime_s=min(limits.max_lifetime_s, jitter(_FALLBACK_LIFETIME_S)))
        slot.fill(connection, self._driver.fileno(connection), limits, self._clock)
        if self._guard is not None:
            self._driver.watch(connection, self._guard.watcher(slot))
        reason = "first"
        if slot.vacated is not None:
            reason = slot.vacated.reason
            self._tell(slot.vacated)
            slot.vacated = None
        self._tell(
            ConnectionOpened(endpoint=where, reason=reason, attempts=attempts, duration_s=self._monotonic() - started)
        )

    def _half(self, deadline: Deadline) -> Deadline:
        """Leave half of the time to the fallback: a proxy without readers may be silent rather than refuse."""
        return Deadline(deadline.remaining_s() / 2, reserve_s=0.0, clock=self._clock)

    def release(self, slot: Slot[C], error: BaseException | None, *, is_read_only: bool = False) -> Failure:
        """Take a connection back, clean; return what `error`, which ended the loan, meant.

        Args:
            slot: What `acquire` returned.
            error: The exception that is being raised out of the loan, or None.
            is_read_only: A write was bound to be refused: that says nothing about the server.

        Raises:
            TransactionLeftOpenError: It came back inside a transaction, and no error is being raised.
        """
        if not self._is_ours(slot):
            return _OTHER
        if slot.is_empty:  # lost at BEGIN, and no other could be had
            self._take_back(slot)
            return _OTHER
        limit_s = _CLEANING_LIMIT_S if slot.cutoff is None else self._lift_limit(slot, slot.cutoff)
        failure = _OTHER
        if error is not None:  # before the state is asked for, which puts attributes right that an error may be due to
            failure, cause = self._found(slot, error)
            if failure is Failure.BUSY or (failure is Failure.READ_ONLY and self._settings.is_read_only):
                _add_note(cause, _NOTES[failure])
            if failure is Failure.READ_ONLY and (is_read_only or self._settings.is_read_only):
                failure = _OTHER
        state = self._state(slot, limit_s)
        if state is _CLEAN and error is None and slot.doom is None:
            slot.returned(self._monotonic(), self._wall())
            del self._lent[slot.thread]
            self._idle.append(slot)
            return _OTHER
        if slot.doom == "deadline":
            failure = _OTHER  # whoever is short of time is not to try again
        try:
            self._settle(slot, state, failure, limit_s, is_left_open=error is None)
        finally:
            self._take_back(slot)
        return _OTHER if isinstance(error, CommitUnknownError) else failure

    def _lift_limit(self, slot: Slot[C], cutoff: Cutoff) -> float:
        """Take the caller's limit off a connection that has come back; return what is left of it for cleaning."""
        if cutoff.has_cut and slot.doom != "closed":
            slot.doom = "deadline"  # that it has pinned, too, matters no more
        self._driver.cut_off(slot.connection, None)
        return max(_SHORTEST_CLEANING_S, min(_CLEANING_LIMIT_S, cutoff.left_s()))

    def _settle(
        self, slot: Slot[C], state: SessionState, failure: Failure, limit_s: float, *, is_left_open: bool
    ) -> None:
        """Clean or discard a connection that may not be as it was lent."""
        reason = discard_reason(state, failure, slot.doom)
        if reason is None and state is SessionState.IN_TRANSACTION and not self._roll_back(slot, limit_s):
            reason = "unclean"
        if reason is None:
            slot.returned(self._monotonic(), self._wall())
        else:
            self.discard(slot, reason)
        if state is SessionState.IN_TRANSACTION:
            self._tell(TransactionRolledBack(endpoint=self._where, is_left_open=is_left_open))
            if is_left_open:
                raise TransactionLeftOpenError(f"a transaction on {self._where} was left open; it was rolled back")

    def _is_ours(self, slot: Slot[C]) -> bool:
        """Say whether this process lent it: in a fork's child it is the parent's, and not to be touched."""
        return self._lent.get(slot.thread) is slot

    def _roll_back(self, slot: Slot[C], limit_s: float) -> bool:
        try:
            self._driver.rollback(slot.connection, timeout_s=limit_s)
        except Exception:  # noqa: BLE001 - a session that cannot be rolled back is discarded, whatever the cause
            return False
        return self._state(slot, limit_s) is SessionState.CLEAN

    def _state(self, slot: Slot[C], limit_s: float) -> SessionState:
        try:
            return self._driver.state(slot.connection, timeout_s=limit_s)
        except Exception:  # noqa: BLE001 - a session that cannot say its state is discarded, whatever the cause
            return SessionState.UNUSABLE

    def _take_back(self, slot: Slot[C]) -> None:
        """Put the slot back among the idle ones, unless a fork has forgotten it."""
        if self._is_ours(slot):
            if slot.doom is not None:  # and still here, because it was not lent after all
                self.discard(slot, slot.doom)
                slot.doom = None
            del self._lent[slot.thread]
            # An empty one goes below those that hold a good connection, so that it is filled only when they are lent.
            self._idle.insert(0 if slot.is_empty else len(self._idle), slot)

    # --- while it is lent

    def commit(self, slot: Slot[C]) -> None:
        """Commit the transaction of a lent connection: one round trip.

        Raises:
            CommitUnknownError: The connection was lost while COMMIT was on its way.
            Exception: The driver's own: nothing was committed.
        """
        if not self._is_ours(slot):
            return
        was_over = has_hung_up(slot.events()) or not self._driver.is_open(slot.connection)
        try:
            self._driver.commit(slot.connection)
        except Exception as error:
            if not was_over and self.failure(slot, error) is Failure.LOST:
                raise CommitUnknownError(
                    f"the connection to {self._where} was lost while COMMIT was on its way"
                ) from error
            raise

    def failure(self, slot: Slot[C], error: BaseException) -> Failure:
        """Say what an error means that was raised while the slot was lent, or any error that it stems from."""
        return self._found(slot, error)[0]

    def _found(self, slot: Slot[C], error: BaseException) -> tuple[Failure, BaseException]:
        """Return what an error means, and the one in its chain that says so."""
        cause: BaseException | None = error
        for _ in range(10):  # chains are short; a circular one must not hold us
            if cause is None:
                break
            found = self._driver.failure(slot.connection, cause)
            if found is not Failure.OTHER:
                return found, cause
            cause = cause.__cause__ or cause.__context__
        return Failure.OTHER, error

    def discard(self, slot: Slot[C], reason: str) -> None:
        """Close the slot's connection without waiting, and remember why."""
        if slot.is_empty:
            return
        connection = slot.connection
        age_s = slot.age_s(self._clock)
        idle_s = slot.idle_s(self._clock)
        uses = slot.uses
        slot.empty()
        self._driver.close(connection)
        self._tell(ConnectionClosed(endpoint=self._where, reason=reason, age_s=age_s, uses=uses))
        if reason != "closed":
            slot.vacated = ConnectionReplaced(endpoint=self._where, reason=reason, age_s=age_s, idle_s=idle_s)

    # --- the whole

    def close(self) -> None:
        """Close what is idle now, and what is lent when it comes back. The next loan opens anew."""
        for slot in list(self._lent.values()):
            slot.doom = "closed"
        idle = []
        while self._idle:
            slot = self._idle.pop()
            self.discard(slot, "closed")
            idle.append(slot)
        self._idle.extend(idle)

    def part(self) -> bool:
        """Close one idle connection and say whether there was one: in a signal handler, so with no lock and no event.

        Whatever the main thread has just popped is its own, so only what is idle can be met here.
        """
        try:
            slot = self._idle.pop()
        except IndexError:
            return False
        connection, was_empty = slot.connection, slot.is_empty
        slot.empty()
        self._idle.insert(0, slot)
        if not was_empty:
            self._driver.close(connection)
        return not was_empty

    def forget(self) -> None:
        """Give up what a restored snapshot has kept: connections, which are dead, and what the provider knows."""
        self.close()
        for slot in self._slots:
            slot.vacated = None
        self._connector.forget()

    def abandon(self) -> list[C]:
        """Forget all connections without a word to their servers, and return them: in a child, after a fork."""
        connections = [slot.connection for slot in self._slots if not slot.is_empty]
        self._make_slots()
        self._recorder.renew()
        return connections

    def stats(self) -> Stats:
        """Return a snapshot of the counters."""
        return self._recorder.stats(
            loans=sum(slot.loans for slot in self._slots),
            open_now=sum(not slot.is_empty for slot in self._slots),
            lent_now=len(self._lent),
        )

    def _reused(self, slot: Slot[C]) -> None:
        self._tell(ConnectionReused(endpoint=self._where, idle_s=slot.idle_s(self._clock)))


def _add_note(error: BaseException, note: str) -> None:
    """Say once, beside the driver's words, what to do; the error stays what it is."""
    if note not in getattr(error, "__notes__", ()):
        error.add_note(note)
