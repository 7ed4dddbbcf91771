"""`Upkeep`: what is done with the connection in a slot: checked, opened, limited, cleaned, discarded.

It does what `liveness` and `lease` decide. Whatever may take a round trip is a step (`steps`): who lends says whether
steps are called or awaited.
"""

from __future__ import annotations

from functools import partial

from lambda_dbconn.clock import jitter
from lambda_dbconn.deadline import UNLIMITED_S, Course, Cutoff, Deadline
from lambda_dbconn.drivers import Failure, SessionState
from lambda_dbconn.errors import BORROW_TIMEOUT_REMEDY, CommitUnknownError, ConnectError
from lambda_dbconn.events import ConnectionClosed, ConnectionOpened, ConnectionReplaced, ConnectionReused, PingFailed
from lambda_dbconn.leftovers import Leftovers
from lambda_dbconn.light import TYPE_CHECKING, Generic, TypeVar
from lambda_dbconn.liveness import PING_LIMIT_S, Limits, has_hung_up, judge

if TYPE_CHECKING:
    from collections.abc import Callable

    from lambda_dbconn.clock import Clock
    from lambda_dbconn.connector import Connector
    from lambda_dbconn.deadline import InvocationContext
    from lambda_dbconn.drivers.driver import Driver
    from lambda_dbconn.lease import Slot
    from lambda_dbconn.pin_guard import PinGuard
    from lambda_dbconn.settings import Settings
    from lambda_dbconn.stats import Recorder
    from lambda_dbconn.steps import Steps

C = TypeVar("C")

_FALLBACK_LIFETIME_S = 300.0  # of a reader's connection to the writer: then the reader is tried again
_FOR_READING = "This endpoint is for reading: write through the manager itself, not through its `reader`."


