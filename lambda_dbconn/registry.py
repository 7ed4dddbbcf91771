"""The composition root: one manager per settings and process."""

from __future__ import annotations

from lambda_dbconn._values import TYPE_CHECKING, overload
from lambda_dbconn.cache.process import watch_memory
from lambda_dbconn.deadline import Deadline, SystemClock
from lambda_dbconn.errors import ConfigurationError
from lambda_dbconn.manager import WARM_UP_LIMIT_S, ConnectionManager
from lambda_dbconn.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, Literal

    import psycopg
    import pymysql

    from lambda_dbconn.aio import AsyncConnectionManager
    from lambda_dbconn.credentials.secrets_manager import SecretsManagerProvider
    from lambda_dbconn.events import Observer
    from lambda_dbconn.manager import BaseManager

_managers: dict[tuple[object, ...], ConnectionManager[Any]] = {}
_async_managers: dict[tuple[object, ...], AsyncConnectionManager[Any]] = {}
_secrets: dict[tuple[str | None, str | None], SecretsManagerProvider] = {}  # those that were read for settings
_warm_ups_took_s: list[float] = []  # they share the init phase


@overload
def from_env(
    prefix: str = "DB_", *, engine: Literal["postgresql"], observer: Observer | None = None
) -> ConnectionManager[psycopg.Connection[tuple[Any, ...]]]: ...


@overload
def from_env(
    prefix: str = "DB_", *, engine: Literal["mysql"], observer: Observer | None = None
) -> ConnectionManager[pymysql.Connection[Any]]: ...


@overload
def from_env(
    prefix: str = "DB_", *, engine: None = None, observer: Observer | None = None
) -> ConnectionManager[Any]: ...


def from_env(
    prefix: str = "DB_", *, engine: str | None = None, observer: Observer | None = None
) -> ConnectionManager[Any]:
    """Return this process's manager for the environment's settings: asked twice, the same one.

    Reads and checks the settings and imports the driver. Opens no connection, unless `WARM_UP` says so. Call it
    outside the handler.

    With `SECRET_ID`, what is not set of engine, host and name is taken from the secret: it is read once, here, and what
    was read serves the first login as well. The secret's host is the database's own, never a proxy's. Set all three,
    and nothing is read before the first connection is opened.

    Args:
        prefix: Of the variables; several databases have several prefixes.
        engine: `postgresql` or `mysql`, for type checkers and against mistakes: settings that contradict it are a
            fault.
        observer: Told the events; by default they are logged. Who does not give one takes the manager as it is.

    Raises:
        ConfigurationError: With every fault at once, each naming its variable. Or the manager for these settings is
            there already, and tells another observer.
        CredentialsError: The secret was needed and could not be read.
    """
    settings = Settings.from_env(prefix, engine=engine, read_secret=_read_secret)
    manager = _managers.get(settings.identity)
    if manager is None:
        # No lock: of two threads that get here at once both make a manager, and both return the first one's.
        made: ConnectionManager[Any] = ConnectionManager(settings, credentials=_provider(settings), observer=observer)
        manager = _managers.setdefault(settings.identity, made)
        if manager is made and settings.warm_up == "init":
            _warm_up(manager.warm_up)
    _check_observer(manager, observer)
    return manager


def async_from_env(
    prefix: str = "DB_", *, observer: Observer | None = None
) -> AsyncConnectionManager[psycopg.AsyncConnection[tuple[Any, ...]]]:
    """Return this process's asyncio manager for the environment's settings, as `from_env` does; PostgreSQL only.

    Args:
        prefix: Of the variables.
        observer: As in `from_env`.

    Raises:
        ConfigurationError: With every fault at once, each naming its variable. Or as `from_env` has it.
        CredentialsError: The secret was needed and could not be read.
    """
    from lambda_dbconn.aio import AsyncConnectionManager

    settings = Settings.from_env(prefix, engine="postgresql", read_secret=_read_secret)
    manager = _async_managers.get(settings.identity)
    if manager is None:
        made: AsyncConnectionManager[Any] = AsyncConnectionManager(
            settings, credentials=_provider(settings), observer=observer
        )
        manager = _async_managers.setdefault(settings.identity, made)
        if manager is made and settings.warm_up == "init":
            _warm_up(manager.warm_up_now)
    _check_observer(manager, observer)
    return manager


def _provider(settings: Settings) -> SecretsManagerProvider | None:
    """Return the provider that has read the secret for the settings already, if there is one."""
    return _secrets.get((settings.secret_id, settings.region)) if settings.auth == "secret" else None


def _check_observer(manager: BaseManager[Any], observer: Observer | None) -> None:
    if observer not in (None, manager.observer):
        raise ConfigurationError(
            f"the argument observer is a {type(observer).__name__}, but the manager for these settings tells another "
            f"{type(manager.observer).__name__} already; accepted: the same object wherever it is given, from the "
            "first call of from_env on"
        )


def _warm_up(connect: Callable[[Deadline], bool]) -> None:
    """Connect ahead, in what earlier ones have left of the time for that."""
    clock = SystemClock()
    began = clock.monotonic()
    connect(Deadline(WARM_UP_LIMIT_S - sum(_warm_ups_took_s), reserve_s=0.0, clock=clock))
    _warm_ups_took_s.append(clock.monotonic() - began)


def _read_secret(secret_id: str, region: str | None) -> Mapping[str, Any]:
    """Return what the secret says of the settings; one read for all who ask."""
    from lambda_dbconn.credentials.secrets_manager import SecretsManagerProvider

    provider = _secrets.setdefault((secret_id, region), SecretsManagerProvider(secret_id, region=region))
    watch_memory(provider)
    return provider.settings(Deadline(None, reserve_s=0.0, clock=SystemClock()))
