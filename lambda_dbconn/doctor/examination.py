"""`examine`: the steps in order, each timed, each skipped when what it needs has failed."""

from __future__ import annotations

import warnings

from lambda_dbconn._values import TYPE_CHECKING
from lambda_dbconn.cache.connector import Connector
from lambda_dbconn.credentials import provider_for
from lambda_dbconn.deadline import UNLIMITED_S, CancelScope, Deadline, SystemClock
from lambda_dbconn.doctor import causes, login, network, server
from lambda_dbconn.doctor.report import FAILED, PASSED, SKIPPED, Diagnosis, Finding, Step, StepFailedError
from lambda_dbconn.drivers import load_driver
from lambda_dbconn.errors import ConfigurationError, DeadlineExceededError, LambdaDbConnError, excerpt
from lambda_dbconn.settings import Settings
from lambda_dbconn.tls import trust_for

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

    from lambda_dbconn.credentials import CredentialProvider
    from lambda_dbconn.credentials.secrets_manager import SecretsManagerProvider
    from lambda_dbconn.deadline import Clock, InvocationContext
    from lambda_dbconn.doctor.report import Cause
    from lambda_dbconn.drivers.driver import Driver

    Explain = Callable[[LambdaDbConnError], tuple[Cause, ...]]

# Each step with those it needs, in order.
STEPS: dict[str, tuple[str, ...]] = {
    "settings": (),
    "endpoint": ("settings",),
    "dns": ("endpoint",),
    "tcp": ("dns",),
    "tls": ("tcp",),
    "credentials": ("settings",),
    "login": ("tls", "credentials"),
    "proxy": ("login",),
    "server": ("login",),
    "role": ("login",),
    "pinning": ("settings",),
    "round_trip": ("login",),
}
DEFAULT_LIMIT_S = 30.0

_PINGS = 5


def examine(
    settings: Settings,
    *,
    context: InvocationContext | float | Deadline | None = None,
    credentials: CredentialProvider | None = None,
    driver: Driver[Any] | None = None,
    clock: Clock | None = None,
    tell: Callable[[Step], None] | None = None,
) -> Diagnosis:
    """Examine the way to these settings' endpoint, step by step, over connections of its own.

    Raises nothing that a step may meet. Sends no SQL but a few plain SELECT and SHOW, which do not pin. A step up to
    the login may block for `connect_timeout_s`, and all within the time limit; name resolution, and botocore where it
    looks for keys, have limits of their own.

    Args:
        settings: Checked ones.
        context: As for `ConnectionManager.connection`; by default 30 seconds.
        credentials: Instead of what the settings say.
        driver: Instead of the engine's.
        clock: Instead of the system's.
        tell: Called with each step when it is over.
    """
    clock = clock or SystemClock()
    run = _Run(_deadline(context, settings.reserve_s, clock), clock, tell)
    run.take("settings", lambda: _chosen(settings))
    return run.go_on(_Way(settings, credentials, driver, run.deadline, clock))


def examine_environment(
    prefix: str = "DB_",
    *,
    context: InvocationContext | float | Deadline | None = None,
    is_reader: bool = False,
    tell: Callable[[Step], None] | None = None,
) -> Diagnosis:
    """Do as `examine`, with the environment's settings; what is wrong with them is the first step's finding.

    Args:
        prefix: Of the variables.
        context: As in `examine`.
        is_reader: Examine `READER_HOST` instead of `HOST`.
        tell: As in `examine`.
    """
    clock = SystemClock()
    run = _Run(_deadline(context, Settings.reserve_s, clock), clock, tell)
    ways: list[_Way] = []

    def read() -> Finding:
        providers: list[SecretsManagerProvider] = []
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            settings = Settings.from_env(prefix, read_secret=_reader_of_secrets(providers, run.deadline))
            if is_reader:
                settings = _of_reader(settings)
        ways.append(_Way(settings, providers[0] if providers else None, None, run.deadline, clock))
        return _chosen(settings, tuple(str(warning.message) for warning in said))

    run.take("settings", read, causes.of_settings)
    return run.go_on(ways[0] if ways else None)


class _SkippedError(Exception):
    """Ends a step that has nothing to do."""


