"""The public API as a type checker sees it: this file is checked and never run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, assert_type

import psycopg
from aws_lambda_powertools import Logger, Metrics

from lambda_dbconn import (
    AsyncConnectionManager,
    ConnectionManager,
    Credentials,
    Secret,
    Settings,
    Stats,
    async_from_env,
    from_env,
)
from lambda_dbconn.describe import Description
from lambda_dbconn.observers.composite import CompositeObserver
from lambda_dbconn.observers.emf import EmfObserver
from lambda_dbconn.observers.logging import LoggingObserver
from lambda_dbconn.observers.opentelemetry import OpenTelemetryObserver
from lambda_dbconn.observers.powertools import PowertoolsObserver
from lambda_dbconn.testing.fakes import (
    FakeClock,
    FakeConnection,
    FakeContext,
    FakeDriver,
    FakeServer,
    RecordingObserver,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    import pymysql

    from lambda_dbconn import CredentialProvider
    from lambda_dbconn.deadline import Clock
    from lambda_dbconn.drivers.driver import Driver
    from lambda_dbconn.drivers.mysql import MysqlDriver
    from lambda_dbconn.drivers.mysql_connection import Connection as MysqlConnection
    from lambda_dbconn.drivers.postgresql import PostgresqlDriver
    from lambda_dbconn.drivers.postgresql_connection import Connection as PostgresqlConnection
    from lambda_dbconn.events import Observer

Row = tuple[Any, ...]


class Context:
    """What Lambda passes."""

    def get_remaining_time_in_millis(self) -> int:
        """Return milliseconds."""
        return 3000


# --- the engine gives the connection's type

pg = from_env(engine="postgresql")
my = from_env(prefix="SHOP_", engine="mysql")
either = from_env()

assert_type(pg, ConnectionManager[psycopg.Connection[Row]])
assert_type(my, ConnectionManager["pymysql.Connection[Any]"])
assert_type(either, ConnectionManager[Any])
assert_type(pg.reader, ConnectionManager[psycopg.Connection[Row]])
assert_type(pg.describe(), Description)
assert_type(pg.describe().switched_off, tuple[str, ...])
assert_type(pg.settings.is_proxy, bool)

both = CompositeObserver(LoggingObserver(), EmfObserver("Shop", {"stage": "prod"}), OpenTelemetryObserver())
assert_type(from_env(engine="postgresql", observer=both), ConnectionManager[psycopg.Connection[Row]])
assert_type(from_env("SHOP_", observer=PowertoolsObserver(logger=Logger(), metrics=Metrics())), ConnectionManager[Any])
from_env(observer=print)  # type: ignore[call-overload] # it has no on_event

from_env(engine="oracle")  # type: ignore[call-overload] # there are two

# --- lending

with pg.connection() as pg_conn:
    assert_type(pg_conn, psycopg.Connection[Row])
    with pg_conn.cursor() as pg_cursor:
        assert_type(pg_cursor.execute("select 1").fetchall(), list[Row])

with my.transaction(Context(), read_only=True, isolation="serializable") as my_conn:
    assert_type(my_conn, "pymysql.Connection[Any]")

with either.connection(1.5) as any_conn:
    assert_type(any_conn, Any)

pg.connection("soon")  # type: ignore[arg-type] # neither a context nor a number

# --- run


def count(conn: psycopg.Connection[Row]) -> int:
    """Return something."""
    return len(conn.execute("select 1").fetchall())


assert_type(pg.run(count), int)
assert_type(pg.run(count, Context(), attempts=5, read_only=True), int)
assert_type(pg.run(lambda conn: conn.info.server_version), int)
my.run(count)  # type: ignore[arg-type] # another driver's connection

# --- asyncio

apg = async_from_env()
assert_type(apg, AsyncConnectionManager[psycopg.AsyncConnection[Row]])
assert_type(apg.reader, AsyncConnectionManager[psycopg.AsyncConnection[Row]])


async def count_async(conn: psycopg.AsyncConnection[Row]) -> int:
    """Return something."""
    return len(await (await conn.execute("select 1")).fetchall())


async def work() -> None:
    """Await what there is."""
    async with apg.connection(Context()) as conn:
        assert_type(conn, psycopg.AsyncConnection[Row])
    async with apg.transaction(1.5, read_only=True, isolation="serializable") as conn:
        assert_type(await (await conn.execute("select 1")).fetchone(), Row | None)
    assert_type(await apg.run(count_async, Context(), attempts=5), int)
    assert_type(await apg.warm_up(), bool)
    await apg.close()
    await apg.run(count)  # type: ignore[arg-type] # it is not awaited
    with apg.connection():  # type: ignore[attr-defined] # it is
        pass


# --- decorators


@pg.with_connection
def handler(event: dict[str, str], context: Context, conn: psycopg.Connection[Row]) -> list[Row]:
    """Return every row."""
    return conn.execute("select * from employee").fetchall()


@my.with_transaction
def writer(event: int, context: Context, conn: pymysql.Connection[Any]) -> None:
    """Write."""


@pg.with_connection(argument="database")
def job(number: int, *, database: psycopg.Connection[Row]) -> int:
    """Return something."""
    return number


assert_type(handler({}, Context()), list[Row])
handler_type: Callable[[dict[str, str], Context], list[Row]] = handler
writer_type: Callable[[int, Context], None] = writer
assert_type(job(7), int)

handler("event", Context())  # type: ignore[arg-type] # not the handler's event


@pg.with_connection  # type: ignore[arg-type] # another driver's connection
def mistaken(event: int, context: Context, conn: pymysql.Connection[Any]) -> None:
    """Do nothing."""


# --- the rest

assert_type(pg.warm_up(Context()), bool)
assert_type(pg.stats(), Stats)
assert_type(pg.settings, Settings)
assert_type(Settings.from_env("SHOP_", environ={}), Settings)
assert_type(Secret("x").reveal(), str)

settings = Settings(engine="mysql", host="localhost", port=3306, user="app", password=Secret("x"))
assert_type(settings.replace(port=3307), Settings)
settings.port = 1  # type: ignore[misc] # frozen
Settings("mysql")  # type: ignore[call-arg] # by keyword only
Settings(engine="mysql", host="localhost", port=3306, hostname="x")  # type: ignore[call-arg] # no such field
Settings(engine="mysql", host="localhost", port=3306, password="x")  # type: ignore[arg-type] # not a Secret


# --- the protocols and who keeps to them


class Vault:
    """Somebody's own provider."""

    def fetch(self, settings: Settings, deadline: object) -> Credentials:
        """Return credentials."""
        return Credentials(user="app", password=Secret("x"))

    def refused(self, credentials: Credentials) -> bool:
        """Say that there are no others."""
        return False


server = FakeServer()
provider: CredentialProvider = Vault()
observer: Observer = RecordingObserver()
clock: Clock = FakeClock()
driver: Driver[FakeConnection] = FakeDriver(server)

db = ConnectionManager(settings, credentials=provider, observer=observer, clock=clock, driver=driver)
assert_type(db, ConnectionManager[FakeConnection])
with db.connection(FakeContext(FakeClock(), 3.0)) as fake:
    assert_type(fake, FakeConnection)
    assert_type(fake.execute("select 1").fetchall(), list[Row])


def drivers(one: PostgresqlDriver, two: MysqlDriver) -> tuple[Driver[PostgresqlConnection], Driver[MysqlConnection]]:
    """Be what they say they are."""
    return one, two
