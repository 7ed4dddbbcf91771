"""`ConnectionManager`: what handlers use."""

from __future__ import annotations

from lambda_dbconn._typing import TYPE_CHECKING, Generic, TypeVar, overload
from lambda_dbconn.backoff import Backoff, Budget
from lambda_dbconn.clock import SystemClock
from lambda_dbconn.connector import Connector
from lambda_dbconn.credentials.selection import provider_for
from lambda_dbconn.deadline import Deadline
from lambda_dbconn.drivers import load_driver
from lambda_dbconn.drivers.driver import Failure, checked_isolation
from lambda_dbconn.errors import ConfigurationError
from lambda_dbconn.events import LoanEnded
from lambda_dbconn.handler import lending
from lambda_dbconn.lease import RUN_AGAIN, pin_action
from lambda_dbconn.lender import Lender
from lambda_dbconn.observers.logging import LoggingObserver
from lambda_dbconn.stats import Recorder

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Any

    from lambda_dbconn.clock import Clock
    from lambda_dbconn.credentials import CredentialProvider, Credentials
    from lambda_dbconn.deadline import InvocationContext
    from lambda_dbconn.description import Description
    from lambda_dbconn.doctor import Diagnosis
    from lambda_dbconn.drivers.driver import Driver
    from lambda_dbconn.events import Observer
    from lambda_dbconn.lease import Slot
    from lambda_dbconn.pin_guard import PinGuard
    from lambda_dbconn.settings import Settings
    from lambda_dbconn.stats import Stats

C = TypeVar("C")
E = TypeVar("E")
R = TypeVar("R")
X = TypeVar("X")

WARM_UP_LIMIT_S = 5.0


