"""A secret is rotated while a handler is invoked: no invocation fails, and none sleeps."""

from __future__ import annotations

import select
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from lambda_dbconn import ConnectionManager, Settings
from lambda_dbconn.events import ConnectFailed, CredentialsFetched
from lambda_dbconn.testing.fakes import RecordingObserver
from tests.support.clients import query
from tests.support.secrets_manager import (
    LocalSecretsManager,
    Rotation,
    local_extension,
    local_secrets_manager,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lambda_dbconn.testing.servers import LocalServer

pytestmark = pytest.mark.once

ROUNDS = 3


class SleeplessClock:
    """The system's clocks, which can be put forward, and a sleep that is a failure: none is needed."""

    def __init__(self) -> None:
        self._shift_s = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self._shift_s

    def wall(self) -> float:
        return time.time() + self._shift_s

    def sleep(self, seconds: float) -> None:
        raise AssertionError(f"an invocation slept for {seconds} s")

    def advance(self, seconds: float) -> None:
        self._shift_s += seconds


class Function:
    """A function of one execution environment, whose connections come to an end again and again."""

    def __init__(self, server: LocalServer, rotation: Rotation) -> None:
        assert server.certificates is not None
        self.rotation = rotation
        self.clock = SleeplessClock()
        self.observer = RecordingObserver()
        self.users: list[str] = []
        self._is_postgresql = server.engine == "postgresql"
        self._fileno = -1
        self.db: ConnectionManager[Any] = ConnectionManager(
            Settings(
                engine=server.engine,
                host=server.host,
                port=server.port,
                name=server.database,
                auth="secret",
                secret_id=rotation.secret_id,
                sslrootcert=str(server.certificates.ca_path),
            ),
            clock=self.clock,
            observer=self.observer,
        )

    def handler(self) -> None:
        with self.db.connection(30) as connection:
            statement = "SELECT current_user" if self._is_postgresql else "SELECT substring_index(user(), '@', 1)"
            self.users.append(query(connection, statement))
            self._fileno = connection.fileno()

    def lose_by_kill(self) -> None:
        self.rotation.end_sessions()
        poll = select.poll()
        poll.register(self._fileno, getattr(select, "POLLRDHUP", select.POLLIN))
        assert poll.poll(10_000)

    def lose_by_age(self) -> None:
        self.clock.advance(self.db.settings.max_lifetime_s)


@pytest.fixture(scope="module")
def secrets_manager() -> Iterator[LocalSecretsManager]:
    with local_secrets_manager() as manager:
        yield manager


@pytest.fixture(autouse=True)
def in_a_function(secrets_manager: LocalSecretsManager, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in secrets_manager.environment().items():
        monkeypatch.setenv(name, value)


@pytest.fixture(params=[False, True], ids=["single-user", "alternating-users"])
def rotation(request: pytest.FixtureRequest, server: LocalServer, secrets_manager: LocalSecretsManager) -> Rotation:
    return Rotation(secrets_manager, server, is_alternating=request.param)


LOSSES: list[Callable[[Function], None]] = [Function.lose_by_kill, Function.lose_by_age]


@pytest.mark.parametrize("lose", LOSSES, ids=["killed", "expired"])
def test_no_invocation_fails_wherever_in_a_rotation_its_connection_is_lost(
    server: LocalServer, rotation: Rotation, lose: Callable[[Function], None]
) -> None:
    function = Function(server, rotation)
    with closing(function.db):
        function.handler()
        for _ in range(ROUNDS):
            for step in Rotation.STEPS:
                getattr(rotation, step)()
                lose(function)
                function.handler()
            function.clock.advance(10)  # the next rotation is not a moment later
        assert function.db.stats().opened == 1 + ROUNDS * len(Rotation.STEPS)
        assert function.observer.of(ConnectFailed) == []
        assert len(function.users) == function.db.stats().opened


@pytest.mark.parametrize("step", Rotation.STEPS)
def test_a_cold_start_after_each_step_of_a_rotation_gets_in(server: LocalServer, rotation: Rotation, step: str) -> None:
    for name in Rotation.STEPS[: Rotation.STEPS.index(step) + 1]:
        getattr(rotation, name)()
    function = Function(server, rotation)
    with closing(function.db):
        function.handler()
    assert function.observer.of(ConnectFailed) == []


def test_in_the_window_the_pending_version_is_what_lets_a_function_in(
    server: LocalServer, secrets_manager: LocalSecretsManager
) -> None:
    rotation = Rotation(secrets_manager, server, is_alternating=False)
    function = Function(server, rotation)
    with closing(function.db):
        function.handler()
        rotation.create_secret()
        rotation.set_secret()
        function.lose_by_kill()
        function.handler()
    stages = [event.stage for event in function.observer.of(CredentialsFetched)]
    assert stages == ["AWSCURRENT", "AWSCURRENT", "AWSPENDING"]


def test_in_the_middle_of_a_rotation_a_function_changes_over_to_the_other_user(
    server: LocalServer, secrets_manager: LocalSecretsManager
) -> None:
    rotation = Rotation(secrets_manager, server, is_alternating=True)
    function = Function(server, rotation)
    with closing(function.db):
        function.handler()
        for step in (*Rotation.STEPS, "create_secret", "set_secret"):  # the first user's password changes again
            getattr(rotation, step)()
        function.lose_by_kill()
        function.handler()
    assert function.users == [rotation.user, f"{rotation.user}_clone"]


def test_the_extensions_stale_cache_costs_no_invocation(
    server: LocalServer, rotation: Rotation, secrets_manager: LocalSecretsManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    with local_extension(secrets_manager) as extension:
        for name, value in extension.environment().items():
            monkeypatch.setenv(name, value)
        before = Function(server, rotation)
        with closing(before.db):
            before.handler()
        for _ in range(2):
            for step in Rotation.STEPS:
                getattr(rotation, step)()
        after = Function(server, rotation)
        with closing(after.db):
            after.handler()
    assert len(extension.asked) == 2
    sources = [event.source for event in after.observer.of(CredentialsFetched)]
    assert sources == ["extension", "secrets_manager"]


def test_a_function_that_never_stops_reconnecting_outlives_every_rotation(
    server: LocalServer, rotation: Rotation
) -> None:
    function = Function(server, rotation)
    failures: list[BaseException] = []
    has_ended, has_invoked = threading.Event(), threading.Semaphore(0)

    def invoke() -> None:
        while not has_ended.is_set():
            try:
                function.handler()
            except BaseException as error:
                failures.append(error)
            function.db.close()
            has_invoked.release()

    thread = threading.Thread(target=invoke)
    thread.start()
    try:
        for _ in range(ROUNDS):
            for step in Rotation.STEPS:
                getattr(rotation, step)()
            for _ in range(2):  # of which the second began after the rotation
                assert has_invoked.acquire(timeout=30)
            while has_invoked.acquire(blocking=False):
                pass
            assert has_invoked.acquire(timeout=30)
            function.clock.advance(10)
    finally:
        has_ended.set()
        thread.join()
        function.db.close()
    assert failures == []
    assert len(function.users) > ROUNDS
