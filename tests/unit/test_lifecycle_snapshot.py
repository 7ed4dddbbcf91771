"""SnapStart: what is closed before a snapshot, and what is forgotten after its restore."""

from __future__ import annotations

import gc
import random
import weakref
from typing import TYPE_CHECKING

import pytest

from lambda_dbconn import ConnectError, ConnectionManager, Credentials, Secret
from lambda_dbconn.cache import process
from lambda_dbconn.cache.backoff import Backoff
from lambda_dbconn.credentials.aws_keys import AwsKeys, FunctionKeys
from lambda_dbconn.credentials.iam import IamProvider
from lambda_dbconn.credentials.secret_service import ServiceSource
from lambda_dbconn.credentials.secret_sources import ExtensionSource
from lambda_dbconn.credentials.secrets_manager import SecretsManagerProvider
from lambda_dbconn.deadline import Deadline
from lambda_dbconn.events import ConnectionClosed, ConnectionOpened, ConnectionReplaced
from lambda_dbconn.testing.fakes import FakeDriver, RecordingObserver
from tests.unit.conftest import in_fresh_process, local

if TYPE_CHECKING:
    from lambda_dbconn.settings import Settings
    from lambda_dbconn.testing.fakes import FakeClock, FakeConnection, FakeServer
    from tests.unit.conftest import MakeManager

    Manager = ConnectionManager[FakeConnection]

YEARS_S = 3 * 365 * 86400.0


def use(db: Manager) -> int:
    with db.connection() as conn:
        conn.execute("select 1")
    return conn.number


# --- connections


def test_connections_are_closed_before_the_snapshot_and_opened_anew_after_it(
    db: Manager, server: FakeServer, clock: FakeClock, observer: RecordingObserver
) -> None:
    use(db)
    process._before_snapshot()
    assert server.open_connections == []
    clock.advance(YEARS_S)
    process._after_restore()
    assert use(db) == 2
    assert [event.reason for event in observer.of(ConnectionOpened)] == ["first", "first"]


def test_a_connection_that_the_snapshot_kept_is_not_lent_after_it(
    db: Manager, server: FakeServer, observer: RecordingObserver
) -> None:
    use(db)
    process._after_restore()  # no time has passed by any clock, and the dead socket is silent
    assert use(db) == 2
    assert [event.reason for event in observer.of(ConnectionClosed)] == ["closed"]
    assert len(server.open_connections) == 1


def test_a_connection_that_is_lent_during_a_restore_is_closed_when_it_comes_back(
    make: MakeManager, server: FakeServer
) -> None:
    db = make()
    with db.connection() as conn:
        process._after_restore()
        assert not conn.is_released
    assert conn.is_released
    assert use(db) == 2


def test_what_was_replaced_before_the_snapshot_is_not_told_years_later(
    db: Manager, server: FakeServer, observer: RecordingObserver
) -> None:
    use(db)
    server.hang_up()
    server.refuse(error=ConnectError("refused"))
    with pytest.raises(ConnectError), db.connection():
        pytest.fail("nothing was to be lent")
    process._after_restore()
    use(db)
    assert observer.of(ConnectionReplaced) == []


# --- what providers keep


class Forgetting:
    """Stands for a user's provider that keeps something. It can be neither hashed nor referred to weakly."""

    __slots__ = ("forgotten",)
    __hash__ = None  # type: ignore[assignment] # like a dataclass with `eq`

    def __init__(self) -> None:
        self.forgotten = 0

    def fetch(self, settings: Settings, deadline: Deadline) -> Credentials:
        return Credentials(user="app")

    def refused(self, credentials: Credentials) -> bool:
        return False

    def forget(self) -> None:
        self.forgotten += 1

    def __call__(self) -> Credentials:
        return Credentials(user="app")


class ForgettingFunction(Forgetting):
    """A callable that keeps something, and is no provider."""

    fetch = property()  # hides it: reading it is an AttributeError


@pytest.mark.parametrize("kind", [Forgetting, ForgettingFunction])
def test_a_provider_or_function_of_the_user_s_forgets_if_it_can(server: FakeServer, kind: type[Forgetting]) -> None:
    provider = kind()
    db = ConnectionManager(local(), driver=FakeDriver(server), credentials=provider)
    process._before_snapshot()
    assert provider.forgotten == 0
    process._after_restore()
    assert provider.forgotten == 1
    assert use(db) == 1


