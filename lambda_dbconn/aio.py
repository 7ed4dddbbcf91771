"""`AsyncConnectionManager`: `ConnectionManager` for `asyncio.run` inside a handler; PostgreSQL only."""

from __future__ import annotations

import asyncio
from functools import partial

from lambda_dbconn._threads import in_thread_now, in_thread_unless_cancelled
from lambda_dbconn._values import TYPE_CHECKING, Generic, TypeVar
from lambda_dbconn.cache.loan import BaseLoan
from lambda_dbconn.cache.owner import current_thread_token
from lambda_dbconn.cache.sansio import run_async
from lambda_dbconn.deadline import SystemClock
from lambda_dbconn.drivers import load_async_driver, load_driver
from lambda_dbconn.errors import ConfigurationError
from lambda_dbconn.manager import BaseManager
from lambda_dbconn.transaction import Transaction

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType
    from typing import Any

    from lambda_dbconn.cache.connector import Connector
    from lambda_dbconn.cache.owner import Actor
    from lambda_dbconn.deadline import Clock, Deadline, InvocationContext
    from lambda_dbconn.doctor import Diagnosis
    from lambda_dbconn.drivers.driver import Driver

C = TypeVar("C")
R = TypeVar("R")


class AsyncConnectionManager(BaseManager[C]):
    """Lends the execution environment's database connection to coroutines; make it once, outside the handler.

    Connections outlive the event loop: each `asyncio.run` finds the one before it. Tasks may share the manager: each
    has one connection at most, and waits when `max_connections` are in use. The rest is as in `ConnectionManager`.

    Opening runs in a thread of its own, for looking up names and getting credentials may block; it ends when the
    connection is open.

    Args:
        settings: Where, as whom, within which limits.
        credentials: Instead of what the settings say: a provider, or a function that returns `Credentials`.
        observer: Told the events; by default they are logged.
        clock: Instead of the system's, for tests.
        driver: Instead of psycopg, for tests: with coroutines for `ping`, `begin`, `commit`, `rollback`, `read_rest`,
            `put_back_tracked` and `finish_reset`.

    Raises:
        ConfigurationError: The engine is `mysql`; psycopg is not installed; there is nothing to verify the server with.
    """

    def _load_driver(self) -> Driver[C]:
        if self.settings.engine != "postgresql":
            raise ConfigurationError(
                f"{self.settings.variable('engine')} is {self.settings.engine!r}; accepted with asyncio: postgresql",
                remedy="PyMySQL cannot be awaited: use ConnectionManager, in a thread of its own if need be.",
            )
        return load_async_driver()

    @staticmethod
    def _sleep_by(clock: Clock) -> Callable[[float], Any]:
        async def sleep(seconds: float) -> None:
            if isinstance(clock, SystemClock):
                await asyncio.sleep(seconds)
            else:  # a test's
                clock.sleep(seconds)
                await asyncio.sleep(0)

        return sleep

    def _carried_out(self, connector: Connector[C]) -> _ThreadedConnector[C]:
        return _ThreadedConnector(connector, self._driver)

    def connection(self, context: InvocationContext | float | Deadline | None = None) -> AsyncLoan[C]:
        """Return a context manager that gives the connection in autocommit mode.

        As `ConnectionManager.connection`, by task instead of by thread.
        """
        return AsyncLoan(self._cache, context)

    def transaction(
        self,
        context: InvocationContext | float | Deadline | None = None,
        *,
        read_only: bool = False,
        isolation: str | None = None,
    ) -> AsyncTransactionLoan[C]:
        """Return a context manager that gives the connection inside BEGIN … COMMIT, as `ConnectionManager.transaction`.

        A task that is cancelled while COMMIT is on its way does not learn what became of it.
        """
        return AsyncTransactionLoan(self._cache, context, read_only=read_only, isolation=isolation)

    async def run(
        self,
        function: Callable[[C], Awaitable[R]],
        context: InvocationContext | float | Deadline | None = None,
        *,
        attempts: int = 3,
        read_only: bool = False,
        isolation: str | None = None,
    ) -> R:
        """Await `function(connection)` in a transaction, and again when that is safe, as `ConnectionManager.run`."""
        deadline = self._cache.deadline(context)
        tries = self._attempts(attempts, deadline)
        while True:
            loan = self.transaction(deadline, read_only=read_only, isolation=isolation)
            try:
                async with loan as connection:
                    return await function(connection)
            except Exception:
                pause_s = tries.pause_s(loan.failure)
                if pause_s is None:
                    raise
            await self._shared.sleep(pause_s)

    async def warm_up(self, context: InvocationContext | float | Deadline | None = None) -> bool:
        """Connect now, in the init phase; return whether it worked. As `ConnectionManager.warm_up`."""
        try:
            async with self.connection(self._ahead(context)):
                return True
        except Exception as error:  # noqa: BLE001 - as there
            self._connector.tell_failed_ahead(error)
            return False

    def warm_up_now(self, context: InvocationContext | float | Deadline | None = None) -> bool:
        """Do so and wait for it, whether or not an event loop is running: for `from_env`, at import."""
        return in_thread_now(lambda: asyncio.run(self.warm_up(context)))

    async def close(self) -> None:
        """Close what is idle now, and what is in use at its release. The next acquire opens a new connection."""
        self._close()

    async def doctor(self, context: InvocationContext | float | Deadline | None = None) -> Diagnosis:
        """Find out what is wrong between here and the server, as `ConnectionManager.doctor`; in a thread."""
        from lambda_dbconn.doctor import examine  # who is well does without

        driver: Driver[Any] = load_driver(self.settings.engine)
        credentials, clock = self._credentials, self._clock
        examination = partial(
            examine, self.settings, context=context, credentials=credentials, driver=driver, clock=clock
        )
        return await in_thread_unless_cancelled(examination, undo=lambda _: None)  # it closes what it opens


class AsyncLoan(BaseLoan[C]):
    """The context manager that `connection()` returns."""

    async def __aenter__(self) -> C:
        return await run_async(self._enter(_current_actor()))

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await run_async(self._exit(error))
        except BaseException:
            self._abandon()
            raise


class AsyncTransactionLoan(AsyncLoan[C], Transaction[C]):
    """The context manager that `transaction()` returns."""


def _current_actor() -> Actor:
    return asyncio.current_task() or current_thread_token()


class _ThreadedConnector(Generic[C]):
    """A `Connector` whose `open` is awaited while a thread does it."""

    def __init__(self, connector: Connector[C], driver: Driver[C]) -> None:
        self._connector = connector
        self._driver = driver
        self.address = connector.address
        self.interrupt = connector.interrupt
        self.forget = connector.forget
        self.refuse = connector.refuse

    async def open(self, deadline: Deadline) -> tuple[C, int]:
        """Return a new connection and how many tries it took; a task that is cancelled gets none, and none stays."""
        opened = await in_thread_unless_cancelled(
            self._connector.open, deadline, undo=lambda opened: self._driver.close(opened[0])
        )
        connection: Any = opened[0]
        connection.interrupt = self.interrupt
        return opened
