"""`Transaction`: a loan inside BEGIN … COMMIT, as steps; `TransactionLoan` carries them out by calling."""

from __future__ import annotations

from _thread import get_ident

from lambda_dbconn.drivers import Failure, checked_isolation
from lambda_dbconn.light import TYPE_CHECKING, Generic, TypeVar
from lambda_dbconn.steps import carry_out

if TYPE_CHECKING:
    from types import TracebackType

    from lambda_dbconn.deadline import Deadline, InvocationContext
    from lambda_dbconn.lease import Slot
    from lambda_dbconn.lender import Lender
    from lambda_dbconn.steps import Steps

C = TypeVar("C")


class Transaction(Generic[C]):
    """What `transaction()` does on entry and at the end.

    Attributes:
        failure: After the block, what the error meant that ended it; `OTHER` if it may have been committed.

    Raises:
        ConfigurationError: `isolation` is not one of SQL's four levels.
    """

    __slots__ = ("_context", "_isolation", "_lender", "_read_only", "_slot", "failure")

    _slot: Slot[C]

    def __init__(
        self,
        lender: Lender[C],
        context: InvocationContext | float | Deadline | None,
        *,
        read_only: bool,
        isolation: str | None,
    ) -> None:
        checked_isolation(isolation)
        self._lender = lender
        self._context = context
        self._read_only = read_only
        self._isolation = isolation
        self.failure = Failure.OTHER

    def _enter(self, holder: object) -> Steps[C]:
        """Take a connection and begin; if that fails, give it back."""
        deadline = self._lender.deadline(self._context)
        slot, steps = self._lender.take(holder, self._context)
        self._slot = slot
        if steps is not None:
            yield from steps
        try:
            yield from self._lender.begin(slot, deadline, read_only=self._read_only, isolation=self._isolation)
        except BaseException as error:
            yield from self._leave(error)
            raise
        return slot.connection

    def _exit(self, error: BaseException | None) -> Steps[None]:
        """Commit unless there was an error, and give the connection back."""
        if error is None:
            try:
                yield from self._lender.commit(self._slot)
            except BaseException as failed:
                yield from self._leave(failed)
                raise
        yield from self._leave(error)

    def _leave(self, error: BaseException | None) -> Steps[None]:
        steps = self._lender.give_back(self._slot, error, is_read_only=self._read_only)
        if steps is not None:
            self.failure = yield from steps


class TransactionLoan(Transaction[C]):
    """The context manager that `ConnectionManager.transaction()` returns."""

    __slots__ = ()

    def __enter__(self) -> C:
        return carry_out(self._enter(get_ident()))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        carry_out(self._exit(error))
