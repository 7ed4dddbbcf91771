"""`Assembly`: what both managers are made of, put together from the settings."""

from __future__ import annotations

from lambda_dbconn.cache.cache import ConnectionCache
from lambda_dbconn.cache.policy import Attempts
from lambda_dbconn.cache.slot import Resources
from lambda_dbconn.clock import SystemClock
from lambda_dbconn.connector import Connector
from lambda_dbconn.credentials import provider_for
from lambda_dbconn.deadline import Deadline
from lambda_dbconn.light import TYPE_CHECKING, Generic, TypeVar
from lambda_dbconn.observers.logging import LoggingObserver
from lambda_dbconn.stats import Recorder

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Self

    from lambda_dbconn.clock import Clock
    from lambda_dbconn.credentials import CredentialProvider, Credentials
    from lambda_dbconn.deadline import InvocationContext
    from lambda_dbconn.description import Description
    from lambda_dbconn.drivers.driver import Driver
    from lambda_dbconn.events import Observer
    from lambda_dbconn.pin_guard import PinGuard
    from lambda_dbconn.settings import Settings
    from lambda_dbconn.stats import Stats

C = TypeVar("C")

WARM_UP_LIMIT_S = 5.0


class Assembly(Generic[C]):
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
        recorder = Recorder(self.observer)
        listen = getattr(self._credentials, "listen", None)
        if listen is not None:
            listen(recorder.tell)
        self._connector = Connector(
            settings,
            driver=self._driver,
            credentials=self._credentials,
            clock=self._clock,
            tell=recorder.tell,
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
        from lambda_dbconn.description import describe  # a cold start does without

        fallback = self._shared.fallback
        return describe(self.settings, self._credentials, fallback.address if fallback else None)

    def __repr__(self) -> str:
        stats = self.stats()
        return (
            f"<{type(self).__name__} {self.settings.engine} at {self.settings.address}: "
            f"{stats.open_now} open, {stats.lent_now} lent>"
        )

    def _ahead(self, context: InvocationContext | float | Deadline | None) -> InvocationContext | float | Deadline:
        """Return what connecting ahead may take: five seconds, if nothing is said."""
        return Deadline(WARM_UP_LIMIT_S, reserve_s=0.0, clock=self._clock) if context is None else context

    def _close(self) -> None:
        self._cache.close()
        for reader in self._readers.values():
            reader._close()  # noqa: SLF001 - of its own kind


def _pin_guard(settings: Settings, recorder: Recorder) -> PinGuard | None:
    """Return what looks for statements that pin: behind RDS Proxy, or where `on_pin` asks for it."""
    closes = settings.is_proxy and settings.reset != "never"
    if settings.pin_action == "ignore" and not closes:
        return None
    from lambda_dbconn.pin_guard import PinGuard

    return PinGuard(settings.engine, settings.address, action=settings.pin_action, closes=closes, emit=recorder.tell)
