"""`Transaction`: a loan inside BEGIN … COMMIT, as steps."""

from __future__ import annotations

from lambda_dbconn._values import TYPE_CHECKING, TypeVar
from lambda_dbconn.cache.loan import BaseLoan, Loan
from lambda_dbconn.drivers import checked_isolation
from lambda_dbconn.errors import TransactionAbortedError

if TYPE_CHECKING:
    from lambda_dbconn.cache.cache import ConnectionCache
    from lambda_dbconn.cache.owner import Owner
    from lambda_dbconn.cache.sansio import Operation
    from lambda_dbconn.deadline import Deadline, InvocationContext

C = TypeVar("C")


class Transaction(BaseLoan[C]):
    """What `transaction()` does on entry and at the end.

    Raises:
        ConfigurationError: `isolation` is not one of SQL's four levels.
    """

    def __init__(
        self,
        cache: ConnectionCache[C],
        context: InvocationContext | float | Deadline | None,
        *,
        read_only: bool,
        isolation: str | None,
    ) -> None:
        checked_isolation(isolation)
        super().__init__(cache, context)
        self._read_only = read_only
        self._isolation = isolation

    def _begin(self, deadline: Deadline) -> Operation[None]:
        return self._slot.begin(deadline, read_only=self._read_only, isolation=self._isolation)

    def _commit(self, owner: Owner) -> Operation[None]:
        slot = self._slot
        if self._cache.owns(owner, slot):
            yield from slot.commit()
        elif self._cache.has(slot):
            raise TransactionAbortedError(
                "the connection was taken back before the block ended, and the transaction was rolled back",
                remedy="Leave the block in the invocation, thread or task that has entered it.",
            )


class TransactionLoan(Loan[C], Transaction[C]):
    """The context manager that `ConnectionManager.transaction()` returns."""