class ConnectionManager(Generic[C]):
    """Lends the execution environment's database connection; make it once, outside the handler.

    Making one reads files and imports the driver, but opens nothing. Threads may share it, within
    `max_connections`; after a fork the child opens its own connections.

    Args:
        settings: Where, as whom, within which limits.
        credentials: Instead of what the settings say: a provider, or a function that returns `Credentials`.
        observer: Told the events; by default they are logged.
        clock: Instead of the system's, for tests.
        driver: Instead of the engine's, for tests.

    Raises:
        ConfigurationError: The driver is not installed, or there is nothing to verify the server with.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        credentials: CredentialProvider | Callable[[], Credentials] | None = None,
        observer: Observer | None = None,
        clock: Clock | None = None,
        driver: Driver[C] | None = None,
    ) -> None:
        self.settings = settings
        self.observer: Observer = observer if observer is not None else LoggingObserver()
        self._clock: Clock = clock if clock is not None else SystemClock()
        self._credentials = provider_for(settings, credentials, clock=self._clock)
        self._driver: Driver[C] = driver if driver is not None else load_driver(settings.engine)
        recorder = Recorder(self.observer)
        listen = getattr(self._credentials, "listen", None)
        if listen is not None:
            listen(recorder.tell)
        self._budget = Budget(self._clock)
        self._connector = Connector(
            settings,
            driver=self._driver,
            credentials=self._credentials,
            clock=self._clock,
            budget=self._budget,
            tell=recorder.tell,
        )
        lender: type[Lender[C]] = Lender
        if recorder.wants(LoanEnded):
            from lambda_dbconn.timed_lender import TimedLender as lender  # noqa: N813 - takes its place
        self._lender = lender(
            settings,
            driver=self._driver,
            connector=self._connector,
            recorder=recorder,
            guard=_pin_guard(settings, recorder),
            clock=self._clock,
        )
        self._readers: dict[str, ConnectionManager[C]] = {}  # one at most

    def connection(self, context: InvocationContext | float | Deadline | None = None) -> Loan[C]:
        """Lend the connection in autocommit mode, for the length of a `with` block.

        A transaction that the block leaves open is rolled back. Costs no round trip while the cached connection
        is good; see `docs/explanation/life-of-a-connection.md` for the rest.

        Args:
            context: The Lambda context, a number of seconds, or None: what opening and checking may take.

        Raises (on entry):
            ConnectionInUseError, ConnectError, CredentialsError, DeadlineExceededError, ConfigurationError.

        Raises (at the end):
            TransactionLeftOpenError: A transaction was left open, and no other error is being raised.
        """
        return Loan(self._lender, context)

    def transaction(
        self,
        context: InvocationContext | float | Deadline | None = None,
        *,
        read_only: bool = False,
        isolation: str | None = None,
    ) -> TransactionLoan[C]:
        """Lend the connection inside BEGIN … COMMIT; an exception rolls back. Two round trips beside yours.

        Args:
            context: As in `connection`.
            read_only: Begin a read-only transaction.
            isolation: One of SQL's four levels in lower case, or None for the server's default. On MySQL it costs
                three round trips more.

        Raises (on entry):
            As `connection`.

        Raises (at the end):
            CommitUnknownError: The connection was lost while COMMIT was on its way.
            TransactionAbortedError: A statement had failed and its error was caught inside (PostgreSQL).
        """
        checked_isolation(isolation)
        return TransactionLoan(self._lender, self._driver, context, read_only=read_only, isolation=isolation)

    def run(
        self,
        function: Callable[[C], R],
        context: InvocationContext | float | Deadline | None = None,
        *,
        attempts: int = 3,
        read_only: bool = False,
        isolation: str | None = None,
    ) -> R:
        """Run `function(connection)` in a transaction, and again when that is safe. Its SQL may be sent repeatedly.

        Safe is: a deadlock, a serialization failure, a failover, a connection lost before COMMIT was sent, or a proxy
        that had no database connection to give. The pause in between is drawn from an exponentially growing range.
        Effects of `function` outside the database are its own affair.

        Raises:
            CommitUnknownError: The connection was lost while COMMIT was on its way; never run again.
            Exception: What the last attempt raised.
        """
        if attempts < 1:
            raise ConfigurationError(f"the argument attempts is {attempts!r}; accepted: 1 or more")
        deadline = self._lender.deadline(context)
        backoff = Backoff()
        while True:
            attempts -= 1
            loan = self.transaction(deadline, read_only=read_only, isolation=isolation)
            try:
                with loan as connection:
                    return function(connection)
            except Exception:
                is_outage = loan.failure is not Failure.CONFLICT
                pause_s = max(backoff.pause_s(), self._budget.wait_s() if is_outage else 0.0)
                if attempts == 0 or loan.failure not in RUN_AGAIN or deadline.remaining_s() <= pause_s:
                    raise
            if is_outage:
                self._budget.spend()
            self._clock.sleep(pause_s)

    @overload
    def with_connection(self, function: Callable[[E, X, C], R], /) -> Callable[[E, X], R]: ...

    @overload
    def with_connection(self, *, argument: str = "conn") -> Callable[[Callable[..., R]], Callable[..., R]]: ...

    def with_connection(self, function: Callable[..., Any] | None = None, *, argument: str = "conn") -> Any:
        """Decorate a handler `(event, context, conn)`, or any function whose caller passes a Lambda context.

        The function gets the connection by keyword, as `argument`.
        """
        decorate = lending(self.connection, argument=argument)
        return decorate if function is None else decorate(function)

    @overload
    def with_transaction(self, function: Callable[[E, X, C], R], /) -> Callable[[E, X], R]: ...

    @overload
    def with_transaction(self, *, argument: str = "conn") -> Callable[[Callable[..., R]], Callable[..., R]]: ...

    def with_transaction(self, function: Callable[..., Any] | None = None, *, argument: str = "conn") -> Any:
        """Decorate like `with_connection`, with the function's body inside a transaction."""
        decorate = lending(self.transaction, argument=argument)
        return decorate if function is None else decorate(function)

    @property
    def reader(self) -> ConnectionManager[C]:
        """The manager for the read-only endpoint when `reader_host` is set, else this one.

        With `reader_fallback` it reads from the writer while the reader cannot be reached.
        """
        host = self.settings.reader_host
        if host is None or host == self.settings.host:
            return self
        known = self._readers.get(host)
        if known is not None:
            return known
        manager = ConnectionManager(
            self.settings.replace(host=host, signing_host=None),
            credentials=self._credentials,
            observer=self.observer,
            clock=self._clock,
            driver=self._driver,
        )
        if self.settings.reader_fallback == "writer":
            manager._lender.fallback = self._connector
        return self._readers.setdefault(host, manager)

    def warm_up(self, context: InvocationContext | float | Deadline | None = None) -> bool:
        """Connect now, in the init phase; return whether it worked.

        Never fails the init: what went wrong is an event, `WarmUpFailed`, and a note on the error of the next loan if
        that fails as well.

        Args:
            context: As in `connection`. By default 5 seconds for everything but name resolution, half of what Lambda
                gives an init phase.
        """
        if context is None:
            context = Deadline(WARM_UP_LIMIT_S, reserve_s=0.0, clock=self._clock)
        try:
            with self.connection(context):
                return True
        except Exception as error:  # noqa: BLE001 - a user's provider may raise anything, and init must not fail
            self._connector.tell_failed_ahead(error)
            return False

    def close(self) -> None:
        """Close what is idle now, and what is lent when it comes back. The next loan opens anew."""
        self._lender.close()
        for reader in self._readers.values():
            reader.close()

    def stats(self) -> Stats:
        """Return a snapshot of the counters; the reader has its own."""
        return self._lender.stats()

    def describe(self) -> Description:
        """Say in plain words what was decided: endpoint, login, trust, limits, and what is switched off and why.

        No network, and no secret in it.
        """
        from lambda_dbconn.description import describe  # a cold start does without

        fallback = self._lender.fallback
        return describe(self.settings, self._credentials, fallback.address if fallback else None)

    def doctor(self, context: InvocationContext | float | Deadline | None = None) -> Diagnosis:
        """Find out, step by step, what is wrong between here and the server; `str()` of the result is for people.

        Opens connections of its own, beside the cached one, and closes them; sends a few plain SELECT or SHOW, which
        do not pin. Raises nothing that a step may meet. No secret is in the result.

        Args:
            context: As in `connection`; by default 30 seconds.
        """
        from lambda_dbconn.doctor import examine  # who is well does without

        return examine(
            self.settings, context=context, credentials=self._credentials, driver=self._driver, clock=self._clock
        )

    def __repr__(self) -> str:
        stats = self.stats()
        return (
            f"<ConnectionManager {self.settings.engine} at {self.settings.address}: "
            f"{stats.open_now} open, {stats.lent_now} lent>"
        )


