"""Loans that an exception strikes, and the loan after each, which must know nothing of it."""

from __future__ import annotations

import asyncio
import sys
import traceback
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import count, cycle
from typing import TYPE_CHECKING, Any

import psycopg
import pymysql
from pymysql.constants import SERVER_STATUS
from pymysql.cursors import SSCursor

from tests.support import async_access, strikes
from tests.support.clients import wait_until
from tests.support.leftovers import held

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator, Iterator, Sequence

    from lambda_dbconn import ConnectionManager
    from tests.support.database import Database

CONTEXT_S = 60.0  # more than any loan here takes
DRIVER_ERRORS = (psycopg.Error, pymysql.Error)
MOST_SESSIONS = 10  # of the function at any time: a server takes a moment to end those that were closed
MANY_ROWS = 50
_STRUCK = (strikes.Struck, strikes.StruckError, strikes.StruckExit)
_IN_TRANSACTION = SERVER_STATUS.SERVER_STATUS_IN_TRANS


@dataclass(frozen=True, kw_only=True)
class Sql:
    """One engine's words.

    Attributes:
        ask: Returns its parameter.
        many: Returns its parameter in many rows.
        leave: Each leaves something in the session.
        look: Returns its parameter, and what is left in the session.
        clean: What `look` returns after its parameter in a session without left-overs.
        make: Makes a temporary table, which must not be there.
    """

    ask: str
    many: str
    leave: tuple[str, ...]
    look: str
    clean: tuple[tuple[object, ...], ...]
    make: str = "CREATE TEMPORARY TABLE left_over (value int)"


POSTGRESQL = Sql(
    ask="SELECT %s::bigint",
    many=f"SELECT %s::bigint FROM generate_series(1, {MANY_ROWS})",
    leave=("SET app.left_over = 'here'", Sql.make, "SELECT pg_try_advisory_lock(4711)"),
    look="SELECT %s::bigint, current_setting('app.left_over', true), pg_current_xact_id_if_assigned()::text, "
    "(SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid())",
    clean=((None, None, 0), ("", None, 0)),  # a variable of one's own stays there, and is empty
)
MYSQL = Sql(
    ask="SELECT %s",
    many=f"SELECT %s FROM information_schema.columns LIMIT {MANY_ROWS}",
    leave=("SET @left_over = 1, SESSION sql_mode = 'ANSI_QUOTES'", Sql.make, "SELECT GET_LOCK('left_over', 0)"),
    look="SELECT %s, @left_over, @@sql_mode = 'ANSI_QUOTES', coalesce(IS_USED_LOCK('left_over') = CONNECTION_ID(), 0)",
    clean=((None, 0, 0),),
)


@dataclass
class Report:
    """How many places there were, and what became of the strikes.

    Attributes:
        places: Passed by a loan that is not struck.
        least: Calls and returns from C among them, as Python's own profiler counts them.
        tried: Loans that were run to be struck.
        raised: Of these, those that the strike or an error from it has ended.
        other: Those that the strike did not end: a destructor or an `except` of the driver's has taken it.
    """

    places: int = 0
    least: int = 0
    tried: int = 0
    raised: int = 0
    other: int = 0


