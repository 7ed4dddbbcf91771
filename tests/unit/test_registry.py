from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from lambda_dbconn import ConfigurationError, ConnectError, ConnectionManager, from_env, manager, registry
from lambda_dbconn.cache import process
from lambda_dbconn.testing.fakes import FakeDriver, FakeServer, RecordingObserver

if TYPE_CHECKING:
    from lambda_dbconn.testing.fakes import FakeConnection

LOCAL = {"ENGINE": "postgresql", "HOST": "localhost", "USER": "app", "PASSWORD": "pw", "SSLMODE": "disable"}


@pytest.fixture(autouse=True)
def fake_driver(environ: pytest.MonkeyPatch, server: FakeServer) -> None:
    environ.setattr(manager, "load_driver", lambda engine: FakeDriver(server))
    environ.setattr(registry, "_warm_ups_took_s", [])
    give(environ)


def give(environ: pytest.MonkeyPatch, prefix: str = "DB_", **changes: str) -> None:
    for name, value in {**LOCAL, **changes}.items():
        environ.setenv(prefix + name, value)


def test_from_env_asked_twice_gives_the_same_manager() -> None:
    assert from_env() is from_env()


def test_equal_settings_under_another_prefix_give_the_same_manager(environ: pytest.MonkeyPatch) -> None:
    give(environ, "SHOP_")
    assert from_env("SHOP_") is from_env()


@pytest.mark.parametrize(
    "change", [{"HOST": "127.0.0.1"}, {"USER": "root"}, {"PASSWORD": "other"}, {"MAX_IDLE_S": "60"}, {"NAME": "shop"}]
)
def test_different_settings_give_different_managers(environ: pytest.MonkeyPatch, change: dict[str, str]) -> None:
    give(environ, "SHOP_", **change)
    assert from_env("SHOP_") is not from_env()


def test_settings_that_changed_in_between_give_another_manager(environ: pytest.MonkeyPatch) -> None:
    before = from_env()
    environ.setenv("DB_NAME", "shop")
    assert from_env() is not before
    environ.delenv("DB_NAME")
    assert from_env() is before


def test_the_engine_of_the_code_is_checked_and_makes_no_second_manager() -> None:
    assert from_env(engine="postgresql") is from_env()
    with pytest.raises(ConfigurationError, match="the code asks for 'mysql'"):
        from_env(engine="mysql")


def test_threads_that_ask_at_once_get_the_same_manager() -> None:
    start = threading.Barrier(8)
    managers = []

    def ask() -> None:
        start.wait(30)
        managers.append(from_env())

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(managers) == 8
    assert len(set(managers)) == 1


def test_from_env_reads_and_checks_but_opens_nothing(environ: pytest.MonkeyPatch, server: FakeServer) -> None:
    assert isinstance(from_env(), ConnectionManager)
    assert server.counts["open"] == 0
    environ.setenv("DB_PORT", "x")
    with pytest.raises(ConfigurationError, match="DB_PORT is 'x'"):
        from_env()


def test_two_modules_of_a_function_share_one_connection(server: FakeServer) -> None:
    for _ in range(2):
        with from_env().connection() as conn:
            conn.execute("select 1")
    assert server.counts["open"] == 1


# --- warm_up


def test_nothing_is_connected_unless_it_is_asked_for(server: FakeServer) -> None:
    from_env()
    assert server.counts["open"] == 0


def test_warm_up_in_the_environment_connects_once(environ: pytest.MonkeyPatch, server: FakeServer) -> None:
    environ.setenv("DB_WARM_UP", "INIT")
    db = from_env()
    assert server.counts["open"] == 1
    assert from_env() is db
    with db.connection() as conn:
        conn.execute("select 1")
    assert server.counts["open"] == 1


def test_when_to_connect_makes_no_second_manager(environ: pytest.MonkeyPatch, server: FakeServer) -> None:
    give(environ, "SHOP_", WARM_UP="init")
    assert from_env("SHOP_") is from_env()
    assert server.counts["open"] == 1


def test_a_warm_up_that_fails_fails_no_init(environ: pytest.MonkeyPatch, server: FakeServer) -> None:
    environ.setenv("DB_WARM_UP", "init")
    server.refuse(error=ConnectError("no such database"))
    db = from_env()
    with db.connection() as conn:
        conn.execute("select 1")


def test_all_managers_warm_up_in_five_seconds_together(environ: pytest.MonkeyPatch, server: FakeServer) -> None:
    now = 100.0
    environ.setattr(registry, "SystemClock", lambda: SimpleNamespace(monotonic=lambda: now))

    def take(_server: FakeServer, _credentials: object, timeout_s: float) -> FakeConnection:
        nonlocal now
        limits_s.append(timeout_s)
        now += 3.0
        raise ConnectError("too late")

    limits_s: list[float] = []
    environ.setattr(FakeServer, "accept", take)
    for name in ("one", "two", "three"):
        give(environ, name.upper() + "_", NAME=name, WARM_UP="init", CONNECT_TIMEOUT_S="60")
        from_env(name.upper() + "_")
    assert limits_s == pytest.approx([5.0, 2.0], abs=0.5)  # and nothing is left for the third


def test_a_warm_up_that_is_no_time_to_connect_is_refused(environ: pytest.MonkeyPatch) -> None:
    environ.setenv("DB_WARM_UP", "always")
    with pytest.raises(ConfigurationError, match="DB_WARM_UP is 'always'; accepted: init"):
        from_env()


# --- a secret that was read for the settings


def test_a_secret_that_no_manager_has_is_forgotten_after_a_restore(environ: pytest.MonkeyPatch) -> None:
    forgotten = []

    class Provider:
        """Stands for the provider of a secret that says nothing but who."""

        def __init__(self, secret_id: str, *, region: str | None) -> None:
            self.secret_id = secret_id

        def settings(self, deadline: object) -> dict[str, object]:
            return {}

        def forget(self) -> None:
            forgotten.append(self.secret_id)

    environ.setattr("lambda_dbconn.credentials.secrets_manager.SecretsManagerProvider", Provider)
    environ.setattr(registry, "_secrets", {})
    give(environ, "SHOP_", SECRET_ID="shop", PASSWORD="", HOST="")
    with pytest.raises(ConfigurationError, match="SHOP_HOST is not set"):
        from_env("SHOP_")
    process._after_restore()
    assert forgotten == ["shop"]


# --- the observer


def test_an_observer_is_told_by_the_manager_that_it_was_given_to(observer: RecordingObserver) -> None:
    with from_env(observer=observer).connection():
        pass
    assert observer.names() == ["ConnectionOpened"]


def test_who_gives_no_observer_or_the_same_one_gets_the_same_manager(observer: RecordingObserver) -> None:
    db = from_env(observer=observer)
    assert from_env() is db
    assert from_env(observer=observer) is db


@pytest.mark.parametrize("is_default", [True, False])
def test_another_observer_for_the_same_settings_is_refused(observer: RecordingObserver, is_default: bool) -> None:
    from_env(observer=None if is_default else RecordingObserver())
    known = "LoggingObserver" if is_default else "RecordingObserver"
    with pytest.raises(ConfigurationError, match=rf"observer is a RecordingObserver, but .* another {known} already"):
        from_env(observer=observer)


def test_the_reader_tells_the_same_observer(environ: pytest.MonkeyPatch, observer: RecordingObserver) -> None:
    environ.setenv("DB_READER_HOST", "127.0.0.1")
    with from_env(observer=observer).reader.connection():
        pass
    assert [event.endpoint for event in observer.events] == ["127.0.0.1:5432"]
