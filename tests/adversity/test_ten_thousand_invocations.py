"""Ten thousand invocations, with rotations, expiries, outages and refusals in between.

None fails that should not, none that should gets through, and no statement is sent twice: the table that they write to
and the proxy's record of what it was sent are the witnesses. Another order of events: set `LONG_RUN_SEED`.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from contextlib import closing, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import psycopg
import pymysql
import pytest
from pymysql.cursors import SSCursor

from lambda_dbconn import CommitUnknownError, TransactionLeftOpenError
from lambda_dbconn.testing.certificates import Certificates
from lambda_dbconn.testing.rds_proxy import LocalRdsProxy
from lambda_dbconn.testing.relay import FaultRelay
from tests.support.access import IamAccess, ReadsOfSecrets, SecretAccess
from tests.support.long_run import REMAINING_S, TOO_LITTLE_S, EventfulClock, Life
from tests.support.secrets_manager import LocalSecretsManager, local_secrets_manager

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lambda_dbconn import ConnectionManager
    from lambda_dbconn.testing.fakes import FakeContext
    from lambda_dbconn.testing.servers import LocalServer

pytestmark = pytest.mark.long

INVOCATIONS = 2_500  # of each of the four
SEED = int(os.environ.get("LONG_RUN_SEED", "20261122"))
PROXY = "local.proxy-cexample0000.us-east-1.rds.amazonaws.com"
TABLE = "invocations"
DRIVER_ERRORS = (psycopg.Error, pymysql.Error)


class OwnError(Exception):
    """The handler's own."""


# How often each thing happens, for each of the four: dozens of each kind in all.
PASSING = {
    Life.freeze: 36,
    Life.expire_token: 12,
    Life.lose_path: 12,
    Life.restart_proxy: 12,
    Life.cut_idle_client: 12,
    Life.kill_sessions: 16,
    Life.fail_over: 16,
    Life.refuse_in_passing: 24,
    Life.recover_in_time: 12,
    Life.cold_start: 12,
}
KEY_REPLACEMENTS, ROTATION_STEPS = 24, 64
REFUSALS_OF_A_KIND = STRIKES_OF_A_KIND = 12

# How often a handler of each kind is invoked when nothing in particular is to happen, in parts of a hundred.
HANDLERS = {
    "insert": 40,
    "insert_two": 22,
    "read": 16,
    "fail": 4,
    "fail_in_transaction": 3,
    "leave_open": 3,
    "fail_in_routine": 4,
    "leave_unread": 3,
    "send_values": 5,
}
STRIKES = ("lose_answer", "lose_statement", "lose_answer_to_commit", "lose_commit", "lose_database", "interrupt")
ERRORS = {
    "fail": OwnError,
    "fail_in_transaction": OwnError,
    "leave_open": TransactionLeftOpenError,
    "fail_in_routine": DRIVER_ERRORS,
    "interrupt": OwnError,
    "lose_answer": DRIVER_ERRORS,
    "lose_statement": DRIVER_ERRORS,
    "lose_answer_to_commit": CommitUnknownError,
    "lose_commit": CommitUnknownError,
    "lose_database": DRIVER_ERRORS,
}

# What a routine does that fails, by engine: in MySQL it leaves a transaction open, and its caller none the wiser.
ROUTINE = f"failing_{TABLE}"
MAKE_ROUTINE = {
    "postgresql": f"CREATE FUNCTION {ROUTINE}(number int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN "
    f"INSERT INTO {TABLE} VALUES (number, 1); PERFORM set_config('work_mem', '1MB', true); RAISE 'refused'; END $$",
    "mysql": f"CREATE PROCEDURE {ROUTINE}(number int) SQL SECURITY INVOKER BEGIN START TRANSACTION; "
    f"INSERT INTO {TABLE} VALUES (number, 1); SIGNAL SQLSTATE '45000' SET message_text = 'refused'; COMMIT; END",
}
CALL_ROUTINE = {"postgresql": f"SELECT {ROUTINE}(%d)", "mysql": f"CALL {ROUTINE}(%d)"}
SLEEP = {"postgresql": "SELECT pg_sleep(0.3)", "mysql": "SELECT SLEEP(0.3)"}
INTERRUPT_AFTER_S = 0.03
VALUES = (
    "'; SET @a = 1; -- ",
    "/*! SET @b = 1 */ /* LISTEN x",
    "x', true), set_config('work_mem', '1MB', false), ('",
    "\\'; LOCK TABLES x READ; # \\",
    '$$; DECLARE c CURSOR WITH HOLD FOR SELECT 1; $$ U&"\\0061" `',
    "GET_LOCK('x', 0) INTO @c; CREATE TEMPORARY TABLE t (i int)",
)