class Loan(Generic[C]):
    """The context manager that `connection()` returns."""

    __slots__ = ("_context", "_lender", "_slot")

    _slot: Slot[C]

    def __init__(self, lender: Lender[C], context: InvocationContext | float | Deadline | None) -> None:
        self._lender = lender
        self._context = context

    def __enter__(self) -> C:
        slot = self._slot = self._lender.acquire(self._context)
        return slot.connection

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lender.release(self._slot, error)


class TransactionLoan(Generic[C]):
    """The context manager that `transaction()` returns.

    Attributes:
        failure: After the block, what the error meant that ended it; `OTHER` if it may have been committed.
    """

    __slots__ = ("_context", "_driver", "_isolation", "_lender", "_read_only", "_slot", "failure")

    _slot: Slot[C]

    def __init__(
        self,
        lender: Lender[C],
        driver: Driver[C],
        context: InvocationContext | float | Deadline | None,
        *,
        read_only: bool,
        isolation: str | None,
    ) -> None:
        self._lender = lender
        self._driver = driver
        self._context = context
        self._read_only = read_only
        self._isolation = isolation
        self.failure = Failure.OTHER

    def __enter__(self) -> C:
        deadline = self._lender.deadline(self._context)
        slot = self._slot = self._lender.acquire(deadline)
        try:
            self._begin(slot, deadline)
        except BaseException as error:
            self._release(error)
            raise
        return slot.connection

    def _begin(self, slot: Slot[C], deadline: Deadline) -> None:
        """Send BEGIN; it finds out what no `poll()` can see, and may be repeated: nothing else has been sent."""
        try:
            self._driver.begin(slot.connection, read_only=self._read_only, isolation=self._isolation)
        except Exception as error:
            if self._lender.failure(slot, error) is not Failure.LOST:
                raise
            self._lender.replace(slot, deadline)
            self._driver.begin(slot.connection, read_only=self._read_only, isolation=self._isolation)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._release(error)
            return
        try:
            self._lender.commit(self._slot)
        except BaseException as failed:
            self._release(failed)
            raise
        self._release(None)

    def _release(self, error: BaseException | None) -> None:
        self.failure = self._lender.release(self._slot, error, is_read_only=self._read_only)


def _pin_guard(settings: Settings, recorder: Recorder) -> PinGuard | None:
    action = pin_action(settings)
    if action == "ignore":
        return None
    from lambda_dbconn.pin_guard import PinGuard

    return PinGuard(settings.engine, settings.address, refuses=action == "raise", tell=recorder.tell)