def test_a_provider_that_fails_to_forget_fails_no_restore_and_the_others_forget(
    server: FakeServer, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing(Forgetting):
        __slots__ = ()

        def forget(self) -> None:
            super().forget()
            raise ValueError("nothing to forget")

    providers = [Failing(), Failing()]
    managers = [ConnectionManager(local(), driver=FakeDriver(server), credentials=each) for each in providers]
    for db in managers:
        use(db)
    process._after_restore()
    assert [each.forgotten for each in providers] == [1, 1]
    assert server.open_connections == []
    assert "nothing to forget" in caplog.text


class Store:
    """Stands for Secrets Manager: a password that changes."""

    name = "store"

    def __init__(self) -> None:
        self.password = "old"
        self.reads: list[str] = []
        self.forgotten = 0

    def read(self, secret_id: str, *, stage: str, timeout_s: float) -> Secret | None:
        self.reads.append(stage)
        return Secret(f'{{"username": "app", "password": "{self.password}"}}') if stage == "AWSCURRENT" else None

    def forget(self) -> None:
        self.forgotten += 1


def test_a_secret_is_read_again_after_a_restore(clock: FakeClock) -> None:
    store = Store()
    provider = SecretsManagerProvider("shop", nearest=store, service=store, clock=clock)
    deadline = Deadline(None, reserve_s=0, clock=clock)
    assert provider.fetch(local(), deadline).password == Secret("old")
    store.password = "new"
    provider.forget()
    assert provider.fetch(local(), deadline).password == Secret("new")
    assert store.forgotten == 2


def test_the_interval_between_rereads_begins_anew_after_a_restore(clock: FakeClock) -> None:
    store = Store()
    provider = SecretsManagerProvider("shop", nearest=store, service=store, clock=clock)
    deadline = Deadline(None, reserve_s=0, clock=clock)
    old = provider.fetch(local(), deadline)
    assert provider.refused(old)
    provider.fetch(local(), deadline)
    provider.forget()
    store.reads.clear()
    found = provider.fetch(local(), deadline)
    assert store.reads == ["AWSCURRENT"]  # and not the rest of the round that the refusal had begun
    store.password = "new"
    assert provider.refused(found)  # at once, though by the clocks the last round began just now
    assert provider.fetch(local(), deadline).password == Secret("new")


def test_keys_and_clients_of_botocore_are_forgotten() -> None:
    keys = FunctionKeys()
    keys._found = object()
    service = ServiceSource(region="us-east-1")
    service._clients[2.0] = object()
    IamProvider(keys=keys).forget()
    service.forget()
    assert keys._found is None
    assert service._clients == {}


def test_the_extension_s_keys_are_forgotten() -> None:
    keys = FunctionKeys()
    keys._found = object()
    ExtensionSource(keys=keys).forget()
    assert keys._found is None


def test_keys_that_a_plain_function_gives_need_no_forgetting() -> None:
    IamProvider(keys=lambda: AwsKeys(access_key_id="AKID", secret_access_key=Secret("s"))).forget()


def test_a_secret_that_only_the_settings_were_read_from_is_forgotten_too(clock: FakeClock) -> None:
    store = Store()
    provider = SecretsManagerProvider("shop", nearest=store, service=store, clock=clock)
    process.watch_memory(provider)
    provider.settings(Deadline(None, reserve_s=0, clock=clock))
    process._after_restore()
    assert provider._known is None
    gone = weakref.ref(provider)
    del provider
    gc.collect()
    assert gone() is None


# --- jitter


def test_pauses_between_tries_do_not_come_from_a_state_that_clones_share() -> None:
    state = random.getstate()
    backoff = Backoff()
    one = [backoff.pause_s() for _ in range(20)]
    random.setstate(state)
    backoff = Backoff()
    other = [backoff.pause_s() for _ in range(20)]
    assert not set(one) & set(other)
    assert random.getstate() == state


# --- registration

REGISTERED = """
import sys
{before}
import lambda_dbconn
hooks = sys.modules.get("snapshot_restore_py")
print(hooks is not None and (len(hooks.get_before_snapshot()), len(hooks.get_after_restore())))
"""


def test_hooks_are_registered_by_the_import_under_snap_start(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("snapshot_restore_py", reason="the library of the hooks is not installed")
    monkeypatch.setenv("AWS_LAMBDA_INITIALIZATION_TYPE", "snap-start")
    assert in_fresh_process(REGISTERED.format(before="")) == "(1, 1)"


@pytest.mark.parametrize("kind", ["", "on-demand", "provisioned-concurrency", "lambda-managed-instances"])
def test_nothing_is_imported_or_registered_elsewhere(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setenv("AWS_LAMBDA_INITIALIZATION_TYPE", kind)
    assert in_fresh_process(REGISTERED.format(before="")) == "False"


def test_snap_start_without_the_library_of_the_hooks_fails_no_import(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_LAMBDA_INITIALIZATION_TYPE", "snap-start")
    missing = "sys.modules['snapshot_restore_py'] = None"
    assert in_fresh_process(REGISTERED.format(before=missing)) == "False"


def test_the_hooks_of_the_library_are_the_outermost(monkeypatch: pytest.MonkeyPatch) -> None:
    runner = "awslambdaric.lambda_runtime_hooks_runner"
    pytest.importorskip(runner, reason="the runtime client is not installed", exc_type=ImportError)
    monkeypatch.setenv("AWS_LAMBDA_INITIALIZATION_TYPE", "snap-start")
    code = f"""
import lambda_dbconn
from lambda_dbconn.cache import process
from snapshot_restore_py import register_after_restore, register_before_snapshot
from {runner} import run_after_restore, run_before_snapshot
said = []
class Holder:
    def close(self): said.append("close")
    def forget(self): said.append("forget")
holder = Holder()
process.watch(holder)
register_before_snapshot(said.append, "the function's")
register_after_restore(said.append, "the function's")
run_before_snapshot()
run_after_restore()
print(said)
"""
    assert in_fresh_process(code) == str(["the function's", "close", "forget", "the function's"])
