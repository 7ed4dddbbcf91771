"""The two drivers behind one protocol. Importing this package imports neither."""

from __future__ import annotations

from lambda_dbconn._typing import TYPE_CHECKING
from lambda_dbconn.errors import ConfigurationError

if TYPE_CHECKING:
    from typing import Any

    from lambda_dbconn.drivers.driver import Driver


def load_driver(engine: str) -> Driver[Any]:
    """Import and return the driver for `postgresql` or `mysql`: about 150 or 40 ms, paid once, by the one used.

    Raises:
        ConfigurationError: The driver is not installed, with the extra that brings it.
    """
    try:
        if engine == "postgresql":
            from lambda_dbconn.drivers.postgresql import PostgresqlDriver

            return PostgresqlDriver()
        from lambda_dbconn.drivers.mysql import MysqlDriver

        return MysqlDriver()
    except ImportError as exc:
        raise _missing(engine, exc) from exc


def load_async_driver() -> Driver[Any]:
    """Import and return the driver for asyncio, which is PostgreSQL's.

    Raises:
        ConfigurationError: psycopg is not installed, with the extra that brings it.
    """
    try:
        from lambda_dbconn.drivers.async_postgresql import AsyncPostgresqlDriver
    except ImportError as exc:
        raise _missing("postgresql", exc) from exc
    # What may wait is a coroutine there: whoever lends with it awaits its steps.
    driver: Driver[Any] = AsyncPostgresqlDriver()  # type: ignore[assignment]
    return driver


def _missing(engine: str, exc: ImportError) -> ConfigurationError:
    package = {"postgresql": "psycopg", "mysql": "PyMySQL"}[engine]
    return ConfigurationError(
        f"the engine is {engine}, but its driver cannot be imported ({exc})",
        remedy=f"Install lambda-dbconn[{engine}], which brings {package}, into the function or its layer.",
    )
