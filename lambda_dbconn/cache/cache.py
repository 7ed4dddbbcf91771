"""`ConnectionCache`: which thread or task has which slot.

There is no lock, because a signal handler may run between any two instructions and ask for a connection itself. The
only record of who has a slot is one dictionary; `setdefault` lets exactly one owner in, and `pop` ends its claim.
"""

from __future__ import annotations

from functools import partial

from lambda_dbconn._values import TYPE_CHECKING, Generic, TypeVar
from lambda_dbconn.cache.owner import Owner, current_thread_token
from lambda_dbconn.cache.process import watch
from lambda_dbconn.cache.slot import Slot
from lambda_dbconn.drivers import ErrorKind
from lambda_dbconn.errors import ConnectionInUseError
from lambda_dbconn.events import ConnectionReleased

if TYPE_CHECKING:
    from lambda_dbconn.cache.sansio import Operation
    from lambda_dbconn.cache.slot import Resources
    from lambda_dbconn.deadline import Deadline, InvocationContext
    from lambda_dbconn.events import EventDispatcher, Stats

C = TypeVar("C")

_FIRST_PAUSE_S = 0.001
_LONGEST_PAUSE_S = 0.005


class ConnectionCache(Generic[C]):
    """At most `max_connections` connections, one to an owner. Threads may share it; so may forks.

    Args:
        shared: What all slots use.
        recorder: Receives the events.
    """

    def __init__(self, shared: Resources[C], recorder: EventDispatcher) -> None:
        self._shared = shared
        self._recorder = recorder
        self._monotonic = shared.clock.monotonic
        self._is_timed = recorder.is_enabled_for(ConnectionReleased)
        self._make_slots()
        watch(self)

    def _make_slots(self) -> None:
        self._slots = tuple(Slot(self._shared) for _ in range(self._shared.settings.max_connections))
        self._owners: dict[Slot[C], Owner] = {}
        self._waiting: list[Owner] = []  # in the order of coming

    # --- acquire and release

    def acquire(self, owner: Owner, deadline: Deadline) -> Operation[Slot[C]]:
        """Claim a slot and make its connection ready; `release` or `abandon` must follow, whatever comes.

        A warm connection costs no round trip of its own: a `poll()`, and reading the answer to its reset.

        Raises:
            ConnectionInUseError: This thread or task has a connection already; or no slot became free until the
                deadline, or within `connect_timeout_s`.
            ConnectError, CredentialsError, DeadlineExceededError: A new connection was needed and could not be had.
        """
        if self._is_timed:
            owner.asked_at = owner.acquired_at = self._monotonic()
        slot = self._claim(owner)
        if slot is None:
            slot = yield from self._wait_for_slot(owner, deadline)
        opened = slot.opened
        slot.outer_error = owner.outer_error
        yield from slot.prepare(deadline)
        if self._is_timed:
            owner.acquired_at = self._monotonic()
            owner.outcome = "reused" if slot.opened == opened else "opened"
        return slot

    def _claim(self, owner: Owner) -> Slot[C] | None:
        """Return a slot that is the owner's from now on, or None when all are in use.

        Raises:
            ConnectionInUseError: The owner's thread or task has one already, and would wait for itself.
        """
        if self._owners:
            self._refuse_a_second_one(owner)
            for slot in self._slots:
                if self._inherit(slot, owner):
                    return slot
        if not self._is_next(owner):
            return None
        for is_empty in (False, True):  # a slot is filled only when those with a connection are in use
            for slot in self._slots:
                if slot.is_empty is is_empty and self._owners.setdefault(slot, owner) is owner:
                    return slot
        return None

    def _refuse_a_second_one(self, owner: Owner) -> None:
        for first in list(self._owners.values()):
            other = first.last()
            if other.is_same_actor(owner) and not other.may_lose_it_to(owner):
                raise ConnectionInUseError(f"this {owner.kind} already has a connection to {self._shared.address}")

    def _inherit(self, slot: Slot[C], owner: Owner) -> bool:
        """Take a slot over from an owner that cannot come back for it."""
        first = self._owners.get(slot)
        if first is None:
            return False
        before = first.last()
        if not before.may_lose_it_to(owner) or not before.bequeath(owner):
            return False
        # Its block may have released the slot meanwhile: then `first` is no longer there, and nothing is inherited.
        if self._owners.get(slot) is not first:
            return False
        slot.take_over(may_close=before.is_same_actor(owner) or before.is_actor_gone())
        return True

    def _is_next(self, owner: Owner) -> bool:
        """Say whether no other owner has waited longer."""
        for first in list(self._waiting):
            if first is owner:
                return True
            if not first.may_lose_it_to(owner):
                return False
            if first in self._waiting:  # an exception has struck before it could leave the line
                self._waiting.remove(first)
        return True

    def _wait_for_slot(self, owner: Owner, deadline: Deadline) -> Operation[Slot[C]]:
        """Wait until a slot becomes free: until the deadline, at most `connect_timeout_s`."""
        where, settings = self._shared.address, self._shared.settings
        left_s = deadline.cap_s(settings.connect_timeout_s, doing=f"a free connection to {where}")
        pause_s = _FIRST_PAUSE_S
        self._waiting.append(owner)  # whoever releases a slot and asks again comes after this one
        try:
            while (left_s := min(left_s, deadline.remaining_s())) > 0:
                pause_s = min(pause_s, left_s)
                yield partial(self._shared.sleep, pause_s)
                left_s -= pause_s
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
                slot = self._claim(owner)
                if slot is not None:
                    return slot
        finally:
            if owner in self._waiting:
                self._waiting.remove(owner)
        raise ConnectionInUseError(
            f"no free connection to {where}: the limit is {len(self._slots)} "
            f"({settings.variable('max_connections')}), and none was released in time",
            retryable=True,
        )

    def release(
        self, owner: Owner, slot: Slot[C], error: BaseException | None, *, is_read_only: bool
    ) -> Operation[ErrorKind]:
        """Clean the connection or discard it, and free the slot; return what the error meant.

        Args:
            owner: As for `acquire`. Nothing happens when it no longer owns the slot: in a fork's child, say.
            slot: As `acquire` returned it.
            error: The exception that ends the block, or None.
            is_read_only: A write was bound to be refused: that says nothing about the server.

        Raises:
            TransactionLeftOpenError: It came back inside a transaction, and no error is being raised.
        """
        if not self.owns(owner, slot):
            return ErrorKind.OTHER
        try:
            return (yield from slot.settle(error, is_read_only=is_read_only))
        finally:
            self._free(slot, owner)

    def abandon(self, owner: Owner) -> None:
        """Free what an exception has left with an owner; after `release` there is nothing."""
        for slot in self._slots:
            if self.owns(owner, slot):
                self._free(slot, owner)
                return
        if owner.outcome == "failed":
            self._tell_end(owner)

    def owns(self, owner: Owner, slot: Slot[C]) -> bool:
        """Say whether the slot is this owner's: not in a fork's child, and not after another one has inherited it."""
        first = self._owners.get(slot)
        return first is not None and first.last() is owner

    def has(self, slot: Slot[C]) -> bool:
        """Say whether the slot is this process's: a fork's child has slots of its own."""
        return slot in self._slots

    def deadline(self, context: InvocationContext | float | Deadline | None) -> Deadline:
        """Return the deadline that a context gives; `ConfigurationError` if it is not one."""
        return self._shared.deadline(context)

    def _free(self, slot: Slot[C], owner: Owner) -> None:
        if not slot.is_at_rest:
            slot.discard(slot.evict_reason or "unclean")
        if slot.is_empty:
            slot.evict_reason = None
        self._owners.pop(slot, None)
        self._tell_end(owner)

    def _tell_end(self, owner: Owner) -> None:
        """Emit the end of one block, once."""
        if not self._is_timed or not owner.outcome:
            return
        outcome, owner.outcome = owner.outcome, ""
        use_s = 0.0 if outcome == "failed" else self._monotonic() - owner.acquired_at
        acquired_at = self._monotonic() if outcome == "failed" else owner.acquired_at
        self._recorder.emit(
            ConnectionReleased(
                endpoint=self._shared.address,
                outcome=outcome,
                wait_s=acquired_at - owner.asked_at,
                use_s=use_s,
                request_id=owner.request_id,
            )
        )

    # --- the whole

    def close(self) -> None:
        """Close what is idle now, and what is in use when it comes back. The next connection is opened anew."""
        for slot in self._slots:
            if not self._close_idle(slot):
                slot.evict_reason = "closed"

    def _close_idle(self, slot: Slot[C]) -> bool:
        """Close a slot's connection unless it is in use; say whether it was idle."""
        block = _Block()  # gone with this call, should an exception strike twice
        owner = Owner(block, current_thread_token(), "")
        try:
            if self._owners.setdefault(slot, owner) is not owner:
                return False
            slot.discard("closed")
            self._owners.pop(slot, None)
        except BaseException:
            self._let_go(slot, owner)
            raise
        return True

    def _let_go(self, slot: Slot[C], owner: Owner) -> None:
        """Free what an exception has left to a claim of the cache's own."""
        if self._owners.get(slot) is owner:
            self._owners.pop(slot, None)

    def close_one_idle(self) -> bool:
        """Close one idle connection and say whether there was one; for signal handlers: no lock, no event."""
        block = _Block()
        owner = Owner(block, current_thread_token(), "")
        for slot in self._slots:
            try:
                if slot.is_empty or self._owners.setdefault(slot, owner) is not owner:
                    continue
                connection = slot.connection
                slot.empty()
                self._owners.pop(slot, None)
            except BaseException:
                self._let_go(slot, owner)
                raise
            self._shared.driver.close(connection)
            return True
        return False

    def forget(self) -> None:
        """Give up what a restored snapshot has kept: connections, which are dead, and what the provider knows."""
        self.close()
        for slot in self._slots:
            slot.replaced = None
        self._shared.connector.forget()

    def detach_after_fork(self) -> list[C]:
        """Forget all connections without a word to their servers, and return them: in a child, after a fork."""
        connections = [slot.connection for slot in self._slots if not slot.is_empty]
        self._make_slots()
        self._recorder.renew()
        return connections

    def stats(self) -> Stats:
        """Return a snapshot of the counters."""
        return self._recorder.stats(
            uses=sum(slot.uses for slot in self._slots),
            open_count=sum(not slot.is_empty for slot in self._slots),
            in_use=len(self._owners),
        )


class _Block:
    """Stands for a `with` block where the cache itself owns a slot for a moment."""

    __slots__ = ("__weakref__",)
