"""`ConnectionManager`, the class that handlers use, and what it shares with the asyncio one."""

from __future__ import annotations

from lambda_dbconn._values import TYPE_CHECKING, Generic, TypeVar, overload
from lambda_dbconn.cache.cache import ConnectionCache
from lambda_dbconn.cache.connector import Connector
from lambda_dbconn.cache.loan import Loan
from lambda_dbconn.cache.policy import Attempts
from lambda_dbconn.cache.slot import Resources
from lambda_dbconn.credentials import provider_for
from lambda_dbconn.deadline import Deadline, SystemClock
from lambda_dbconn.drivers import load_driver
from lambda_dbconn.events import EventDispatcher
from lambda_dbconn.observers.logging import LoggingObserver

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Self

    from lambda_dbconn.credentials import CredentialProvider, Credentials
    from lambda_dbconn.deadline import Clock, InvocationContext
    from lambda_dbconn.describe import Description
    from lambda_dbconn.doctor import Diagnosis
    from lambda_dbconn.drivers.driver import Driver
    from lambda_dbconn.events import Observer, Stats
    from lambda_dbconn.proxy.guard import PinGuard
    from lambda_dbconn.settings import Settings
    from lambda_dbconn.transaction import TransactionLoan


C = TypeVar("C")
E = TypeVar("E")
R = TypeVar("R")
X = TypeVar("X")

WARM_UP_LIMIT_S = 5.0


