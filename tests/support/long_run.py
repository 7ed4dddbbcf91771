"""An execution environment that lives through thousands of invocations, and what may befall it in between."""

from __future__ import annotations

from collections import Counter, deque
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lambda_dbconn import ConnectError, ConnectionManager, CredentialsError, DeadlineExceededError, Settings
from lambda_dbconn.errors import AuthenticationError
from lambda_dbconn.events import ConnectionReused, CredentialsFetched
from lambda_dbconn.testing.fakes import FakeClock, FakeContext
from tests.support.access import IamAccess
from tests.support.clients import wait_until
from tests.support.database import wait_for_end

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator

    from lambda_dbconn.events import Event
    from lambda_dbconn.testing.rds_proxy import LocalRdsProxy
    from lambda_dbconn.testing.rds_proxy.texts import RefusalKind
    from lambda_dbconn.testing.relay import FaultRelay
    from lambda_dbconn.testing.servers import LocalServer
    from tests.support.access import ReadsOfSecrets, SecretAccess

MAX_IDLE_S, MAX_LIFETIME_S = 1500.0, 82_800.0  # the defaults, which are jittered by 5 %
TOKEN_LIFE_S = 900.0
REMAINING_S, TOO_LITTLE_S = 60.0, 0.4  # of an invocation; the latter is less than is reserved for the answer

_FREEZES_S = {"short freeze": (1.0, 25.0), "freeze": (31.0, 1300.0), "long freeze": (MAX_IDLE_S, 40_000.0)}
_LONGEST_AGE_S = 70_000.0  # well below the shortest lifetime, so that it is foreseen which connections reach theirs
_PASSING: list[RefusalKind | None] = ["borrow_timeout", "connection_limit", "connection_rate", "iam_rate", None]


class EventfulClock(FakeClock):
    """A clock during whose next sleep something happens."""

    meanwhile: Callable[[], None] | None = None

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        happens, self.meanwhile = self.meanwhile, None
        if happens is not None:
            happens()