def interrupt(*_: object) -> None:
    """Be the handler of SIGALRM: the handler's own limit of time."""
    raise OwnError


class Function:
    """The user's code, and what the proxy must have been sent by it, and the table must hold of it.

    Attributes:
        count: Invocations until now.
        rows: What was written to stay, by invocation and part.
        sent: Statements that must have reached the proxy once.
        may_be_sent: Statements that may have.
        outcomes: How many invocations succeeded, or failed as they had to, by error.
    """

    def __init__(self, life: Life) -> None:
        self._life = life
        self.count = 0
        self.rows: set[tuple[int, int]] = set()
        self.sent: set[str] = set()
        self.may_be_sent: set[str] = set()
        self.outcomes: Counter[str] = Counter()
        self._last = 0
        self._late: list[Any] = []  # rows that nobody has read, and that are given up in a later invocation
        self._engine = life.server.engine

    @property
    def _db(self) -> ConnectionManager[Any]:
        return self._life.environments[-1]

    def invoke(self, handler: str = "", *, error: Any = None, has_time: bool = True) -> None:
        """Have one invocation, which must end with this error, or by itself."""
        self.count += 1
        handler = handler or self._life.chance.choices(list(HANDLERS), list(HANDLERS.values()))[0]
        error = error or ERRORS.get(handler)
        with self._life.invocation(remaining_s=REMAINING_S if has_time else TOO_LITTLE_S) as context:
            if error is None:
                getattr(self, handler)(self.count, context)
                self.outcomes["succeeded"] += 1
                return
            with pytest.raises(error) as caught:
                getattr(self, handler)(self.count, context)
            assert error is DRIVER_ERRORS or caught.type is error
            name = "driver's error" if error is DRIVER_ERRORS else caught.type.__name__
            self.outcomes[name] += 1
            if handler in STRIKES:
                self._life.is_connected = False

    # --- handlers as users write them

    def insert(self, number: int, context: FakeContext) -> None:
        @self._db.with_connection
        def handler(event: int, context: FakeContext, conn: Any) -> None:
            self._write(conn, event, 1)

        handler(number, context)
        self._keep(number, 1)

    def insert_two(self, number: int, context: FakeContext) -> None:
        @self._db.with_transaction
        def handler(event: int, context: FakeContext, conn: Any) -> None:
            self._write(conn, event, 1)
            self._write(conn, event, 2)

        handler(number, context)
        self._keep(number, 1, 2)

    def read(self, number: int, context: FakeContext) -> None:
        with self._db.connection(context) as conn:
            sql = f"SELECT part FROM {TABLE} WHERE invocation = {self._last} AND {number} = {number}"
            self.sent.add(sql)
            found = self._send(conn, sql).fetchall()
        assert {(self._last, part) for (part,) in found} == {key for key in self.rows if key[0] == self._last}

    def fail(self, number: int, context: FakeContext) -> None:
        @self._db.with_connection
        def handler(event: int, context: FakeContext, conn: Any) -> None:
            self._write(conn, event, 1)
            self._keep(number, 1)
            raise OwnError

        handler(number, context)

    def fail_in_transaction(self, number: int, context: FakeContext) -> None:
        @self._db.with_transaction
        def handler(event: int, context: FakeContext, conn: Any) -> None:
            self._write(conn, event, 1)
            raise OwnError

        handler(number, context)

    def leave_open(self, number: int, context: FakeContext) -> None:
        with self._db.connection(context) as conn:
            self._send(conn, "BEGIN")
            self._write(conn, number, 1)

    def fail_in_routine(self, number: int, context: FakeContext) -> None:
        with self._db.connection(context) as conn:
            sql = CALL_ROUTINE[self._engine] % number
            self.sent.add(sql)
            self._send(conn, sql)

    def send_values(self, number: int, context: FakeContext) -> None:
        values = [f"{number} {value}" for value in VALUES]
        with self._db.connection(context) as conn:
            columns = ", ".join(["CAST(%s AS char(250))"] * len(values))
            (row,) = self._send(conn, f"SELECT {columns}", values).fetchall()
        assert [text.rstrip() for text in row] == [value.rstrip() for value in values]

    def leave_unread(self, number: int, context: FakeContext) -> None:
        with self._db.connection(context) as conn:
            self._send(conn, f"SELECT {number}")
            sql = " UNION ALL ".join(f"SELECT {number + each}" for each in range(20))
            if self._engine == "postgresql":
                rows = conn.cursor().stream(sql)
            else:
                rows = conn.cursor(SSCursor)
                rows.execute(sql)
            assert next(iter(rows)) == (number,)
            self._late.append(rows)
        self._life.is_connected = self._engine == "mysql"  # few rows are read to their end there

    # --- strikes while a statement is under way: the user's error, whether or not the server got it

    def lose_answer(self, number: int, context: FakeContext) -> None:
        @self._db.with_connection
        def handler(event: int, context: FakeContext, conn: Any) -> None:
            self._send(conn, "SELECT 1")
            self._cut(bytes_from_server=0)
            self._keep(number, 1)
            self._write(conn, number, 1)

        handler(number, context)

    def lose_statement(self, number: int, context: FakeContext) -> None:
        @self._db.with_connection
        def handler(event: int, context: FakeContext, conn: Any) -> None:
            self._send(conn, "SELECT 1")
            self._cut(bytes_from_client=0)
            self._send(conn, statement(number, 1))

        handler(number, context)

    def lose_answer_to_commit(self, number: int, context: FakeContext) -> None:
        @self._db.with_transaction
        def handler(event: int, context: FakeContext, conn: Any) -> None:
            self._write(conn, number, 1)
            self._cut(bytes_from_server=0)
            self._keep(number, 1)

        handler(number, context)

    def lose_commit(self, number: int, context: FakeContext) -> None:
        @self._db.with_transaction
        def handler(event: int, context: FakeContext, conn: Any) -> None:
            self._write(conn, number, 1)
            self._cut(bytes_from_client=0)

        handler(number, context)

    def lose_database(self, number: int, context: FakeContext) -> None:
        @self._db.with_transaction
        def handler(event: int, context: FakeContext, conn: Any) -> None:
            self._write(conn, number, 1)
            self._life.proxy.failover()
            self.may_be_sent.add(statement(number, 2))
            self._send(conn, statement(number, 2))

        handler(number, context)

    def interrupt(self, number: int, context: FakeContext) -> None:
        @self._db.with_connection
        def handler(event: int, context: FakeContext, conn: Any) -> None:
            self._write(conn, number, 1)
            self._keep(number, 1)
            signal.setitimer(signal.ITIMER_REAL, INTERRUPT_AFTER_S)
            self._send(conn, SLEEP[self._engine])

        handler(number, context)

    def _cut(self, **where: int) -> None:
        self._life.relay.cut_after(ending=self._life.chance.choice(["fin", "rst"]), **where)

    def _write(self, conn: Any, number: int, part: int) -> None:
        self.sent.add(statement(number, part))
        self._send(conn, statement(number, part))

    def _send(self, conn: Any, sql: str, values: list[str] | None = None) -> Any:
        self._life.is_connected, self._life.fileno = True, conn.fileno()
        while self._late:
            with suppress(*DRIVER_ERRORS):
                self._late.pop().close()
        cursor = conn.cursor()
        cursor.execute(sql, values)
        return cursor

    def _keep(self, number: int, *parts: int) -> None:
        self.rows.update((number, part) for part in parts)
        self._last = number


