"""Three threads, two connections, a server that comes and goes, clocks that stop: the rules of the design hold."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from lambda_dbconn import (
    CommitUnknownError,
    ConnectError,
    ConnectionInUseError,
    ConnectionManager,
    DeadlineExceededError,
    TransactionAbortedError,
    TransactionLeftOpenError,
)
from lambda_dbconn.cache import backoff, policy
from lambda_dbconn.drivers import ErrorKind
from lambda_dbconn.events import (
    ConnectFailed,
    ConnectionClosed,
    ConnectionOpened,
    ConnectionReplaced,
    ConnectionReused,
    PingFailed,
    TransactionRolledBack,
)
from lambda_dbconn.testing.fakes import (
    FakeClock,
    FakeConnection,
    FakeContext,
    FakeDriver,
    FakeError,
    FakeServer,
    RecordingObserver,
)
from tests.unit.conftest import local

if TYPE_CHECKING:
    from collections.abc import Callable

R = TypeVar("R")

THREADS = 3
SETTINGS = local(
    max_connections=2, ping_idle_s=30, max_idle_s=300, max_lifetime_s=1000, connect_timeout_s=2, reserve_s=0.5
)
HALF_OPEN_S = 15.0  # what BEGIN, COMMIT and a caller's statement wait on a half-open connection
ROUNDING_S = 1e-5  # the wall clock counts from 1970
MILLISECOND_S = 0.001  # Lambda says what is left in whole ones

threads = st.integers(0, THREADS - 1)
contexts = st.none() | st.floats(-1, 6) | st.floats(0, 6).map(lambda seconds: ("context", seconds))
durations = st.sampled_from([0.1, 20.0, 29.9, 30.0, 31.0, 150.0, 299.0, 300.0, 700.0, 1000.0]) | st.floats(0, 1200)
failures = st.sampled_from([ErrorKind.CONFLICT, ErrorKind.LOST, ErrorKind.READ_ONLY, ErrorKind.OTHER])
ends = st.sampled_from(["well", "with the statement's error", "with another error"])
drops = st.sampled_from(["hang_up", "vanish", "terminate", "notify"])
refusals = st.sampled_from([ConnectError("restarting", retryable=True), ConnectError("no such database"), None])


class Actor:
    """One thread of the function, and what it holds."""

    def __init__(self, number: int) -> None:
        self.pool = ThreadPoolExecutor(1, thread_name_prefix=f"actor-{number}")
        self.loan: Any = None
        self.connection: FakeConnection | None = None
        self.is_transaction = False
        self.is_condemned = False
        self.error: Exception | None = None
        self.sent: list[str] = []
        self.ends_at = float("inf")  # by the monotonic clock

    def do(self, function: Callable[..., R], *args: Any, **kwargs: Any) -> R:
        """Call a function in this thread."""
        return self.pool.submit(function, *args, **kwargs).result(30)


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(policy, "jitter", lambda seconds: seconds)
        self.patch.setattr(backoff, "jitter", lambda seconds, share: seconds * share / 2)
        self.clock = FakeClock()
        self.server = FakeServer(self.clock)
        self.observer = RecordingObserver()
        self.db = ConnectionManager(SETTINGS, driver=FakeDriver(self.server), clock=self.clock, observer=self.observer)
        self.actors = [Actor(number) for number in range(THREADS)]
        self.times: dict[int, tuple[tuple[float, float], tuple[float, float]]] = {}  # of opening and return
        self.round_trips: dict[int, int] = {}  # at return
        self.statements = 0
        self.once: set[str] = set()

    # --- what happens outside

    @rule(seconds=durations)
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(seconds=durations, monotonic_stops=st.booleans())
    def the_environment_is_frozen(self, seconds: float, *, monotonic_stops: bool) -> None:
        self.clock.freeze(seconds, monotonic_stops=monotonic_stops)

    @rule(seconds=durations)
    def the_wall_clock_steps_back(self, seconds: float) -> None:
        self.clock.step_wall(-seconds)

    @rule(how=drops, which=st.integers(0, 1))
    def the_server_drops_or_says_something(self, how: str, which: int) -> None:
        for connection in self.server.open_connections[which : which + 1]:
            if how in ("hang_up", "vanish"):
                getattr(connection, how)()
            else:
                connection.hear(b"F" if how == "terminate" else b"N")

    @rule(error=refusals, takes_s=st.sampled_from([0.0, 0.0, 0.3, 60.0]))
    def the_server_refuses_or_recovers(self, error: ConnectError | None, takes_s: float) -> None:
        self.server.refuses_with = error
        self.server.connect_takes_s = takes_s

    # --- what threads do

    @rule(who=threads, is_transaction=st.booleans(), context=contexts)
    def borrow(self, who: int, *, is_transaction: bool, context: float | tuple[str, float] | None) -> None:
        actor = self.actors[who]
        begins = self.server.sql.count("BEGIN")
        started = self.clock.monotonic()
        limit_s = self.limit_s(context)
        given = FakeContext(self.clock, context[1]) if isinstance(context, tuple) else context
        lend = self.db.transaction if is_transaction else self.db.connection
        try:
            loan = lend(given)
            connection = actor.do(loan.__enter__)
        except ConnectionInUseError:
            assert actor.loan is not None or self.lent() == SETTINGS.max_connections
        except DeadlineExceededError:
            assert context is not None
        except ConnectError:
            assert self.server.refuses_with or self.server.connect_takes_s
        else:
            assert actor.loan is None
            self.check_lent(connection, is_transaction=is_transaction)
            actor.loan, actor.connection, actor.is_transaction = loan, connection, is_transaction
            if context is not None:
                seconds = context[1] if isinstance(context, tuple) else context
                actor.ends_at = started + seconds - SETTINGS.reserve_s
        begun = self.server.sql.count("BEGIN") - begins
        own_s = self.clock.monotonic() - started - HALF_OPEN_S * begun
        assert own_s <= limit_s + 2e-3  # Lambda counts milliseconds

    def limit_s(self, context: float | tuple[str, float] | None) -> float:
        """Return what a borrow may take: a ping, and a connect; or less, if the invocation ends before."""
        ours = policy.PING_LIMIT_S + SETTINGS.connect_timeout_s
        if self.lent() == SETTINGS.max_connections:
            ours += SETTINGS.connect_timeout_s  # to wait for a free one
        if context is None:
            return ours
        seconds = context[1] if isinstance(context, tuple) else context
        return min(ours, max(0.0, seconds - SETTINGS.reserve_s))

    def check_lent(self, connection: FakeConnection, *, is_transaction: bool) -> None:
        """Check that a connection was fit to be lent at this moment."""
        now = (self.clock.monotonic(), self.clock.wall())
        assert not connection.closed
        assert connection.is_silent or not connection.is_over
        assert connection not in [actor.connection for actor in self.actors]
        assert connection.in_transaction is is_transaction
        assert connection._pending == []
        if connection.number not in self.times:
            self.times[connection.number] = (now, now)
            return
        opened, returned = self.times[connection.number]
        idle_s = max(now[0] - returned[0], now[1] - returned[1])
        assert max(now[0] - opened[0], now[1] - opened[1]) < SETTINGS.max_lifetime_s + ROUNDING_S
        assert idle_s < SETTINGS.max_idle_s + ROUNDING_S
        unasked = connection.round_trips - is_transaction == self.round_trips[connection.number]
        assert not (unasked and idle_s >= SETTINGS.ping_idle_s + ROUNDING_S)

    @rule(who=threads, begins=st.booleans(), fails=st.booleans())
    def execute(self, who: int, *, begins: bool, fails: bool) -> None:
        actor = self.actors[who]
        if actor.connection is None:
            return
        started = self.clock.monotonic()
        if fails:
            self.server.demand("execute", FakeError("duplicate key"))
        statement = self.new_statement()
        try:
            if begins and not actor.is_transaction:
                actor.do(actor.connection.execute, "begin")
            self.once.add(statement)
            actor.do(actor.connection.execute, statement)
            actor.sent.append(statement)
        except FakeError as error:
            actor.error = error
        except DeadlineExceededError as error:
            actor.error = error
            assert self.clock.monotonic() >= actor.ends_at - MILLISECOND_S - ROUNDING_S
            was_cut = actor.connection.is_interrupted  # else the last one was not sent, and the connection is good
            assert was_cut or statement not in self.server.sql
            assert actor.connection.closed or not was_cut
        self.server._demanded.clear()
        assert self.clock.monotonic() <= max(started, actor.ends_at + 2e-3)  # Lambda counts milliseconds

    @rule(who=threads, how=ends)
    def give_back(self, who: int, how: str) -> None:
        actor = self.actors[who]
        if actor.connection is None:
            return
        error = {"well": None, "with another error": LookupError()}.get(how, actor.error)
        connection, is_open = actor.connection, actor.connection.in_transaction and not actor.connection.closed
        is_known = connection.closed or connection._peer.fileno() < 0  # to be lost, before anything more is sent
        before = len(self.server.committed)
        raised: Exception | None = None
        try:
            assert not actor.do(actor.loan.__exit__, type(error) if error else None, error, None)
        except (
            TransactionLeftOpenError,
            TransactionAbortedError,
            CommitUnknownError,
            DeadlineExceededError,
            FakeError,
        ) as failed:
            raised = failed
        if error is not None:
            assert raised is None
        elif not actor.is_transaction:
            assert isinstance(raised, TransactionLeftOpenError) is is_open
        assert not (isinstance(raised, CommitUnknownError) and is_known)
        assert not (isinstance(raised, FakeError) and raised.kind is ErrorKind.LOST and not is_known)
        if actor.is_transaction:
            self.check_committed(self.server.committed[before:], actor.sent, error or raised)
        self.times[connection.number] = (
            self.times[connection.number][0],
            (self.clock.monotonic(), self.clock.wall()),
        )
        self.round_trips[connection.number] = connection.round_trips
        assert connection.closes == 1 or not (actor.is_condemned or connection.closed)
        assert connection.closes == 1 or not connection.in_transaction
        actor.loan = actor.connection = actor.error = None
        actor.is_condemned = False
        actor.sent = []
        actor.ends_at = float("inf")

    def check_committed(self, committed: list[str], sent: list[str], error: Exception | None) -> None:
        """Check that a transaction took effect as a whole, or not at all, as its end said."""
        if error is None:
            assert committed == sent
        elif isinstance(error, CommitUnknownError):
            assert committed in ([], sent)
        else:
            assert committed == []

    @rule(who=threads, plan=st.lists(failures, max_size=3), commit=st.none() | failures, attempts=st.integers(1, 4))
    def run(self, who: int, plan: list[ErrorKind], commit: ErrorKind | None, *, attempts: int) -> None:
        actor = self.actors[who]
        statement = self.new_statement()
        calls: list[int] = []
        failovers = plan.count(ErrorKind.READ_ONLY) + (commit is ErrorKind.READ_ONLY) * 20
        is_final = False

        def function(connection: FakeConnection) -> None:
            nonlocal is_final
            assert not is_final, "run again after what must not be repeated"
            calls.append(connection.number)
            self.times.setdefault(connection.number, ((self.clock.monotonic(), self.clock.wall()),) * 2)
            connection.execute(statement)
            if plan:
                kind = plan.pop(0)
                is_final = kind is ErrorKind.OTHER
                raise FakeError("as drawn", kind)
            if commit is not None:
                is_final = commit in (ErrorKind.OTHER, ErrorKind.LOST)
                self.server.demand("commit", FakeError("as drawn", commit))

        lent = {other.connection for other in self.actors}
        try:
            actor.do(self.db.run, function, attempts=attempts)
        except CommitUnknownError:
            assert self.server.committed.count(statement) <= 1
        except (ConnectionInUseError, ConnectError, FakeError):
            assert self.server.committed.count(statement) == 0
        else:
            assert self.server.committed.count(statement) == 1
        self.server._demanded.clear()
        assert len(calls) <= attempts + failovers
        assert self.server.sql.count(statement) <= len(calls)
        for connection in self.server.open_connections:
            if connection not in lent and connection.number in calls:
                self.times[connection.number] = (
                    self.times[connection.number][0],
                    (self.clock.monotonic(), self.clock.wall()),
                )
                self.round_trips[connection.number] = connection.round_trips

    @rule(who=threads)
    def close(self, who: int) -> None:
        self.actors[who].do(self.db.close)
        held = [actor for actor in self.actors if actor.connection is not None]
        for actor in held:
            actor.is_condemned = True
        assert {connection.number for connection in self.server.open_connections} <= {
            actor.connection.number for actor in held if actor.connection is not None
        }

    @precondition(lambda self: self.lent() == 0)
    @rule(is_transaction=st.booleans(), begins=st.booleans(), fails=st.booleans(), how=ends)
    def use(self, *, is_transaction: bool, begins: bool, fails: bool, how: str) -> None:
        self.borrow(0, is_transaction=is_transaction, context=None)
        self.execute(0, begins=begins, fails=fails)
        self.give_back(0, how)

    @precondition(lambda self: self.lent() == 0)
    @rule(how=drops, seconds=st.sampled_from([0.0, 1.0, 31.0]), error=refusals, is_transaction=st.booleans())
    def misfortune_meets_a_warm_connection(
        self, how: str, seconds: float, error: ConnectError | None, *, is_transaction: bool
    ) -> None:
        self.a_server_that_is_up_is_always_to_be_had()
        self.the_server_drops_or_says_something(how, 0)
        self.clock.freeze(seconds)
        self.server.refuses_with = error
        self.borrow(0, is_transaction=is_transaction, context=None)
        self.give_back(0, "well")

    @precondition(lambda self: self.lent() == 0)
    @rule(how=drops, is_transaction=st.booleans())
    def misfortune_meets_a_lent_connection(self, how: str, *, is_transaction: bool) -> None:
        self.borrow(0, is_transaction=is_transaction, context=None)
        self.execute(0, begins=False, fails=False)
        self.the_server_drops_or_says_something(how, 0)
        self.give_back(0, "well")

    @precondition(lambda self: self.lent() == 0)
    @rule()
    def a_server_that_is_up_is_always_to_be_had(self) -> None:
        self.server.refuses_with, self.server.connect_takes_s = None, 0.0
        for is_transaction in (False, True):
            self.borrow(0, is_transaction=is_transaction, context=None)
            assert self.actors[0].loan is not None
            self.give_back(0, "well")

    # --- what always holds

    def lent(self) -> int:
        return sum(actor.loan is not None for actor in self.actors)

    def new_statement(self) -> str:
        self.statements += 1
        return f"insert {self.statements}"

    @invariant()
    def there_are_never_more_connections_than_allowed(self) -> None:
        assert self.server.most_open <= SETTINGS.max_connections

    @invariant()
    def each_connection_is_closed_once_and_not_while_it_is_lent(self) -> None:
        held = [actor.connection for actor in self.actors]
        for connection in self.server.connections:
            assert connection.closes == int(connection.is_released)
            assert not (connection in held and connection.closes)

    @invariant()
    def no_statement_is_sent_twice_and_none_takes_effect_twice(self) -> None:
        sent, committed = Counter(self.server.sql), Counter(self.server.committed)
        assert all(sent[statement] <= 1 for statement in self.once)
        assert all(count == 1 for count in committed.values())

    @invariant()
    def the_numbers_agree_with_the_events_and_with_the_server(self) -> None:
        stats, of = self.db.stats(), self.observer.of
        assert stats.opened == len(of(ConnectionOpened)) == len(self.server.connections)
        assert stats.closed == len(of(ConnectionClosed)) == sum(c.closes for c in self.server.connections)
        assert stats.reused == len(of(ConnectionReused))
        assert stats.replaced == Counter(event.reason for event in of(ConnectionReplaced))
        assert stats.connect_failures == len(of(ConnectFailed))
        assert stats.ping_failures == len(of(PingFailed))
        assert stats.rolled_back == len(of(TransactionRolledBack))
        assert stats.open == len(self.server.open_connections)
        assert stats.in_use == self.lent()

    def teardown(self) -> None:
        for who in range(THREADS):
            self.give_back(who, "with another error")
            self.actors[who].pool.shutdown()
        self.db.close()
        assert all(connection.closes == 1 for connection in self.server.connections)
        assert sum(event.uses for event in self.observer.of(ConnectionClosed)) == (
            self.db.stats().opened + self.db.stats().reused
        )
        self.server.close()
        self.patch.undo()


TestTheManagerUnderAnything = Machine.TestCase
TestTheManagerUnderAnything.settings = hypothesis_settings(
    max_examples=2 * hypothesis_settings().max_examples, stateful_step_count=40
)
