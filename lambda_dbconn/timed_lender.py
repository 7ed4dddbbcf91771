"""`TimedLender`: a lender that tells how each loan went; made only for observers that ask: others pay nothing."""

from __future__ import annotations

from lambda_dbconn._typing import TYPE_CHECKING, TypeVar
from lambda_dbconn.events import LoanEnded
from lambda_dbconn.lender import Lender

if TYPE_CHECKING:
    from lambda_dbconn.deadline import Deadline, InvocationContext
    from lambda_dbconn.drivers.driver import Failure
    from lambda_dbconn.lease import Slot

C = TypeVar("C")


class TimedLender(Lender[C]):
    """A `Lender` that reads the clock around each loan and tells `LoanEnded` as its last event."""

    def _make_slots(self) -> None:
        super()._make_slots()
        self._loans: dict[Slot[C], tuple[float, float, str, str]] = {}  # asked and lent at, outcome, request id

    def acquire(self, context: InvocationContext | float | Deadline | None) -> Slot[C]:
        """Do as `Lender` does; when that fails, the loan is over."""
        request_id: str = getattr(context, "aws_request_id", "")
        asked = self._monotonic()
        try:
            slot = super().acquire(context)
        except BaseException:
            self._over(asked, self._monotonic(), "failed", request_id)
            raise
        outcome = "reused" if slot.uses > 1 else "opened"
        self._loans[slot] = (asked, self._monotonic(), outcome, request_id)
        return slot

    def release(self, slot: Slot[C], error: BaseException | None, *, is_read_only: bool = False) -> Failure:
        """Do as `Lender` does; then the loan is over, whatever came of it."""
        loan = self._loans.pop(slot, None)  # None in a fork's child: the loan is its parent's
        try:
            return super().release(slot, error, is_read_only=is_read_only)
        finally:
            if loan is not None:
                self._over(*loan)

    def _over(self, asked: float, lent: float, outcome: str, request_id: str) -> None:
        lent_s = 0.0 if outcome == "failed" else self._monotonic() - lent
        self._tell(
            LoanEnded(
                endpoint=self._where, outcome=outcome, borrow_s=lent - asked, lent_s=lent_s, request_id=request_id
            )
        )