@dataclass
class Loans:
    """Loans of one manager, struck and not.

    Attributes:
        database: What they are of.
        watches: Says of a file name whether places in it count.
    """

    database: Database
    watches: Callable[[str], bool] = lambda _name: True
    kept: BaseException | None = None  # the last strike, with its traceback and so the block, as a logger may keep it
    makes = False  # whether the next loan makes what the one before it may have left
    _values: Iterator[int] = field(default_factory=lambda: count(1_000_000))

    def __post_init__(self) -> None:
        self.sql = POSTGRESQL if self.database.is_postgresql else MYSQL
        clock = self.database.clock
        clock.sleep = clock.advance  # type: ignore[assignment]
        self._sessions_of_others = len(self.database.backend.session_ids())
        backend = self.database.backend
        backend.execute("DROP TABLE IF EXISTS struck")
        backend.execute("CREATE TABLE struck (value bigint)")
        backend.execute(f"GRANT SELECT, INSERT ON struck TO {backend.user}")

    @cached_property
    def db(self) -> ConnectionManager[Any]:
        """The manager, whose connections go straight to the server. Its pauses, before a retry, pass at once."""
        return self.database.manager(port=self.database.server.port)

    # --- the loans

    def connection(self) -> None:
        """Ask something, and get the answer to it."""
        with self.db.connection(CONTEXT_S) as conn:
            self._ask(conn)

    def transaction(self) -> None:
        """Write two rows, or none."""
        with self.db.transaction(CONTEXT_S) as conn:
            value = self._write(conn)
            self._write(conn, value)

    def error(self) -> None:
        """Fail in a transaction, at the server."""
        with suppress(*DRIVER_ERRORS), self.db.transaction(CONTEXT_S) as conn:
            self._write(conn)
            conn.cursor().execute("SELECT 1 FROM nowhere")

    def state(self) -> None:
        """Leave in the session whatever can be left."""
        with self.db.connection(CONTEXT_S) as conn:
            for statement in self.sql.leave:
                conn.cursor().execute(statement)
            self._ask(conn)

    def close(self) -> None:
        """Close the connection oneself."""
        with self.db.connection(CONTEXT_S) as conn:
            self._ask(conn)
            conn.close()

    def unread(self) -> None:
        """Leave rows unread, in a generator or a cursor that is still there after the block."""
        with self.db.connection(CONTEXT_S) as conn:
            value = next(self._values)
            if self.database.is_postgresql:
                rows = conn.cursor().stream(self.sql.many, (value,))
            else:
                rows = conn.cursor(SSCursor)
                rows.execute(self.sql.many, (value,))
            assert next(iter(rows)) == (value,)
        with suppress(*DRIVER_ERRORS):
            rows.close()

    def cold(self) -> None:
        """Connect."""
        self.db.close()
        self.connection()

    def _ask(self, conn: Any) -> None:
        value = next(self._values)
        cursor = conn.cursor()
        cursor.execute(self.sql.ask, (value,))
        assert cursor.fetchall() in ([(value,)], ((value,),))

    def _write(self, conn: Any, value: int = 0) -> int:
        value = value or next(self._values)
        conn.cursor().execute("INSERT INTO struck VALUES (%s)", (value,))
        return value

    # --- the loan after

    def after(self) -> None:
        """Be the next loan: get one's own answer, in a session without left-overs."""
        value = next(self._values)
        with self.db.connection(CONTEXT_S) as conn:
            assert conn is not None
            with closing(conn.cursor()) as cursor:
                cursor.execute(self.sql.look, (value,))
                self.assert_clean(conn, value, cursor.fetchall())
            if self.makes:
                conn.cursor().execute(self.sql.make)
        self.assert_nothing_lost()

    def assert_clean(self, conn: Any, value: int, rows: Sequence[tuple[object, ...]]) -> None:
        """Look that an answer is the one to `look` with this value, in a session without left-overs."""
        assert [row[0] for row in rows] == [value]
        assert rows[0][1:] in self.sql.clean
        assert is_idle(conn)

    def assert_nothing_lost(self) -> None:
        """Look at the slots."""
        stats = self.db.stats()
        assert (stats.in_use, stats.open) == (0, 1)

    def sessions(self) -> int:
        """Return how many sessions the function has at the server."""
        return len(self.database.backend.session_ids()) - self._sessions_of_others

    def assert_all_or_nothing(self) -> None:
        """Look that each transaction was carried out wholly or not at all."""
        halves = self.database.backend.query("SELECT value FROM struck GROUP BY value HAVING count(*) <> 2")
        assert list(halves) == []

    # --- strikes

    def strike(self, way: str, *, stride: int, raises: Sequence[type[BaseException]]) -> Report:
        """Run a loan struck at every `stride`-th place, and the next loan after each.

        Args:
            way: One of the loans' names.
            stride: 1 for each place.
            raises: What is raised, one after the other.
        """
        work: Callable[[], None] = getattr(self, way)
        self.makes = way == "state"
        report = Report()
        with only_strikes_in_destructors():
            for _ in range(3):  # until all is imported, and the session is warm
                work()
                self.after()
            report.places = strikes.count_places(work, self.watches)
            self.after()
            report.least = count_by_profiler(work, self.watches)
            self.after()
            descriptors = held("fd")
            for place, kind in zip(range(1, sys.maxsize, stride), cycle(raises)):
                if not self._strike(work, strikes.Strike(place, self.watches, kind), report):
                    break
                if report.tried % 50 == 0:
                    assert self.sessions() <= MOST_SESSIONS
        self.assert_all_or_nothing()
        wait_until(lambda: self.sessions() <= 1)
        assert held("fd") <= descriptors
        return report

    def _strike(self, work: Callable[[], None], strike: strikes.Strike, report: Report) -> bool:
        """Run a loan to be struck; return whether it was."""
        is_raised, self.kept = False, None
        try:
            with strike:
                work()
        except BaseException as error:
            if not comes_from_strike(error):
                error.add_note(f"struck at {strike.where or 'no place'}")
                raise
            is_raised, self.kept = True, strikes.kept(error, strike.where)
        if strike.left > 0:
            return False
        report.tried += 1
        report.raised += is_raised
        report.other += not is_raised
        try:
            self.after()
        except BaseException as error:
            error.add_note(f"after a strike at {strike.where}")
            raise
        return True


