"""`TimedLender`: a lender that tells how each loan went; made only for observers that ask: others pay nothing."""

from __future__ import annotations

from lambda_dbconn.events import LoanEnded
from lambda_dbconn.lender import Lender
from lambda_dbconn.light import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from lambda_dbconn.deadline import Deadline, InvocationContext
    from lambda_dbconn.drivers import Failure
    from lambda_dbconn.lease import Slot
    from lambda_dbconn.steps import Steps

C = TypeVar("C")


class TimedLender(Lender[C]):
    """A `Lender` that reads the clock around each loan and tells `LoanEnded` as its last event."""

    def _make_slots(self) -> None:
        super()._make_slots()
        self._loans: dict[Slot[C], tuple[float, float, str, str]] = {}  # asked and lent at, outcome, request id

    def take(
        self, holder: object, context: InvocationContext | float | Deadline | None
    ) -> tuple[Slot[C], Steps[None] | None]:
        """Do as `Lender` does; when that fails, the loan is over."""
        request_id: str = getattr(context, "aws_request_id", "")
        asked = self._monotonic()
        try:
            slot, steps = super().take(holder, context)
        except BaseException:
            self._over(asked, self._monotonic(), "failed", request_id)
            raise
        if steps is not None:
            return slot, self._taken(slot, steps, asked, request_id)
        self._loans[slot] = (asked, self._monotonic(), "reused", request_id)
        return slot, None

    def _taken(self, slot: Slot[C], steps: Steps[None], asked: float, request_id: str) -> Steps[None]:
        try:
            yield from steps
        except BaseException:
            self._over(asked, self._monotonic(), "failed", request_id)
            raise
        outcome = "reused" if slot.uses > 1 else "opened"
        self._loans[slot] = (asked, self._monotonic(), outcome, request_id)

    def give_back(
        self, slot: Slot[C], error: BaseException | None, *, is_read_only: bool = False
    ) -> Steps[Failure] | None:
        """Do as `Lender` does; then the loan is over, whatever came of it."""
        loan = self._loans.pop(slot, None)  # None in a fork's child: the loan is its parent's
        steps = super().give_back(slot, error, is_read_only=is_read_only)
        if loan is None:
            return steps
        if steps is not None:
            return self._given_back(steps, loan)
        self._over(*loan)
        return None

    def _given_back(self, steps: Steps[Failure], loan: tuple[float, float, str, str]) -> Steps[Failure]:
        try:
            return (yield from steps)
        finally:
            self._over(*loan)

    def _over(self, asked: float, lent: float, outcome: str, request_id: str) -> None:
        lent_s = 0.0 if outcome == "failed" else self._monotonic() - lent
        self._recorder.tell(
            LoanEnded(
                endpoint=self._where, outcome=outcome, borrow_s=lent - asked, lent_s=lent_s, request_id=request_id
            )
        )
