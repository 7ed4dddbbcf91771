"""The composition root: one manager per settings and process."""

from __future__ import annotations

from lambda_dbconn._typing import TYPE_CHECKING, overload
from lambda_dbconn.manager import ConnectionManager
from lambda_dbconn.settings import Settings

if TYPE_CHECKING:
    from typing import Any, Literal

    import psycopg
    import pymysql

_managers: dict[tuple[object, ...], ConnectionManager[Any]] = {}


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

    Reads and checks the settings and imports the driver; opens nothing. Call it outside the handler.

    Args:
        prefix: Of the variables; several databases have several prefixes.
        engine: `postgresql` or `mysql`, for type checkers and against mistakes: settings that contradict it are a
            fault.

    Raises:
        ConfigurationError: With every fault at once, each naming its variable.
    """
    settings = Settings.from_env(prefix, engine=engine)
    known = _managers.get(settings.identity)
    if known is not None:
        return known
    # No lock: of two threads that get here at once both make a manager, and both return the first one's.
    return _managers.setdefault(settings.identity, ConnectionManager(settings))