class AsyncLoans(Loans):
    """The same of an `AsyncConnectionManager`, each in an event loop of its own."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.watches = is_ours_or_psycopgs  # what strikes asyncio's own code may break the loop

    @cached_property
    def db(self) -> Any:
        """The manager, whose connections go straight to the server."""
        return async_access.manager(self.database, port=self.database.server.port)

    def connection(self) -> None:
        """As there."""
        asyncio.run(self._connection())

    def transaction(self) -> None:
        """As there."""
        asyncio.run(self._transaction())

    def error(self) -> None:
        """As there."""
        asyncio.run(self._error())

    def state(self) -> None:
        """As there."""
        asyncio.run(self._state())

    def close(self) -> None:
        """As there."""
        asyncio.run(self._close())

    def unread(self) -> None:
        """As there."""
        asyncio.run(self._unread())

    def cold(self) -> None:
        """As there."""
        asyncio.run(self._cold())

    def after(self) -> None:
        """As there."""
        asyncio.run(self._after())

    async def _connection(self) -> None:
        async with self.db.connection(CONTEXT_S) as conn:
            await self._ask_async(conn)

    async def _transaction(self) -> None:
        async with self.db.transaction(CONTEXT_S) as conn:
            value = await self._write_async(conn)
            await self._write_async(conn, value)

    async def _error(self) -> None:
        with suppress(*DRIVER_ERRORS):
            async with self.db.transaction(CONTEXT_S) as conn:
                await self._write_async(conn)
                await conn.execute("SELECT 1 FROM nowhere")

    async def _state(self) -> None:
        async with self.db.connection(CONTEXT_S) as conn:
            for statement in self.sql.leave:
                await conn.execute(statement)
            await self._ask_async(conn)

    async def _close(self) -> None:
        async with self.db.connection(CONTEXT_S) as conn:
            await self._ask_async(conn)
            await conn.close()

    async def _unread(self) -> None:
        async with self.db.connection(CONTEXT_S) as conn:
            value = next(self._values)
            rows = conn.cursor().stream(self.sql.many, (value,))
            assert await anext(rows) == (value,)
        with suppress(*DRIVER_ERRORS):
            await rows.aclose()

    async def _cold(self) -> None:
        await self.db.close()
        await self._connection()

    async def _after(self) -> None:
        value = next(self._values)
        async with self.db.connection(CONTEXT_S) as conn:
            assert conn is not None
            cursor = await conn.execute(self.sql.look, (value,))
            self.assert_clean(conn, value, await cursor.fetchall())
            if self.makes:
                await conn.execute(self.sql.make)
        self.assert_nothing_lost()

    async def _ask_async(self, conn: Any) -> None:
        value = next(self._values)
        cursor = await conn.execute(self.sql.ask, (value,))
        assert await cursor.fetchall() == [(value,)]

    async def _write_async(self, conn: Any, value: int = 0) -> int:
        value = value or next(self._values)
        await conn.execute("INSERT INTO struck VALUES (%s)", (value,))
        return value

    def cancel(self, way: str) -> Report:
        """Run a loan in a task that is cancelled at its first wait, then at its second, and so on."""
        loan: Callable[[], Coroutine[Any, Any, None]] = getattr(self, f"_{way}")
        self.makes = way == "state"
        report = Report()
        self.after()
        for place in count(1):
            cancelled = CancelledAt(loan(), place)
            try:
                asyncio.run(cancelled.run())
                report.other += 1
            except asyncio.CancelledError:
                report.raised += 1
            self.after()
            if cancelled.waits < place:
                break
            report.tried = report.places = place
        report.other -= 1
        self.assert_all_or_nothing()
        wait_until(lambda: self.sessions() <= 1)
        return report


class CancelledAt:
    """A coroutine whose task is cancelled at one of its waits.

    Attributes:
        waits: How many there were until its end.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, None], place: int) -> None:
        self._coroutine = coroutine
        self._place = place
        self.waits = 0

    async def run(self) -> None:
        """Run it."""
        await self

    def __await__(self) -> Generator[Any, Any, None]:
        advance: Callable[[], Any] = partial(self._coroutine.send, None)
        while True:
            try:
                future = advance()
            except StopIteration:
                return
            self.waits += 1
            task = asyncio.current_task()
            if self.waits == self._place and task is not None:
                task.cancel()
            try:
                yield future
                advance = partial(self._coroutine.send, None)
            except BaseException as error:
                advance = partial(self._coroutine.throw, error)


