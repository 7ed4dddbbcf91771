"""`Assembly`: what both managers are made of, put together from the settings."""

from __future__ import annotations

from lambda_dbconn._typing import TYPE_CHECKING, Generic, TypeVar
from lambda_dbconn.clock import SystemClock
from lambda_dbconn.connector import Connector
from lambda_dbconn.credentials.selection import provider_for
from lambda_dbconn.lender import Lender
from lambda_dbconn.observers.logging import LoggingObserver
from lambda_dbconn.stats import Recorder
from lambda_dbconn.upkeep import Upkeep

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Self

    from lambda_dbconn.clock import Clock
    from lambda_dbconn.credentials import CredentialProvider, Credentials
    from lambda_dbconn.drivers.driver import Driver
    from lambda_dbconn.events import Observer
    from lambda_dbconn.settings import Settings
    from lambda_dbconn.stats import Stats

C = TypeVar("C")


class Assembly(Generic[C]):
    """Settings, credentials, driver, lender and observer of one endpoint, and of its reader.

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
        self._observer: Observer = observer if observer is not None else LoggingObserver()
        self._clock: Clock = clock if clock is not None else SystemClock()
        self._credentials = provider_for(settings, credentials, clock=self._clock)
        self._driver: Driver[C] = driver if driver is not None else self._load_driver()
        recorder = Recorder(self._observer)
        listen = getattr(self._credentials, "listen", None)
        if listen is not None:
            listen(recorder.tell)
        connector = Connector(
            settings, driver=self._driver, credentials=self._credentials, clock=self._clock, tell=recorder.tell
        )
        upkeep = Upkeep(
            settings,
            driver=self._driver,
            connector=self._carried_out(connector),
            recorder=recorder,
            clock=self._clock,
        )
        self._lender = Lender(settings, upkeep=upkeep, recorder=recorder, clock=self._clock)
        self._readers: dict[str, Self] = {}  # one at most

    def _load_driver(self) -> Driver[C]:
        raise NotImplementedError

    def _carried_out(self, connector: Connector[C]) -> Any:
        """Return the connector with its calls as this manager carries them out."""
        return connector

    @property
    def reader(self) -> Self:
        """The manager for the read-only endpoint when `reader_host` is set, else this one."""
        host = self.settings.reader_host
        if host is None or host == self.settings.host:
            return self
        known = self._readers.get(host)
        if known is not None:
            return known
        manager = type(self)(
            self.settings.replace(host=host, signing_host=None),
            credentials=self._credentials,
            observer=self._observer,
            clock=self._clock,
            driver=self._driver,
        )
        return self._readers.setdefault(host, manager)

    def stats(self) -> Stats:
        """Return a snapshot of the counters; the reader has its own."""
        return self._lender.stats()

    def __repr__(self) -> str:
        stats = self.stats()
        return (
            f"<{type(self).__name__} {self.settings.engine} at {self.settings.address}: "
            f"{stats.open_now} open, {stats.lent_now} lent>"
        )

    def _close(self) -> None:
        self._lender.close()
        for reader in self._readers.values():
            reader._close()  # noqa: SLF001 - of its own kind
