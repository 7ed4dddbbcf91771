"""`BaseLoan`: one `with` block's use of a connection, from acquire to release, as steps; `Loan` makes the calls."""

from __future__ import annotations

import sys

from lambda_dbconn._values import TYPE_CHECKING, Generic, TypeVar
from lambda_dbconn.cache.owner import Owner, current_thread_token
from lambda_dbconn.cache.sansio import run_sync
from lambda_dbconn.drivers import ErrorKind
from lambda_dbconn.errors import ConnectionInUseError

if TYPE_CHECKING:
    from types import TracebackType

    from lambda_dbconn.cache.cache import ConnectionCache
    from lambda_dbconn.cache.owner import Actor
    from lambda_dbconn.cache.sansio import Operation
    from lambda_dbconn.cache.slot import Slot
    from lambda_dbconn.deadline import Deadline, InvocationContext

C = TypeVar("C")


class BaseLoan(Generic[C]):
    """What `connection()` does on entry and at the end; `Transaction` adds BEGIN and COMMIT.

    An exception may strike between any two instructions (a signal handler's, a cancellation). `_abandon` frees what
    was claimed by then; where even that does not run, the owner is known to be gone when this object is.

    Attributes:
        failure: After the block, what the error meant that ended it; `OTHER` when it must not be attempted again.
    """

    _read_only = False
    _slot: Slot[C]

    def __init__(self, cache: ConnectionCache[C], context: InvocationContext | float | Deadline | None) -> None:
        self._cache = cache
        self._context = context
        self.failure = ErrorKind.OTHER

    def _enter(self, actor: Actor) -> Operation[C]:
        deadline = self._cache.deadline(self._context)
        owner = Owner(self, actor, deadline.aws_request_id)
        if vars(self).setdefault("_owner", owner) is not owner:
            raise ConnectionInUseError(
                "this block has been entered already",
                remedy="Call connection() or transaction() anew for each `with` statement.",
            )
        outer = sys.exception()
        owner.outer_error = 0 if outer is None else id(outer)
        del outer
        try:
            self._slot = yield from self._cache.acquire(owner, deadline)
            try:
                yield from self._begin(deadline)
            except Exception as error:
                yield from self._release(owner, error, may_be_committed=False)
                raise
            return self._slot.connection  # noqa: TRY300 - in the `try`: an exception may strike here, too
        except BaseException:
            self._abandon()
            raise

    def _exit(self, error: BaseException | None) -> Operation[None]:
        owner: Owner | None = vars(self).get("_owner")
        if owner is None:
            return
        try:
            # Asked before COMMIT is sent, which ends the transaction itself, and before the connection is discarded.
            may_be_committed = self._slot.may_be_committed()
            if error is None:
                try:
                    yield from self._commit(owner)
                except Exception as failed:
                    yield from self._release(owner, failed, may_be_committed=may_be_committed)
                    raise
            yield from self._release(owner, error, may_be_committed=may_be_committed)
        finally:
            self._abandon()

    def _begin(self, deadline: Deadline) -> Operation[None]:  # noqa: ARG002 - a transaction needs it
        """Do nothing: outside a transaction each statement commits by itself."""
        return
        yield

    def _commit(self, owner: Owner) -> Operation[None]:  # noqa: ARG002 - as `_begin`
        """Do nothing, as `_begin`."""
        return
        yield

    def _release(self, owner: Owner, error: BaseException | None, *, may_be_committed: bool) -> Operation[None]:
        slot = self._slot
        may_retry = error is not None and not may_be_committed and slot.may_retry(error)
        failure = yield from self._cache.release(owner, slot, error, is_read_only=self._read_only)
        self.failure = failure if may_retry else ErrorKind.OTHER

    def _abandon(self) -> None:
        """Free what an exception has left; nothing after a release."""
        owner: Owner | None = vars(self).get("_owner")
        if owner is not None:
            self._cache.abandon(owner)
            vars(self).pop("_owner", None)


class Loan(BaseLoan[C]):
    """The context manager that `ConnectionManager.connection()` returns."""

    def __enter__(self) -> C:
        return run_sync(self._enter(current_thread_token()))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            run_sync(self._exit(error))
        except BaseException:
            self._abandon()
            raise