class BaseManager(Generic[C]):
    """Settings, credentials, driver, connection cache and observer of one endpoint, and of its reader.

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
        self._driver: Driver[C] = driver if driver is not None else self._load_driver()
        recorder = EventDispatcher(self.observer)
        listen = getattr(self._credentials, "listen", None)
        if listen is not None:
            listen(recorder.emit)
        self._connector = Connector(
            settings,
            driver=self._driver,
            credentials=self._credentials,
            clock=self._clock,
            tell=recorder.emit,
        )
        self._shared = Resources(
            settings,
            driver=self._driver,
            connector=self._carried_out(self._connector),
            recorder=recorder,
            guard=_pin_guard(settings, recorder),
            clock=self._clock,
            sleep=self._sleep_by(self._clock),
        )
        self._cache = ConnectionCache(self._shared, recorder)
        self._readers: dict[str, Self] = {}  # one at most

    def _load_driver(self) -> Driver[C]:
        raise NotImplementedError

    @staticmethod
    def _sleep_by(clock: Clock) -> Callable[[float], Any]:
        """Return the function that pauses; a coroutine function where steps are awaited."""
        return clock.sleep

    def _attempts(self, count: int, deadline: Deadline) -> Attempts:
        """Return how `run` may repeat its function."""
        return Attempts(
            count,
            deadline,
            self._connector.budget,
            failover_s=self.settings.connect_timeout_s,
            clock=self._clock,
        )

    def _carried_out(self, connector: Connector[C]) -> Any:
        """Return the connector with its calls as this manager carries them out."""
        return connector

    @property
    def reader(self) -> Self:
        """The manager for the read-only endpoint when `reader_host` is set, else this one.

        With `reader_fallback` it reads from the writer while the reader cannot be reached.
        """
        host = self.settings.reader_host
        if host is None or host == self.settings.host:
            return self
        known = self._readers.get(host)
        if known is not None:
            return known
        manager = type(self)(
            self.settings.replace(host=host, signing_host=None),
            credentials=self._credentials,
            observer=self.observer,
            clock=self._clock,
            driver=self._driver,
        )
        if self.settings.reader_fallback == "writer":
            manager._shared.fallback = manager._carried_out(self._connector)  # noqa: SLF001 - of its own kind
        return self._readers.setdefault(host, manager)

    def stats(self) -> Stats:
        """Return a snapshot of the counters; the reader has its own."""
        return self._cache.stats()

    def describe(self) -> Description:
        """Say in plain words what was decided: endpoint, login, trust, limits, and what is switched off and why.

        No network, and no secret in it.
        """
        from lambda_dbconn.describe import describe  # a cold start does without

        fallback = self._shared.fallback
        return describe(self.settings, self._credentials, fallback.address if fallback else None)

    def __repr__(self) -> str:
        stats = self.stats()
        return (
            f"<{type(self).__name__} {self.settings.engine} at {self.settings.address}: "
            f"{stats.open} open, {stats.in_use} lent>"
        )

    def _ahead(self, context: InvocationContext | float | Deadline | None) -> InvocationContext | float | Deadline:
        """Return what connecting ahead may take: five seconds, if nothing is said."""
        return Deadline(WARM_UP_LIMIT_S, reserve_s=0.0, clock=self._clock) if context is None else context

    def _close(self) -> None:
        self._cache.close()
        for reader in self._readers.values():
            reader._close()  # noqa: SLF001 - of its own kind


def _pin_guard(settings: Settings, recorder: EventDispatcher) -> PinGuard | None:
    """Return what looks for statements that pin: behind RDS Proxy, or where `on_pin` asks for it."""
    closes = settings.is_proxy and settings.reset != "never"
    if settings.pin_action == "ignore" and not closes:
        return None
    from lambda_dbconn.proxy.guard import PinGuard

    return PinGuard(settings.engine, settings.address, action=settings.pin_action, closes=closes, emit=recorder.emit)


class ConnectionManager(BaseManager[C]):
    """Lends the execution environment's database connection; make it once, outside the handler.

    Making one reads files and imports the driver, but opens nothing. Threads may share it: each has one connection at
    most, and waits when `max_connections` are in use. After a fork the child opens its own connections.

    Args:
        settings: Where, as whom, within which limits.
        credentials: Instead of what the settings say: a provider, or a function that returns `Credentials`.
        observer: Told the events; by default they are logged.
        clock: Instead of the system's, for tests.
        driver: Instead of the engine's, for tests.

    Raises:
        ConfigurationError: The driver is not installed, or there is nothing to verify the server with.
    """

    def _load_driver(self) -> Driver[C]:
        return load_driver(self.settings.engine)

    def connection(self, context: InvocationContext | float | Deadline | None = None) -> Loan[C]:
        """Return a context manager that gives the connection in autocommit mode, for the length of a `with` block.

        A transaction that the block leaves open is rolled back, and on a direct endpoint the session is reset. Costs
        no round trip of its own while the cached connection is good; a block that follows the one before at once waits
        for its reset, so put one block around a loop. `docs/explanation/life-of-a-connection.md` has the rest.

        Args:
            context: The Lambda context, a number of seconds, or None for that of `invocation`: when everything ends,
                your statements too.

        Raises (on entry):
            ConnectionInUseError: This thread has a connection already, or none was released in time.
            ConnectError, CredentialsError, DeadlineExceededError, ConfigurationError: There is none to be had.

        Raises (at the end):
            TransactionLeftOpenError: A transaction was left open, and no other error is being raised.
        """
        return Loan(self._cache, context)

    def transaction(
        self,
        context: InvocationContext | float | Deadline | None = None,
        *,
        read_only: bool = False,
        isolation: str | None = None,
    ) -> TransactionLoan[C]:
        """Return a context manager that gives the connection inside BEGIN … COMMIT; an exception rolls back.

        Costs two round trips beside yours. Inside, the driver refuses `commit()` and `begin()`.

        Args:
            context: As in `connection`.
            read_only: Begin a read-only transaction.
            isolation: One of SQL's four levels in lower case, or None for the server's default. On MySQL it costs
                two round trips more, and one to set it back behind RDS Proxy or with `reset="never"`.

        Raises (on entry):
            As `connection`.

        Raises (at the end):
            CommitUnknownError: The connection was lost while COMMIT was on its way.
            DeadlineExceededError: COMMIT was not sent, and nothing was committed.
            TransactionAbortedError: A statement had failed and its error was caught inside (PostgreSQL), `rollback()`
                was called inside, or the transaction ended inside.
        """
        from lambda_dbconn.transaction import TransactionLoan  # who takes single statements does without

        return TransactionLoan(self._cache, context, read_only=read_only, isolation=isolation)

    def run(
        self,
        function: Callable[[C], R],
        context: InvocationContext | float | Deadline | None = None,
        *,
        attempts: int = 3,
        read_only: bool = False,
        isolation: str | None = None,
    ) -> R:
        """Run `function(connection)` in a transaction, and retry it when that is safe. Its SQL may be sent repeatedly.

        Retried are a deadlock, a serialization failure, a failover, a connection lost before COMMIT was sent, and a
        proxy that had no database connection to give; nothing of which a part may have been committed, and nothing
        after the deadline. Attempts that meet a read-only server do not count towards `attempts`: they end with
        `connect_timeout_s` or the deadline. Backoff is exponential with full jitter, within the retry budget.
        What `function` does outside the database may happen more than once.

        Raises:
            CommitUnknownError: The connection was lost while COMMIT was on its way; never retried.
            Exception: What the last attempt raised.
        """
        deadline = self._cache.deadline(context)
        tries = self._attempts(attempts, deadline)
        while True:
            loan = self.transaction(deadline, read_only=read_only, isolation=isolation)
            try:
                with loan as connection:
                    return function(connection)
            except Exception:
                pause_s = tries.pause_s(loan.failure)
                if pause_s is None:
                    raise
            self._clock.sleep(pause_s)

    @overload
    def with_connection(self, function: Callable[[E, X, C], R], /) -> Callable[[E, X], R]: ...

    @overload
    def with_connection(self, *, argument: str = "conn") -> Callable[[Callable[..., R]], Callable[..., R]]: ...

    def with_connection(self, function: Callable[..., Any] | None = None, *, argument: str = "conn") -> Any:
        """Decorate a handler `(event, context, conn)`, or any function whose caller passes a Lambda context.

        The function gets the connection by keyword, as `argument`.
        """
        from lambda_dbconn.decorators import inject_connection  # who does not decorate does without

        decorate = inject_connection(self.connection, argument=argument)
        return decorate if function is None else decorate(function)

    @overload
    def with_transaction(self, function: Callable[[E, X, C], R], /) -> Callable[[E, X], R]: ...

    @overload
    def with_transaction(self, *, argument: str = "conn") -> Callable[[Callable[..., R]], Callable[..., R]]: ...

    def with_transaction(self, function: Callable[..., Any] | None = None, *, argument: str = "conn") -> Any:
        """Decorate like `with_connection`, with the function's body inside a transaction."""
        from lambda_dbconn.decorators import inject_connection

        decorate = inject_connection(self.transaction, argument=argument)
        return decorate if function is None else decorate(function)

    def warm_up(self, context: InvocationContext | float | Deadline | None = None) -> bool:
        """Connect now, in the init phase; return whether it worked.

        Never fails the init: what went wrong is an event, `WarmUpFailed`, and a note on the error of the next loan if
        that fails as well.

        Args:
            context: As in `connection`. By default 5 seconds for everything but name resolution, half of what Lambda
                gives an init phase.
        """
        try:
            with self.connection(self._ahead(context)):
                return True
        except Exception as error:  # noqa: BLE001 - a user's provider may raise anything, and init must not fail
            self._connector.tell_failed_ahead(error)
            return False

    def close(self) -> None:
        """Close what is idle now, and what is in use at its release. The next acquire opens a new connection."""
        self._close()

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