class Upkeep(Generic[C]):
    """Looks after the connections of one manager, whoever holds them.

    Args:
        settings: Limits and names.
        driver: What the connections are.
        connector: Opens them.
        recorder: Is told the events.
        guard: Is shown the statements, for those that pin; None if nobody looks for them.
        clock: For ages.

    Attributes:
        fallback: Opens connections while `connector` cannot, for a failure that a later try may mend; or None.
        tells_reuse: Whether anybody wants to know that a warm connection is lent.
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
        self._driver = driver
        self._connector = connector
        self.fallback: Connector[C] | None = None
        self._tell = recorder.tell
        self._clock = clock
        self._monotonic = clock.monotonic
        self._reserve_s = settings.reserve_s
        self._guard = guard
        self._leftovers = Leftovers(settings.engine) if settings.reset == "seen" else None
        self._resets_always = settings.reset == "always"
        self._course = Course(where=settings.address, monotonic=clock.monotonic, interrupt=connector.interrupt)
        self.tells_reuse = recorder.wants(ConnectionReused)

    # --- before a loan

    def deadline(self, context: InvocationContext | float | Deadline | None) -> Deadline:
        """Return the deadline that a context gives.

        Raises:
            ConfigurationError: It is not a context.
        """
        if isinstance(context, Deadline):
            return context
        return Deadline(context, reserve_s=self._reserve_s, clock=self._clock)

    def left_s(self, context: InvocationContext | float | Deadline) -> float:
        """Return the seconds that a context leaves for what the caller does with a connection that is good.

        Raises:
            ConfigurationError: It is not a context.
            DeadlineExceededError: It leaves nothing.
        """
        return self.deadline(context).cap_s(UNLIMITED_S, doing=f"using the connection to {self._where}")

    def make_good(self, slot: Slot[C], deadline: Deadline) -> Steps[None]:
        """Judge a connection that is not beyond doubt, and open another one when it is not good or not there.

        Raises:
            ConnectError, CredentialsError, DeadlineExceededError: A new one was needed and could not be had.
        """
        if not (yield from self._is_good(slot, deadline)):
            yield from self._fill(slot, deadline)
        slot.cutoff.ends_at = self._monotonic() + deadline.remaining_s()

    def _is_good(self, slot: Slot[C], deadline: Deadline) -> Steps[bool]:
        """Judge a connection; discard it when it is not good."""
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
                reason = yield from self._ping(slot, idle_s, limit_s)
        if reason is not None:
            self.discard(slot, reason)
            return False
        if self.tells_reuse:
            self.tell_reused(slot)
        return True

    def _ping(self, slot: Slot[C], idle_s: float, limit_s: float) -> Steps[str | None]:
        try:
            yield partial(self._driver.ping, slot.connection, timeout_s=limit_s)
        except Exception as error:  # noqa: BLE001 - however a ping fails, the connection is not to be lent
            self._tell(PingFailed(endpoint=self._where, idle_s=idle_s, error=f"{type(error).__name__}: {error}"))
            return "ping_failed"
        except BaseException:  # cancelled or interrupted: its answer is still to come
            self.discard(slot, "ping_failed")
            raise
        return None

    def _fill(self, slot: Slot[C], deadline: Deadline) -> Steps[None]:
        started = self._monotonic()
        where, limits = self._where, Limits.of(self._settings)
        try:
            until = deadline if self.fallback is None else self._half(deadline)
            connection, attempts = yield partial(self._connector.open, until)
        except ConnectError as error:
            if self.fallback is None or not error.retryable:
                raise
            connection, attempts = yield partial(self.fallback.open, deadline)
            where = self.fallback.address
            limits = limits.replace(max_lifetime_s=min(limits.max_lifetime_s, jitter(_FALLBACK_LIFETIME_S)))
        cutoff = Cutoff(self._course)
        self._driver.obey(connection, cutoff)
        see = self._watcher(slot)
        if see is not None:
            self._driver.watch(connection, see)
        slot.is_touched = self._resets_always
        slot.fill(connection, cutoff, self._driver.fileno(connection), limits, self._clock)
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

    def _watcher(self, slot: Slot[C]) -> Callable[[str | bytes], None] | None:
        """Return what each statement is to be shown to, if anybody looks at them."""
        leaves = None if self._leftovers is None else self._leftovers.watcher(slot)
        pins = None if self._guard is None else self._guard.watcher(slot)
        if leaves is None or pins is None:
            return leaves or pins

        def see(text: str | bytes) -> None:
            pins(text)  # first: what it refuses leaves nothing
            leaves(text)

        return see

    def tell_reused(self, slot: Slot[C]) -> None:
        """Tell that a warm connection is lent; not to be asked for unless `tells_reuse`."""
        self._tell(ConnectionReused(endpoint=self._where, idle_s=slot.idle_s(self._clock)))

    # --- while it is lent

    def begin(self, slot: Slot[C], deadline: Deadline, *, read_only: bool, isolation: str | None) -> Steps[None]:
        """Send BEGIN; it finds out what no `poll()` can see, and may be repeated: nothing else has been sent.

        Raises:
            ConnectError, CredentialsError, DeadlineExceededError: The connection is lost, and no other can be had.
            Exception: The driver's own.
        """
        begin = partial(self._driver.begin, read_only=read_only, isolation=isolation)
        try:
            yield partial(begin, slot.connection)
        except Exception as error:
            if self.failure(slot, error) not in (Failure.LOST, Failure.REFUSED):
                raise
            self.discard(slot, "lost")
            yield from self._fill(slot, deadline)
            slot.cutoff.ends_at = self._monotonic() + deadline.remaining_s()
            slot.loans += 1
            yield partial(begin, slot.connection)

    def commit(self, slot: Slot[C]) -> Steps[None]:
        """Commit the transaction of a lent connection: one round trip.

        Raises:
            CommitUnknownError: The connection was lost while COMMIT was on its way.
            Exception: The driver's own: nothing was committed.
        """
        was_over = has_hung_up(slot.events()) or not self._driver.is_open(slot.connection)
        try:
            yield partial(self._driver.commit, slot.connection)
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
            try:
                found = self._driver.failure(slot.connection, cause)
            except Exception:  # noqa: BLE001 - no file descriptor is left for an import, say: what is not known is not kept
                found = Failure.LOST
            if found is Failure.REFUSED:
                self._connector.refuse()  # the next connection is to log in otherwise
            if found is not Failure.OTHER:
                return found, cause
            cause = cause.__cause__ or cause.__context__
        return Failure.OTHER, error

    # --- after a loan

    def lift_limit(self, slot: Slot[C]) -> float:
        """Take the caller's limit off a connection that is to be cleaned; return what is left of it for that."""
        cutoff = slot.cutoff
        if cutoff.has_cut and slot.doom != "closed":
            slot.doom = "deadline"  # that it has pinned, too, matters no more
        limit_s = cutoff.cleaning_s()
        cutoff.ends_at = UNLIMITED_S
        return limit_s

    def state(self, slot: Slot[C], within_s: Callable[[], float]) -> SessionState:
        """Say what the session is in; raises nothing. `within_s` is as for the driver's own."""
        try:
            return self._driver.state(slot.connection, within_s=within_s)
        except Exception:  # noqa: BLE001 - a session that cannot say its state is discarded, whatever the cause
            return SessionState.UNUSABLE

    def failure_of_loan(self, slot: Slot[C], error: BaseException, *, is_read_only: bool) -> Failure:
        """Say what the error that ended a loan means for the connection and for trying again; note what helps.

        Args:
            slot: It has come back.
            error: The exception.
            is_read_only: A write was bound to be refused: that says nothing about the server.
        """
        failure, cause = self._found(slot, error)
        if failure is Failure.BUSY:
            _add_note(cause, BORROW_TIMEOUT_REMEDY)
        elif failure is Failure.READ_ONLY and self._settings.is_read_only:
            _add_note(cause, _FOR_READING)
        if failure is Failure.READ_ONLY and (is_read_only or self._settings.is_read_only):
            return Failure.OTHER
        if slot.cutoff.has_cut:
            return Failure.OTHER  # whoever is short of time is not to try again
        return failure

    def put_right(self, slot: Slot[C], state: SessionState, limit_s: float) -> Steps[bool]:
        """Roll back what is open and reset what was touched; say whether the session is as it was at login."""
        if slot.is_touched and self._settings.is_proxy:
            return False  # whoever touched it has pinned it
        try:
            if state is SessionState.IN_TRANSACTION:
                yield partial(self._driver.rollback, slot.connection, timeout_s=limit_s)
            if slot.is_touched:
                yield partial(self._driver.reset, slot.connection, timeout_s=limit_s)
                slot.is_touched = self._resets_always
        except Exception:  # noqa: BLE001 - a session that cannot be put right is discarded, whatever the cause
            return False
        except BaseException:  # cancelled or interrupted: an answer is still to come
            self.discard(slot, "unclean")
            raise
        return self.state(slot, lambda: limit_s) is SessionState.CLEAN

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

    def close(self, connection: C) -> None:
        """Close a connection that is in no slot any more; tell nobody."""
        self._driver.close(connection)

    def forget(self) -> None:
        """Give up what a restored snapshot has kept of how to connect."""
        self._connector.forget()


def _add_note(error: BaseException, note: str) -> None:
    """Say once, beside the driver's words, what to do; the error stays what it is."""
    if note not in getattr(error, "__notes__", ()):
        error.add_note(note)
