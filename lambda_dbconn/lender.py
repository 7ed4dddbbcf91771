"""`Lender`: who has which slot; a connection is good when it is lent, and clean when it is lent again.

There is no lock on the way of a loan: a slot belongs to whoever popped it from the stack of idle slots, and a pop is
atomic. What may take a round trip is a step (`steps`): who lends says whether steps are called or awaited.
"""

from __future__ import annotations

from lambda_dbconn.deadline import UNLIMITED_S
from lambda_dbconn.drivers import Failure, SessionState
from lambda_dbconn.errors import CommitUnknownError, ConnectionInUseError, TransactionLeftOpenError
from lambda_dbconn.events import TransactionRolledBack
from lambda_dbconn.lease import Slot, discard_reason
from lambda_dbconn.lifecycle import watch
from lambda_dbconn.light import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from lambda_dbconn.clock import Clock
    from lambda_dbconn.deadline import Deadline, InvocationContext
    from lambda_dbconn.settings import Settings
    from lambda_dbconn.stats import Recorder, Stats
    from lambda_dbconn.steps import Steps
    from lambda_dbconn.upkeep import Upkeep

C = TypeVar("C")

_CLEAN = SessionState.CLEAN
_OTHER = Failure.OTHER


class Lender(Generic[C]):
    """Lends at most `max_connections` connections, one to a holder. Threads may share it; so may forks.

    Args:
        settings: Limits and names.
        upkeep: Does what is to be done with a slot's connection.
        recorder: Is told the events.
        clock: For ages.
    """

    def __init__(self, settings: Settings, *, upkeep: Upkeep[C], recorder: Recorder, clock: Clock) -> None:
        self._settings = settings
        self._where = settings.address
        self._reserve_s = settings.reserve_s
        self._upkeep = upkeep
        self._recorder = recorder
        self._monotonic = clock.monotonic
        self._wall = clock.wall
        self._make_slots()
        watch(self)

    def _make_slots(self) -> None:
        self._slots: tuple[Slot[C], ...] = tuple(Slot() for _ in range(self._settings.max_connections))
        self._idle = list(self._slots)
        self._lent: dict[object, Slot[C]] = {}  # by holder

    # --- the loan

    def take(
        self, holder: object, context: InvocationContext | float | Deadline | None
    ) -> tuple[Slot[C], Steps[None] | None]:
        """Return a slot, the holder's until `give_back`, and the steps that make its connection good; None if it is.

        On the happy path the cost is one `poll()`; after `ping_idle_s`, or when the server spoke, a round trip. Steps
        that fail give the slot back.

        Args:
            holder: Who may hold one connection: a thread's identity, or a task.
            context: What the loan may take.

        Raises (also the steps):
            ConnectionInUseError: The holder has one already, or all are lent.
            ConnectError, CredentialsError, DeadlineExceededError: A new one was needed and could not be had.
        """
        if holder in self._lent:
            who = "thread" if isinstance(holder, int) else "task"
            raise ConnectionInUseError(f"this {who} already holds a connection to {self._where}")
        try:
            slot = self._idle.pop()
        except IndexError:
            raise ConnectionInUseError(
                f"all {len(self._slots)} connections to {self._where} that max_connections allows are lent"
            ) from None
        slot.holder = holder
        self._lent[holder] = slot
        upkeep = self._upkeep
        try:
            now = self._monotonic()
            if now < slot.trusted_monotonic and self._wall() < slot.trusted_wall and not slot.poll(0):
                if context is not None:
                    try:  # what Lambda passes, in each invocation: neither by way of a `Deadline` nor of a call
                        left_s = context.get_remaining_time_in_millis() / 1000 - self._reserve_s  # type: ignore[union-attr]
                    except AttributeError:  # another context, or none, or an error of its own: then once more
                        left_s = 0.0
                    slot.cutoff.ends_at = now + (left_s if left_s > 0.0 else upkeep.left_s(context))
                if upkeep.tells_reuse:
                    upkeep.tell_reused(slot)
                slot.loans += 1
                return slot, None
            return slot, self._make_good(slot, upkeep.deadline(context))
        except BaseException:
            self._take_back(slot)
            raise

    def _make_good(self, slot: Slot[C], deadline: Deadline) -> Steps[None]:
        """Make the slot's connection good, or take the slot back."""
        try:
            yield from self._upkeep.make_good(slot, deadline)
        except BaseException:
            self._take_back(slot)
            raise
        slot.loans += 1

    def give_back(
        self, slot: Slot[C], error: BaseException | None, *, is_read_only: bool = False
    ) -> Steps[Failure] | None:
        """Take a connection back; return the steps that clean it, and then what the error meant. None: it is clean.

        Args:
            slot: What `take` returned.
            error: The exception that is being raised out of the loan, or None.
            is_read_only: A write was bound to be refused: that says nothing about the server.

        Raises (the steps):
            TransactionLeftOpenError: It came back inside a transaction, and no error is being raised.
        """
        if self._lent.get(slot.holder) is not slot:  # as `_is_ours`, without a call
            return None
        if slot.connection is None:  # lost at BEGIN, and no other could be had
            self._take_back(slot)
            return None
        upkeep = self._upkeep
        try:
            failure = _OTHER
            if error is not None:  # before the state is asked for, which puts right what the error may have come from
                failure = upkeep.failure_of_loan(slot, error, is_read_only=is_read_only)
            state = upkeep.state(slot, slot.cleaning_s)
        except BaseException:  # interrupted: a slot that is not taken back would be lent for good
            slot.doom = slot.doom or "unclean"
            self._take_back(slot)
            raise
        if state is _CLEAN and error is None and not slot.is_touched and slot.doom is None:
            slot.cutoff.ends_at = UNLIMITED_S
            slot.returned(self._monotonic(), self._wall())
            del self._lent[slot.holder]
            self._idle.append(slot)
            return None
        return self._settle(slot, state, failure, error)

    def _settle(
        self, slot: Slot[C], state: SessionState, failure: Failure, error: BaseException | None
    ) -> Steps[Failure]:
        """Clean or discard a connection that may not be as it was lent, and take it back."""
        try:
            limit_s = self._upkeep.lift_limit(slot)
            reason = discard_reason(state, failure, slot.doom)
            if reason is None and (yield from self._upkeep.put_right(slot, state, limit_s)):
                slot.returned(self._monotonic(), self._wall())
            else:
                self._upkeep.discard(slot, reason or "unclean")
            if state is SessionState.IN_TRANSACTION:
                self._recorder.tell(TransactionRolledBack(endpoint=self._where, is_left_open=error is None))
                if error is None:
                    raise TransactionLeftOpenError(f"a transaction on {self._where} was left open; it was rolled back")
        finally:
            self._take_back(slot)
        return _OTHER if isinstance(error, CommitUnknownError) else failure

    def _is_ours(self, slot: Slot[C]) -> bool:
        """Say whether this process lent it: in a fork's child it is the parent's, and not to be touched."""
        return self._lent.get(slot.holder) is slot

    def _take_back(self, slot: Slot[C]) -> None:
        """Put the slot back among the idle ones, unless a fork has forgotten it."""
        if self._is_ours(slot):
            if slot.doom is not None:  # and still here, because it was not lent after all
                self._upkeep.discard(slot, slot.doom)
                slot.doom = None
            if not slot.is_empty:
                slot.cutoff.ends_at = UNLIMITED_S  # set, if whoever was to borrow it was interrupted before it was lent
            del self._lent[slot.holder]
            # An empty one goes below those that hold a good connection, so that it is filled only when they are lent.
            self._idle.insert(0 if slot.is_empty else len(self._idle), slot)

    # --- while it is lent

    def begin(self, slot: Slot[C], deadline: Deadline, *, read_only: bool, isolation: str | None) -> Steps[None]:
        """Begin a transaction on a lent connection; as `Upkeep.begin`."""
        return self._upkeep.begin(slot, deadline, read_only=read_only, isolation=isolation)

    def commit(self, slot: Slot[C]) -> Steps[None]:
        """Commit the transaction of a lent connection; as `Upkeep.commit`. In a fork's child, do nothing."""
        if self._is_ours(slot):
            yield from self._upkeep.commit(slot)

    def deadline(self, context: InvocationContext | float | Deadline | None) -> Deadline:
        """Return the deadline that a context gives; as `Upkeep.deadline`."""
        return self._upkeep.deadline(context)

    # --- the whole

    def close(self) -> None:
        """Close what is idle now, and what is lent when it comes back. The next loan opens anew."""
        for slot in list(self._lent.values()):
            slot.doom = "closed"
        idle = []
        while self._idle:
            slot = self._idle.pop()
            self._upkeep.discard(slot, "closed")
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
            self._upkeep.close(connection)
        return not was_empty

    def forget(self) -> None:
        """Give up what a restored snapshot has kept: connections, which are dead, and what the provider knows."""
        self.close()
        for slot in self._slots:
            slot.vacated = None
        self._upkeep.forget()

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
