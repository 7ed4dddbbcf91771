"""SIGTERM: what is closed, who is called next, what is left alone. Each signal is sent in a child of its own."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from lambda_dbconn.cache import process
from tests.unit.conftest import in_child, in_thread

if TYPE_CHECKING:
    from collections.abc import Callable

    from lambda_dbconn import ConnectionManager
    from lambda_dbconn.testing.fakes import FakeConnection, FakeServer
    from tests.unit.conftest import MakeManager

    Manager = ConnectionManager[FakeConnection]

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")

DIED = ""
_LIMIT_S = 20  # then a child that hangs is ended


def in_process(function: Callable[[], object], *, before: Any = signal.SIG_DFL) -> str:
    """Run in a child with this handler and none of the library's; `DIED` if a signal ended it."""

    def run() -> object:
        signal.alarm(_LIMIT_S)
        process._handlers_before.clear()
        signal.signal(signal.SIGTERM, before)
        return function()

    return in_child(run)


def use(db: Manager) -> int:
    with db.connection() as conn:
        conn.execute("select 1")
    return conn.number


def terminate() -> None:
    signal.raise_signal(signal.SIGTERM)


def test_without_another_handler_the_process_ends_as_it_would_have(db: Manager) -> None:
    def function() -> None:
        use(db)
        assert process.close_on_sigterm()
        terminate()

    assert in_process(function) == DIED


def test_a_handler_that_was_there_is_called_when_all_is_closed(make: MakeManager, server: FakeServer) -> None:
    managers = [make(), make(name="shop")]
    said: list[object] = []

    def before(number: int, frame: object) -> None:
        said.extend([number == signal.SIGTERM, frame is not None, len(server.open_connections)])

    def function() -> object:
        for db in managers:
            use(db)
        process.close_on_sigterm()
        terminate()
        return said, [connection.closes for connection in server.connections]

    assert in_process(function, before=before) == "([True, True, 0], [1, 1])"


def test_a_process_that_ignores_the_signal_goes_on_with_new_connections(db: Manager) -> None:
    def function() -> object:
        use(db)
        process.close_on_sigterm()
        terminate()
        return use(db), db.stats().open

    assert in_process(function, before=signal.SIG_IGN) == "(2, 1)"


def test_every_idle_connection_of_a_manager_is_closed(make: MakeManager, server: FakeServer) -> None:
    db = make(max_connections=3)

    def function() -> object:
        with db.connection():
            in_thread(lambda: use(db))
        process.close_on_sigterm()
        terminate()
        return [connection.closes for connection in server.connections], use(db)

    assert in_process(function, before=signal.SIG_IGN) == "([1, 1], 3)"


def test_a_lent_connection_is_left_alone(make: MakeManager, server: FakeServer) -> None:
    db = make(max_connections=2)

    def function() -> object:
        process.close_on_sigterm()
        with db.transaction() as conn:
            in_thread(lambda: use(db))
            conn.execute("insert")
            terminate()
            conn.execute("update")
        return list(server.committed), [connection.closes for connection in server.connections], use(db)

    assert in_process(function, before=signal.SIG_IGN) == "(['select 1', 'insert', 'update'], [0, 1], 1)"


def test_the_signal_may_come_while_the_main_thread_holds_a_lock(db: Manager, server: FakeServer) -> None:
    def function() -> object:
        use(db)
        process.close_on_sigterm()
        with db._cache._recorder._counting:
            terminate()
        return server.connections[0].closes

    assert in_process(function, before=signal.SIG_IGN) == "1"


def test_the_signal_may_come_between_any_two_steps_of_a_loan(db: Manager, server: FakeServer) -> None:
    """Let the signal come at every line of a borrow and a return, one after another: no loan fails."""
    moments: list[int] = []

    def function() -> object:
        process.close_on_sigterm()
        for moment in range(1, 400):
            use(db)
            left = moment

            def trace(frame: Any, event: str, _argument: object) -> Any:
                nonlocal left
                if frame.f_code.co_filename == process.__file__:
                    return None
                if event == "line":
                    left -= 1
                    if left == 0:
                        terminate()
                return trace

            sys.settrace(trace)
            try:
                use(db)
            finally:
                sys.settrace(None)
            moments.append(left)
            if left > 0:
                break
        slots = [slot.is_empty for slot in db._cache._slots if slot not in db._cache._owners]
        return moments[-1] > 0, len(moments) > 20, slots, max(connection.closes for connection in server.connections)

    assert in_process(function, before=signal.SIG_IGN) == "(True, True, [False], 1)"