def statement(number: int, part: int) -> str:
    """Write down that this invocation took place."""
    return f"INSERT INTO {TABLE} (invocation, part) VALUES ({number}, {part})"


def schedule(life: Life, function: Function) -> list[Callable[[], None]]:
    """Return what is to happen between invocations, in an order drawn by lot."""

    def refuse(kind: str) -> None:
        with life.refusal(kind) as error:
            for _ in range(life.chance.randint(1, 3)):
                function.invoke(error=error, has_time=kind != "no time left")

    counts: dict[Callable[[], None], int] = {partial(act, life): count for act, count in PASSING.items()}
    if isinstance(life.access, IamAccess):
        counts[life.replace_key] = KEY_REPLACEMENTS
    else:
        counts[life.rotate] = ROTATION_STEPS
    for kind in (*life.access.refusals, "endpoint down", "no time left"):
        counts[partial(refuse, kind)] = REFUSALS_OF_A_KIND
    for strike in STRIKES:
        counts[partial(function.invoke, strike)] = STRIKES_OF_A_KIND
    drawn = [act for act, count in counts.items() for _ in range(count)]
    life.chance.shuffle(drawn)
    return drawn


def live(life: Life, function: Function) -> None:
    """Have all invocations, and between them all that is to happen; one that must succeed comes after each."""
    drawn = schedule(life, function)
    places = sorted(life.chance.sample(range(1, INVOCATIONS * 9 // 10), len(drawn)))
    for place, act in zip(places, drawn, strict=True):
        while function.count < place:
            function.invoke()
        act()
        function.invoke()
    while function.count < INVOCATIONS:
        function.invoke()


def assert_the_witnesses_agree(life: Life, function: Function) -> None:
    """Compare what was done with what the table, the proxy, Secrets Manager and the library say of it."""
    rows = Counter(life.server.query(f"SELECT invocation, part FROM {TABLE}"))
    assert rows == Counter(function.rows)
    sessions = life.proxy.sessions()
    assert len(sessions) == life.due["logins"] < 1_000  # no older ones were forgotten
    requests = Counter(request.text.rstrip("\0") for session in sessions for request in session.statements)
    sent = Counter({text: count for text, count in requests.items() if TABLE in text})
    assert sent - Counter(function.may_be_sent) == Counter(function.sent)

    cost = life.cost()
    assert {name: cost[name] for name in cost} == {name: life.due[name] for name in cost}
    events = life.tally.counts
    stats = [db.stats() for db in life.environments]
    assert cost["logins"] == events["ConnectionOpened"] == sum(each.opened for each in stats)
    assert cost["logins"] == events["ConnectionClosed"] + life.is_connected
    assert cost["tries failed"] == events["ConnectFailed"] == sum(each.connect_failures for each in stats)
    assert cost["pings failed"] == events["PingFailed"] < life.due["freeze"]
    assert cost["found AWSPENDING"] >= 5 or isinstance(life.access, IamAccess)  # rotations were met in their window
    for stage in ("AWSCURRENT", "AWSPENDING"):
        assert cost[f"found {stage}"] == events[f"found {stage}"]
    assert sum(each.open for each in stats) == life.is_connected
    first_reads = len(life.environments) + 3 * life.due["secret deleted"]
    rounds = life.due["set_secret"] + 2 * (life.due["user removed"] + life.due["secret wrong"])
    assert life.reads.asked.total() <= first_reads + 3 * rounds
    assert life.proxy.stats().pins == {}


def summary(life: Life, function: Function, duration_s: float) -> str:
    """Say in a few lines what happened."""
    outcomes = ", ".join(f"{name}: {count}" for name, count in function.outcomes.most_common())
    events = ", ".join(f"{name}: {count}" for name, count in sorted(life.due.items()))
    return f"{function.count} invocations in {duration_s:.1f} s, seed {SEED}\n  {outcomes}\n  {events}"


@pytest.fixture(scope="module")
def proxy_certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """What a proxy shows: a certificate for its own name."""
    return Certificates.create(tmp_path_factory.mktemp("proxy"), extra_names=[PROXY])


@pytest.fixture(scope="module")
def secrets_manager() -> Iterator[LocalSecretsManager]:
    with local_secrets_manager() as manager:
        yield manager


@pytest.fixture
def environ(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> pytest.MonkeyPatch:
    """An environment in which nothing says what a function's does, and botocore finds no keys but those."""
    caplog.set_level("WARNING", logger="werkzeug")  # moto's server, which logs each request
    for name in [name for name in os.environ if name.startswith(("DB_", "AWS_")) or name == "DATABASE_URL"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    return monkeypatch


@pytest.fixture(params=["iam", "secret"])
def life(
    request: pytest.FixtureRequest,
    own_server: LocalServer,
    proxy_certificates: Certificates,
    secrets_manager: LocalSecretsManager,
    environ: pytest.MonkeyPatch,
) -> Iterator[Life]:
    """A function on this machine: its way to the proxy, by TLS, goes through a relay."""
    own_server.execute(f"CREATE TABLE {TABLE} (invocation int, part int)")
    own_server.execute(f"CREATE INDEX by_invocation ON {TABLE} (invocation)")
    own_server.execute(f"GRANT SELECT, INSERT ON {TABLE} TO {own_server.user}")
    own_server.execute(MAKE_ROUTINE[own_server.engine])
    if own_server.engine == "mysql":
        own_server.execute(f"GRANT EXECUTE ON {own_server.database}.* TO {own_server.user}")
    clock = EventfulClock()
    with (
        LocalRdsProxy(
            backend=own_server,
            certificates=proxy_certificates,
            auth=request.param,
            signing_host=PROXY,
            clock_s=clock.wall,
        ) as proxy,
        FaultRelay(target_host="127.0.0.1", target_port=proxy.port) as relay,
    ):
        proxy.signing_port = relay.port
        proxy.restart()  # as the token's port is the relay's, which could not be known
        access: IamAccess | SecretAccess
        if request.param == "iam":
            access = IamAccess(proxy, own_server, environ)
        else:
            access = SecretAccess(proxy, own_server, secrets_manager, table=TABLE, clock=clock)
        variables = {
            "DB_ENGINE": proxy.engine,
            "DB_HOST": "localhost",
            "DB_PORT": str(relay.port),
            "DB_NAME": own_server.database,
            "DB_SSLROOTCERT": str(proxy_certificates.ca_path),
            "DB_SIGNING_HOST": PROXY,  # that it is RDS Proxy
        }
        if request.param == "secret":
            variables |= secrets_manager.environment()
        for name, value in (variables | access.environment()).items():
            environ.setenv(name, value)
        life = Life(
            chance=random.Random(SEED),
            clock=clock,
            server=own_server,
            proxy=proxy,
            relay=relay,
            access=access,
            reads=ReadsOfSecrets(environ),
        )
        before = signal.signal(signal.SIGALRM, interrupt)
        try:
            with closing(life):
                yield life
        finally:
            signal.signal(signal.SIGALRM, before)


def test_no_invocation_fails_that_should_not_and_no_statement_is_sent_twice(life: Life) -> None:
    function = Function(life)
    started_s = time.monotonic()
    try:
        live(life, function)
        assert_the_witnesses_agree(life, function)
    except BaseException as error:
        error.add_note(f"seed {SEED}, invocation {function.count}; before it: {'; '.join(life.past)}")
        raise
    finally:
        print(summary(life, function, time.monotonic() - started_s))  # noqa: T201
    assert function.count == INVOCATIONS