class Tally:
    """Counts the library's events by name, and secrets by their stage as well.

    Attributes:
        counts: By name.
        is_news: Whether there was any but that a connection was reused; for its reader to set back.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.is_news = False

    def on_event(self, event: Event) -> None:
        self.counts[type(event).__name__] += 1
        self.is_news |= not isinstance(event, ConnectionReused)
        if isinstance(event, CredentialsFetched):
            self.counts[f"found {event.stage}"] += 1


@dataclass(kw_only=True)
class Life:
    """The function's environment, and the path, the proxy and the database behind it.

    Attributes:
        chance: Draws everything that is drawn.
        clock: The function's, and that by which the proxy judges tokens.
        access: Whom the function logs in as.
        reads: What Secrets Manager is asked for.
        tally: The library's events.
        due: What must have happened by now. It follows from what was done, and not from what the library did.
        past: What was done lately, for messages.
        environments: The managers, one for each execution environment; the last one lives.
        is_connected: Whether the manager has a connection that will still be good.
        fileno: Of its socket.
    """

    chance: random.Random
    clock: EventfulClock
    server: LocalServer
    proxy: LocalRdsProxy
    relay: FaultRelay
    access: IamAccess | SecretAccess
    reads: ReadsOfSecrets
    tally: Tally = field(default_factory=Tally)
    due: Counter[str] = field(default_factory=Counter)
    past: deque[str] = field(default_factory=lambda: deque(maxlen=20))
    environments: list[ConnectionManager[Any]] = field(default_factory=list)
    is_connected: bool = False
    fileno: int = -1
    _seen: Counter[str] = field(default_factory=Counter)
    _opened_s: float = 0.0
    _login_failures: int = 0
    _hang_ups: int = 0
    _unreachable: int = 0
    _is_endpoint_down: bool = False

    def __post_init__(self) -> None:
        self._begin_environment()

    def did(self, what: str, detail: str = "") -> None:
        """Note what was done."""
        self.past.append(f"{what} {detail}".strip())
        self.due[what] += 1

    def close(self) -> None:
        """End the execution environment."""
        self.environments[-1].close()

    # --- an invocation, and what it costs

    @contextmanager
    def invocation(self, *, remaining_s: float = REMAINING_S) -> Iterator[FakeContext]:
        """Let one invocation happen in the block, and check what it cost, to the last login and the last read.

        Where neither we nor the library know of any cost the check is left to the next invocation's.
        """
        self.clock.advance(self.chance.uniform(0.01, 1.0))
        context = FakeContext(self.clock, remaining_s)
        was_connected, self.tally.is_news = self.is_connected, False
        expected = Counter[str]() if remaining_s == TOO_LITTLE_S else self._expected()
        with self.reads.counted():
            yield context
        if not expected and not self.tally.is_news:
            return
        seen = self.cost()
        cost = seen - self._seen
        if cost["pings failed"] and was_connected:  # on a busy machine no answer may come in time: this costs a login
            expected = self._cost_of_a_login() + Counter({"pings failed": 1})
        if self._is_endpoint_down and cost["tries failed"]:
            expected["tries failed"] = cost["tries failed"]  # as many as chance, which draws the pauses, gave time for
        assert cost == +expected, f"the invocation cost {cost}, and not {+expected}"
        self._seen = seen
        self.due += expected
        self._login_failures = self._hang_ups = self._unreachable = 0
        if expected["logins"]:
            self._opened_s = self.clock.wall()

    def _expected(self) -> Counter[str]:
        """Say what the next invocation must cost."""
        if self.is_connected:
            return Counter()
        if self._is_endpoint_down:
            return Counter({"tries failed": 1})
        return self._cost_of_a_login()

    def _cost_of_a_login(self) -> Counter[str]:
        login = self.access.log_in()
        is_refused = login.error is not None
        cost = Counter(
            {
                "logins": int(not is_refused),
                "refused": login.refused + self._login_failures,
                "hang-ups": self._hang_ups,
                "tries failed": is_refused + self._login_failures + self._hang_ups + self._unreachable,
            }
        )
        cost.update(f"asked for {stage}" for stage in login.asked)
        cost.update(f"found {stage}" for stage in login.found)
        return cost

    def cost(self) -> Counter[str]:
        """Count what the relay, the proxy and Secrets Manager saw; and the failures that none of them can see."""
        seen = self.proxy.stats()
        refused = sum(seen.refused.values())
        cost = Counter({"logins": seen.logins, "refused": refused})
        cost["hang-ups"] = self.relay.connects - seen.logins - refused
        cost["tries failed"] = self.tally.counts["ConnectFailed"]
        cost["pings failed"] = self.tally.counts["PingFailed"]
        cost.update({f"asked for {stage}": count for stage, count in self.reads.asked.items()})
        cost.update({f"found {stage}": count for stage, count in self.reads.found.items()})
        return cost

    # --- what passes

    def cold_start(self) -> None:
        """End the execution environment, and begin another."""
        self.did("cold start")
        self._begin_environment()

    def _begin_environment(self) -> None:
        if self.environments:
            self.environments[-1].close()
        self.access.forget()
        self.is_connected = False
        self.environments.append(ConnectionManager(Settings.from_env(), clock=self.clock, observer=self.tally))

    def freeze(self) -> None:
        """Freeze the environment, for a while or for longer than any connection is kept."""
        kind = self.chance.choice(list(_FREEZES_S))
        self._freeze(kind, self.chance.uniform(*_FREEZES_S[kind]))

    def _freeze(self, kind: str, seconds: float) -> None:
        if self.clock.wall() + seconds - self._opened_s > _LONGEST_AGE_S:
            kind, seconds = "a day's freeze", MAX_LIFETIME_S
        self.did(kind, f"of {seconds:.0f} s")
        self.clock.freeze(seconds, monotonic_stops=self.chance.random() < 0.5)
        if seconds >= MAX_IDLE_S:
            self.is_connected = False

    def lose_path(self) -> None:
        """Lose the way to the proxy."""
        ending = self.chance.choice([self.relay.fin, self.relay.rst])
        self.did("path lost", ending.__name__)
        self._lose(ending)

    def expire_token(self) -> None:
        """Let a token's time pass, and then the connection end."""
        self._freeze("token expired", TOKEN_LIFE_S + 1)
        self._lose(self.relay.fin)

    def restart_proxy(self) -> None:
        """Restart the proxy."""
        self.did("proxy restarted")
        self._lose(self.proxy.restart)

    def cut_idle_client(self) -> None:
        """Let the proxy cut the client off, because it asks for nothing."""
        self.did("idle client cut off")
        self._lose(self.relay.fin)
        usual_s, self.proxy.idle_client_timeout_s = self.proxy.idle_client_timeout_s, 0.25  # a login may pause
        with self.invocation() as context, self.environments[-1].connection(context) as connection:
            self.is_connected = True
            self.fileno = connection.fileno()
        wait_for_end(self.fileno)
        self.proxy.idle_client_timeout_s = usual_s
        self.is_connected = False

    def kill_sessions(self) -> None:
        """Kill the sessions at the database: the proxy's, which the function does not notice."""
        self.did("database sessions killed")
        self.access.end_sessions()
        wait_until(lambda: self.proxy.stats().database_connections == 0)

    def fail_over(self) -> None:
        """Have the proxy lose the database, and find it again: an idle function does not notice."""
        self.did("failover")
        self.proxy.failover()

    def refuse_in_passing(self) -> None:
        """Let the next logins fail, as a proxy that is busy does, or hang up on them."""
        self._lose(self.relay.fin)
        kinds = _PASSING if isinstance(self.access, IamAccess) else [kind for kind in _PASSING if kind != "iam_rate"]
        kind, count = self.chance.choice(kinds), self.chance.randint(1, 3)
        self.did("refused in passing", f"{count} times: {kind}")
        self.proxy.fail_next_logins(count, kind)
        if kind is None:
            self._hang_ups = count
        else:
            self._login_failures = count

    def rotate(self) -> None:
        """Take the rotation one step further; by lot, lose the connection just then."""
        assert not isinstance(self.access, IamAccess)
        self.did(self.access.next_step(is_alternating=self.chance.random() < 0.5))
        if self.chance.random() < 0.6:
            self._lose(self.relay.fin)

    def replace_key(self) -> None:
        """Give the role other keys; by lot, lose the connection just then."""
        assert isinstance(self.access, IamAccess)
        self.did("key replaced")
        self.access.replace_key()
        if self.chance.random() < 0.8:
            self._lose(self.relay.fin)

    # --- what does not pass, until the end of the block

    @contextmanager
    def refusal(self, kind: str) -> Iterator[type[Exception]]:
        """Lock the function out in one of the ways that `refusals` names; give the error that it must get."""
        self.did(kind)
        self._lose(self.relay.fin)
        if kind == "secret deleted":
            self._begin_environment()
        if kind == "endpoint down":
            self.relay.refuse()
            self._is_endpoint_down = True
            yield ConnectError
            self._is_endpoint_down = False
            self.relay.accept()
        elif kind == "no time left":
            yield DeadlineExceededError
        else:
            with getattr(self.access, kind.replace(" ", "_"))():
                yield CredentialsError if kind in {"keys missing", "secret deleted"} else AuthenticationError

    def recover_in_time(self) -> None:
        """Take the endpoint down, and let it come back while the function waits to try again."""
        self.did("endpoint back in time")
        self._lose(self.relay.fin)
        self.relay.refuse()
        self._unreachable = 1
        self.clock.meanwhile = self.relay.accept

    def _lose(self, strike: Callable[[], None]) -> None:
        """Do what ends the connection, and wait until the function's end of it has heard."""
        strike()
        if self.is_connected:
            wait_for_end(self.fileno)
        self.is_connected = False
