"""The composition root: one manager per settings and process."""

from __future__ import annotations

from lambda_dbconn._typing import TYPE_CHECKING, overload
from lambda_dbconn.clock import SystemClock
from lambda_dbconn.deadline import Deadline
from lambda_dbconn.manager import ConnectionManager
from lambda_dbconn.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Literal

    import psycopg
    import pymysql

    from lambda_dbconn.async_manager import AsyncConnectionManager
    from lambda_dbconn.credentials.secrets_manager import SecretsManagerProvider

_managers: dict[tuple[object, ...], ConnectionManager[Any]] = {}
_async_managers: dict[tuple[object, ...], AsyncConnectionManager[Any]] = {}
_secrets: dict[tuple[str | None, str | None], SecretsManagerProvider] = {}  # those that were read for settings


@overload
def from_env(
    prefix: str = "DB_", *, engine: Literal["postgresql"]
) -> ConnectionManager[psycopg.Connection[tuple[Any, ...]]]: ...


@overload
def from_env(prefix: str = "DB_", *, engine: Literal["mysql"]) -> ConnectionManager[pymysql.Connection[Any]]: ...


@overload
def from_env(prefix: str = "DB_", *, engine: None = None) -> ConnectionManager[Any]: ...


def from_env(prefix: str = "DB_", *, engine: str | None = None) -> ConnectionManager[Any]:
    """Return this process's manager for the environment's settings: asked twice, the same one.

    Reads and checks the settings and imports the driver; opens no connection. Call it outside the handler.

    With `SECRET_ID`, what is not set of engine, host and name is taken from the secret: it is read once, here, and what
    was read serves the first login as well. The secret's host is the database's own, never a proxy's. Set all three,
    and nothing is read before the first connection is opened.

    Args:
        prefix: Of the variables; several databases have several prefixes.
        engine: `postgresql` or `mysql`, for type checkers and against mistakes: settings that contradict it are a
            fault.

    Raises:
        ConfigurationError: With every fault at once, each naming its variable.
        CredentialsError: The secret was needed and could not be read.
    """
    settings = Settings.from_env(prefix, engine=engine, read_secret=_read_secret)
    known = _managers.get(settings.identity)
    if known is not None:
        return known
    # No lock: of two threads that get here at once both make a manager, and both return the first one's.
    return _managers.setdefault(settings.identity, ConnectionManager(settings, credentials=_provider(settings)))


def async_from_env(prefix: str = "DB_") -> AsyncConnectionManager[psycopg.AsyncConnection[tuple[Any, ...]]]:
    """Return this process's asyncio manager for the environment's settings, as `from_env` does; PostgreSQL only.

    Raises:
        ConfigurationError: With every fault at once, each naming its variable.
        CredentialsError: The secret was needed and could not be read.
    """
    from lambda_dbconn.async_manager import AsyncConnectionManager

    settings = Settings.from_env(prefix, engine="postgresql", read_secret=_read_secret)
    known = _async_managers.get(settings.identity)
    if known is not None:
        return known
    manager: AsyncConnectionManager[Any] = AsyncConnectionManager(settings, credentials=_provider(settings))
    return _async_managers.setdefault(settings.identity, manager)


def _provider(settings: Settings) -> SecretsManagerProvider | None:
    """Return the provider that has read the secret for the settings already, if there is one."""
    return _secrets.get((settings.secret_id, settings.region)) if settings.auth == "secret" else None


def _read_secret(secret_id: str, region: str | None) -> Mapping[str, Any]:
    """Return what the secret says of the settings; one read for all who ask."""
    from lambda_dbconn.credentials.secrets_manager import SecretsManagerProvider

    provider = _secrets.setdefault((secret_id, region), SecretsManagerProvider(secret_id, region=region))
    return provider.settings(Deadline(None, reserve_s=0.0, clock=SystemClock()))