def test_a_later_handler_that_calls_ours_is_not_ended_in_the_middle(db: Manager, server: FakeServer) -> None:
    def function() -> object:
        use(db)
        process.close_on_sigterm()
        ours = signal.getsignal(signal.SIGTERM)
        said = []

        def later(number: int, frame: Any) -> None:
            assert callable(ours)
            ours(number, frame)
            said.append("and on")

        signal.signal(signal.SIGTERM, later)
        terminate()
        return said, server.connections[0].closes

    assert in_process(function) == "(['and on'], 1)"


def test_a_later_handler_stays_when_another_manager_is_made(make: MakeManager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_runs_signal_handlers", lambda: True)
    monkeypatch.setenv("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:9001")
    said: list[int] = []

    def function() -> object:
        make()
        assert signal.getsignal(signal.SIGTERM) is process._on_sigterm
        signal.signal(signal.SIGTERM, lambda *_: said.append(1))
        make()
        terminate()
        return said

    assert in_process(function) == "[1]"


def test_no_goodbye_begins_when_the_time_is_over(
    make: MakeManager, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    managers = [make(name=f"shop{number}") for number in range(5)]

    def function() -> object:
        for db in managers:
            use(db)
        monkeypatch.setattr(time, "monotonic", lambda: server.counts["close"] * 0.1)  # each takes a tenth of a second
        process._part_within(0.25)
        return server.counts["close"]

    assert in_process(function) == "3"


def test_a_driver_that_fails_to_close_hinders_no_other_handler(db: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[int] = []

    def fail(_connection: object) -> None:
        raise OSError("no goodbye")

    def function() -> object:
        use(db)
        monkeypatch.setattr(db._driver, "close", fail)
        process.close_on_sigterm()
        terminate()
        return said, len(db._cache._slots) - len(db._cache._owners)

    assert in_process(function, before=lambda *_: said.append(1)) == "([1], 1)"


def test_only_the_main_thread_installs_it_and_a_failed_attempt_is_none() -> None:
    def function() -> object:
        in_another = in_thread(lambda: str(process.close_on_sigterm()))
        return in_another, process.close_on_sigterm(), process.close_on_sigterm()

    assert in_process(function) == "('False', True, True)"


def test_a_handler_that_is_not_python_s_is_left_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def function() -> object:
        monkeypatch.setattr("_signal.getsignal", lambda _number: None)
        return process.close_on_sigterm(), process._handlers_before

    assert in_process(function) == "(False, [])"


@pytest.mark.parametrize(
    ("variables", "is_installed"),
    [
        ({}, False),
        ({"AWS_LAMBDA_RUNTIME_API": "127.0.0.1:9001"}, False),  # an image whose client waits in C
        ({"AWS_EXECUTION_ENV": "AWS_ECS_FARGATE", "AWS_LAMBDA_RUNTIME_API": "127.0.0.1:9001"}, False),
        ({"AWS_EXECUTION_ENV": "AWS_Lambda_python3.13"}, False),
        (
            {"AWS_EXECUTION_ENV": "AWS_Lambda_python3.13", "AWS_LAMBDA_RUNTIME_API": "127.0.0.1:9001"},
            sys.version_info >= (3, 12),
        ),
    ],
)
def test_it_is_installed_by_itself_only_where_lambda_lets_it_run(
    make: MakeManager, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], *, is_installed: bool
) -> None:
    for name in ("AWS_LAMBDA_RUNTIME_API", "AWS_EXECUTION_ENV"):
        monkeypatch.setenv(name, variables.get(name, ""))

    def function() -> object:
        make()
        return signal.getsignal(signal.SIGTERM) is process._on_sigterm

    assert in_process(function) == str(is_installed)