def is_ours_or_psycopgs(file_name: str) -> bool:
    """Say whether a file is the library's, psycopg's or this one."""
    return any(part in file_name for part in ("/lambda_dbconn/", "/psycopg/", "/struck_loans.py"))


def is_idle(conn: Any) -> bool:
    """Say whether no transaction is open, by the server's last word."""
    if isinstance(conn, pymysql.Connection):
        return not conn.server_status & _IN_TRANSACTION  # type: ignore[attr-defined] # not in its stubs
    return bool(conn.pgconn.transaction_status == psycopg.pq.TransactionStatus.IDLE)


def comes_from_strike(error: BaseException | None) -> bool:
    """Say whether an error is a strike, or was raised because of one."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, _STRUCK):
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False


def count_by_profiler(work: Callable[[], object], watches: Callable[[str], bool]) -> int:
    """Count Python's calls and the returns from C in `work`: each is a place where a signal handler may run."""
    seen = 0

    def profile(frame: Any, event: str, _argument: object) -> None:
        nonlocal seen
        seen += event in ("call", "c_return") and watches(frame.f_code.co_filename)

    sys.setprofile(profile)
    try:
        work()
    finally:
        sys.setprofile(None)
    return seen


@contextmanager
def only_strikes_in_destructors() -> Iterator[None]:
    """Let destructors be struck, and those of what a strike has left half made fail; none of the library's may.

    Python tells of what they raise, and goes on.
    """
    others: list[BaseException] = []
    hook = sys.unraisablehook

    def note(unraisable: Any) -> None:
        error = unraisable.exc_value
        if not comes_from_strike(error) and "/lambda_dbconn/" in traceback.extract_tb(error.__traceback__)[-1].filename:
            others.append(error)

    sys.unraisablehook = note
    try:
        yield
    finally:
        sys.unraisablehook = hook
    if others:
        raise others[0]
