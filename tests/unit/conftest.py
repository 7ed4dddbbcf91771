"""What the unit tests share: Hypothesis profiles, fakes, settings for them, fresh processes; no sockets."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from lambda_dbconn import AsyncConnectionManager, ConnectionManager, Settings, registry
from lambda_dbconn.testing.fakes import FakeClock, FakeConnection, FakeDriver, FakeServer, RecordingObserver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

R = TypeVar("R")

CANARY = "Canary-7f3e9b"  # a password that must be seen nowhere

PROXY = "the-proxy.proxy-demo.us-east-1.rds.amazonaws.com"
READER = "mydb.cluster-ro-c7tj4example.us-east-1.rds.amazonaws.com"
INSTANCE = "mydb.c7tj4example.us-east-1.rds.amazonaws.com"

_RELAXED = [HealthCheck.too_slow]  # the machine may be busy; what is measured here is not time
hypothesis_settings.register_profile("dev", deadline=None, max_examples=60, suppress_health_check=_RELAXED)
hypothesis_settings.register_profile(
    "ci", deadline=None, max_examples=100, derandomize=True, database=None, suppress_health_check=_RELAXED
)
hypothesis_settings.register_profile("thorough", deadline=None, max_examples=1000, suppress_health_check=_RELAXED)
hypothesis_settings.load_profile(
    os.environ.get("LAMBDA_DBCONN_HYPOTHESIS") or ("ci" if os.environ.get("CI") else "dev")
)


@pytest.fixture(autouse=True, scope="module")
def no_network() -> Iterator[None]:
    """Fail a unit test that opens a connection to anything; a socket pair is fine."""

    def refusing(connect: Callable[[socket.socket, Any], Any]) -> Callable[[socket.socket, Any], Any]:
        def refuse(sock: socket.socket, address: object) -> Any:
            if threading.current_thread() is threading.main_thread():
                pytest.fail(f"a unit test connects to {address!r}")
            return connect(sock, address)  # a server's thread, of a test that is over

        return refuse

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refusing(socket.socket.connect))
        patch.setattr(socket.socket, "connect_ex", refusing(socket.socket.connect_ex))
        yield


@pytest.fixture
def environ(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Start from an environment without settings and a process without managers."""
    for name in [name for name in os.environ if name.startswith("DB_") or name == "DATABASE_URL"]:
        monkeypatch.delenv(name)
    known = dict(registry._managers)
    registry._managers.clear()
    yield monkeypatch
    registry._managers.clear()
    registry._managers.update(known)
    registry._async_managers.clear()


@pytest.fixture
def clock() -> FakeClock:
    """A clock that stands."""
    return FakeClock()


@pytest.fixture
def server(clock: FakeClock) -> Iterator[FakeServer]:
    """A server in memory."""
    with FakeServer(clock) as server:
        yield server


@pytest.fixture
def observer() -> RecordingObserver:
    """What keeps the events."""
    return RecordingObserver()


@pytest.fixture
def make(server: FakeServer, clock: FakeClock, observer: RecordingObserver) -> MakeManager:
    """Make managers for the server, with these settings instead of the defaults."""

    def make(**changes: Any) -> ConnectionManager[FakeConnection]:
        return ConnectionManager(local(**changes), driver=FakeDriver(server), clock=clock, observer=observer)

    return make


class AsyncFakeDriver:
    """Stands for `AsyncPostgresqlDriver`: `FakeDriver`, whose round trips are awaited."""

    def __init__(self, server: FakeServer) -> None:
        self._driver = FakeDriver(server)

    def __getattr__(self, name: str) -> Any:
        function = getattr(self._driver, name)
        if name not in {"ping", "begin", "commit", "rollback", "finish_reset", "read_rest", "put_back_tracked"}:
            return function

        async def awaited(*arguments: Any, **options: Any) -> None:
            await asyncio.sleep(0)
            function(*arguments, **options)

        return awaited


@pytest.fixture
def make_async(
    server: FakeServer, clock: FakeClock, observer: RecordingObserver
) -> Callable[..., AsyncConnectionManager[FakeConnection]]:
    """Make asyncio managers for the server, with these settings instead of the defaults."""

    def make(**changes: Any) -> AsyncConnectionManager[FakeConnection]:
        driver: Any = AsyncFakeDriver(server)
        return AsyncConnectionManager(local(**changes), driver=driver, clock=clock, observer=observer)

    return make


@pytest.fixture
def db(make: MakeManager) -> ConnectionManager[FakeConnection]:
    """A manager with the default limits."""
    return make()


if TYPE_CHECKING:
    MakeManager = Callable[..., ConnectionManager[FakeConnection]]


def local(**changes: Any) -> Settings:
    """Return good settings for a server on this machine, without TLS and its files."""
    given: dict[str, Any] = {"engine": "postgresql", "host": "localhost", "port": 5432, "user": "app"}
    return Settings(**{**given, "sslmode": "disable", **changes})


def in_thread(function: Callable[[], R]) -> R:
    """Run a function in another thread to its end; return or raise what it does."""
    outcome: list[R] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(function())
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(30)
    if failure:
        raise failure[0]
    assert outcome, "the thread did not end"
    return outcome[0]


def in_child(function: Callable[[], object]) -> str:
    """Fork, run a function in the child, and return the text of what it returned or raised there."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:  # pragma: no cover - in another process
        try:
            answer = str(function())
        except BaseException as error:
            answer = f"{type(error).__name__}: {error}"
        os.write(writing, answer.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        answer = pipe.read()
    os.waitpid(pid, 0)
    return answer


def in_fresh_process(code: str) -> str:
    """Run code in a new interpreter, and return what it printed."""
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert not done.returncode, done.stderr
    return done.stdout.strip()