class _Way:
    """The way to one endpoint: each method is a step, and leaves what the later ones need."""

    def __init__(
        self,
        settings: Settings,
        credentials: CredentialProvider | None,
        driver: Driver[Any] | None,
        deadline: Deadline,
        clock: Clock,
    ) -> None:
        self.settings = settings
        self._provider = credentials or provider_for(settings, None, clock=clock)
        self._driver = driver
        self._deadline = deadline
        self._clock = clock
        self._addresses: list[str] = []
        self._socket: socket.socket | None = None
        self._connection: Any = None

    def steps(self) -> Iterator[tuple[str, Callable[[], Finding], Explain | None]]:
        """Yield the steps in order, each with what explains an error of ours."""
        settings = self.settings
        yield "endpoint", lambda: network.classified(settings), None
        yield "dns", self._resolve, None
        yield "tcp", self._connect, None
        yield "tls", self._secure, lambda error: causes.of_trust(settings, error)
        yield "credentials", self._fetch, lambda error: causes.of_credentials(settings, error)
        yield "login", self._log_in, lambda error: causes.of_login(settings, error)
        yield "proxy", lambda: self._ask(server.between), None
        yield "server", lambda: self._ask(server.version), None
        yield "role", lambda: self._ask(server.role), None
        yield "pinning", lambda: server.pinning(settings), None
        yield "round_trip", self._ping, None

    def close(self) -> None:
        """Close what is open."""
        if self._socket is not None:
            self._socket.close()
        if self._connection is not None and self._driver is not None:
            self._driver.close(self._connection)

    def _limit_s(self) -> float:
        return self._deadline.cap_s(self.settings.connect_timeout_s, doing="examining the connection")

    def _resolve(self) -> Finding:
        finding, self._addresses = network.resolved(self.settings, self._limit_s())
        return finding

    def _connect(self) -> Finding:
        finding, self._socket = network.connected(self.settings, self._addresses, self._limit_s())
        return finding

    def _secure(self) -> Finding:
        trust = trust_for(self.settings)
        if not trust.is_verified:
            raise _SkippedError(f"{self.settings.variable('sslmode')} is disable: all traffic is in plaintext")
        assert self._socket is not None  # noqa: S101 - the step before
        from lambda_dbconn.doctor.probe import secured

        return secured(self.settings, trust, self._socket, self._limit_s())

    def _fetch(self) -> Finding:
        return login.fetched(self.settings, self._provider, self._deadline)

    def _log_in(self) -> Finding:
        if self._driver is None:
            self._driver = load_driver(self.settings.engine)
        connector = Connector(
            self.settings,
            driver=self._driver,
            credentials=self._provider,
            clock=self._clock,
            tell=lambda _: None,
        )
        self._connection = connector.open_once(self._deadline)
        name = self.settings.name
        return Finding(found=f"in database {name}" if name else "in the default database", facts={"database": name})

    def _ask(self, question: Callable[[Settings, Any], Finding]) -> Finding:
        """Ask the server something, within the step's time."""
        assert self._driver is not None  # noqa: S101 - a login came before
        limit_s = self._limit_s()
        scope = CancelScope(where=self.settings.address, monotonic=self._clock.monotonic, interrupt=lambda _: None)
        scope.ends_at = self._clock.monotonic() + limit_s
        self._driver.bind_scope(self._connection, scope)
        try:
            finding = question(self.settings, self._connection)
        except DeadlineExceededError as error:
            raise StepFailedError(f"no answer within {limit_s:.2f} s", causes.of_silence(self.settings)) from error
        scope.ends_at = UNLIMITED_S
        return finding

    def _ping(self) -> Finding:
        assert self._driver is not None  # noqa: S101 - a login came before
        took_ms = []
        for _ in range(_PINGS):
            began = self._clock.monotonic()
            self._driver.ping(self._connection, timeout_s=self._limit_s())
            took_ms.append((self._clock.monotonic() - began) * 1000)
        shortest, middle = min(took_ms), sorted(took_ms)[_PINGS // 2]
        return Finding(
            found=f"{middle:.2f} ms (median of {_PINGS}), {shortest:.2f} ms the shortest",
            facts={"median_ms": round(middle, 3), "shortest_ms": round(shortest, 3), "count": _PINGS},
        )


class _Run:
    """What was found so far, and what of it stands in the way of later steps."""

    def __init__(self, deadline: Deadline, clock: Clock, tell: Callable[[Step], None] | None) -> None:
        self.deadline = deadline
        self._clock = clock
        self._tell = tell
        self._steps: list[Step] = []
        self._obstacles: dict[str, str] = {}  # by step: why those that need it are skipped

    def go_on(self, way: _Way | None) -> Diagnosis:
        """Take the steps after the settings; without settings, say of each that it is skipped."""
        if way is None:
            for name in list(STEPS)[1:]:
                self.take(name, _nothing)
            return Diagnosis(endpoint="", steps=tuple(self._steps))
        try:
            for name, act, explain in way.steps():
                self.take(name, act, explain)
        finally:
            way.close()
        return Diagnosis(endpoint=way.settings.address, steps=tuple(self._steps))

    def take(self, name: str, act: Callable[[], Finding], explain: Explain | None = None) -> None:
        """Take one step; `explain` gives the causes of an error of ours."""
        began = self._clock.monotonic()
        status: str = PASSED
        why: tuple[Cause, ...] = ()
        try:
            finding = self._unless_in_the_way(name, act)
        except _SkippedError as reason:
            status, finding = SKIPPED, Finding(found=str(reason))
        except StepFailedError as failure:
            status, finding, why = FAILED, Finding(found=failure.message, facts=failure.facts), failure.causes
        except LambdaDbConnError as error:
            status, finding = FAILED, Finding(found=_headline(error.message))
            why = explain(error) if explain is not None else causes.of_error(error)
        except Exception as error:  # noqa: BLE001 - a driver's, or a provider's own: a doctor says so, and goes on
            status, finding, why = (
                FAILED,
                Finding(found=excerpt(f"{type(error).__name__}: {error}")),
                causes.of_query(),
            )
        if status == FAILED:
            self._obstacles[name] = f"{name} failed"
        duration_ms = 0.0 if status == SKIPPED else (self._clock.monotonic() - began) * 1000
        step = Step(
            name=name,
            status=status,
            duration_ms=duration_ms,
            found=finding.found,
            facts=finding.facts,
            notes=finding.notes,
            causes=why,
        )
        self._steps.append(step)
        if self._tell is not None:
            self._tell(step)

    def _unless_in_the_way(self, name: str, act: Callable[[], Finding]) -> Finding:
        obstacle = next((self._obstacles[need] for need in STEPS[name] if need in self._obstacles), None)
        if obstacle is None and self.deadline.remaining_s() <= 0:
            obstacle = "no time was left"
        if obstacle is not None:
            self._obstacles[name] = obstacle
            raise _SkippedError(obstacle)
        return act()


def _deadline(context: InvocationContext | float | Deadline | None, reserve_s: float, clock: Clock) -> Deadline:
    if isinstance(context, Deadline):
        return context
    if context is None:
        return Deadline(DEFAULT_LIMIT_S, reserve_s=0.0, clock=clock)
    is_number = isinstance(context, (int, float))
    return Deadline(context, reserve_s=0.0 if is_number else reserve_s, clock=clock)


def _chosen(settings: Settings, notes: tuple[str, ...] = ()) -> Finding:
    user = settings.user or "the secret's user"
    return Finding(
        found=f"{settings.engine} at {settings.address} as {user}, by {settings.auth}",
        facts={
            "engine": settings.engine,
            "address": settings.address,
            "name": settings.name,
            "user": settings.user,
            "auth": settings.auth,
            "sslmode": settings.sslmode,
            "connect_timeout_s": settings.connect_timeout_s,
        },
        notes=notes,
    )


def _of_reader(settings: Settings) -> Settings:
    if settings.reader_host is None:
        raise ConfigurationError(f"{settings.variable('reader_host')} is not set, and the reader is to be examined")
    return settings.replace(host=settings.reader_host, signing_host=None)


def _reader_of_secrets(
    providers: list[SecretsManagerProvider], deadline: Deadline
) -> Callable[[str, str | None], Mapping[str, Any]]:
    """Return what reads a secret for the settings, and keeps the provider for the login."""

    def read(secret_id: str, region: str | None) -> Mapping[str, Any]:
        from lambda_dbconn.credentials.secrets_manager import SecretsManagerProvider

        providers.append(SecretsManagerProvider(secret_id, region=region))
        return providers[0].settings(deadline)

    return read


def _nothing() -> Finding:
    raise _SkippedError("nothing came before")


def _headline(message: str) -> str:
    """Return the first line of a message that lists several faults: the causes have them."""
    return _one_line(message.partition("\n  - ")[0].removesuffix(":"))


def _one_line(text: str) -> str:
    return " ".join(text.split())
