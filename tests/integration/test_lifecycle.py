"""The life of an execution environment, under the real runtime client and with real servers: from init to shutdown."""

from __future__ import annotations

import re
import signal
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import lambda_dbconn
from lambda_dbconn.testing.runtime_api import LocalRuntime
from tests.support import functions
from tests.support.clients import wait_until
from tests.support.lock_times import make_things, new_thing
from tests.support.stage import STATEMENTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lambda_dbconn.testing.servers import LocalServer

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="awslambdaric has wheels for Linux only")

PACKAGE = Path(lambda_dbconn.__file__).parent.parent
LIMIT_S = 30.0

runs_handlers = pytest.mark.skipif(
    sys.version_info < (3, 12), reason="there, the main thread waits in C and runs no handler"
)


@contextmanager
def function(server: LocalServer, *, handler: str = "ordinary.handler", **variables: str) -> Iterator[LocalRuntime]:
    """Begin an environment of a function that uses this database."""
    assert server.certificates is not None
    where = {
        "DB_ENGINE": server.engine,
        "DB_HOST": server.host,
        "DB_PORT": str(server.port),
        "DB_NAME": server.database,
        "DB_USER": server.user,
        "DB_PASSWORD": server.password,
        "DB_SSLROOTCERT": str(server.certificates.ca_path),
    }
    with LocalRuntime(
        directory=Path(functions.__file__).parent,
        handler=handler,
        environment={**where, "PYTHONPATH": str(PACKAGE), **variables},
        timeout_s=LIMIT_S,
        init_timeout_s=LIMIT_S,
    ) as runtime:
        yield runtime


def invoke(runtime: LocalRuntime, **event: Any) -> dict[str, Any]:
    invocation = runtime.invoke(event)
    assert invocation.error is None, runtime.output()
    told: dict[str, Any] = invocation.value
    return told


# --- init


def test_a_connection_opened_at_init_serves_the_first_invocation(own_server: LocalServer) -> None:
    with function(own_server, DB_WARM_UP="init") as runtime:
        (session,) = own_server.session_ids()
        told = invoke(runtime)
    assert (told["opened_at_init"], told["opened"], told["session"]) == (1, 1, session)


def test_a_connection_opened_at_init_that_is_stale_is_replaced(own_server: LocalServer) -> None:
    with function(own_server, DB_WARM_UP="init") as runtime:
        (session,) = own_server.session_ids()
        own_server.kill_session(session)
        told = invoke(runtime)
    assert told["session"] != session
    assert told["replaced"] == {"hang_up": 1}


def test_a_warm_up_that_fails_fails_no_init_and_is_told_by_the_invocation_that_fails_too(
    own_server: LocalServer,
) -> None:
    own_server.stop()
    with function(own_server, DB_WARM_UP="init", DB_CONNECT_TIMEOUT_S="1.5") as runtime:
        assert "WarmUpFailed" in runtime.output()
        told = invoke(runtime)
        assert told["error"] == "ConnectError"
        assert re.match("warm_up.. had failed before: ConnectError", told["notes"][0])
        assert invoke(runtime)["notes"] == []
        own_server.start()
        told = invoke(runtime)
        assert ("error" in told, told["opened_at_init"], told["opened"]) == (False, 0, 1)


def test_a_fault_that_has_passed_after_init_is_none_for_the_first_invocation(own_server: LocalServer) -> None:
    own_server.stop()
    with function(own_server, DB_WARM_UP="init", DB_CONNECT_TIMEOUT_S="1.5") as runtime:
        own_server.start()
        assert invoke(runtime)["opened"] == 1


def test_a_warm_up_leaves_time_in_the_init_phase_whatever_the_limits_say(server: LocalServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:  # takes connections, and says nothing
        variables = {"DB_WARM_UP": "init", "DB_CONNECT_TIMEOUT_S": "600", "DB_PORT": str(mute.getsockname()[1])}
        with function(server, **variables) as runtime:
            assert "WarmUpFailed" in runtime.output()
            assert "ConnectTimeoutError" in runtime.output()


# --- shutdown


def lost_without_a_goodbye(server: LocalServer) -> int:
    """Count the sessions whose client went without a word; the server does so before it takes one off its list."""
    if server.engine == "postgresql":
        statement = "SELECT sessions_abandoned FROM pg_stat_database WHERE datname = %s"
        return int(server.query(statement, server.database)[0][0])
    return int(server.query("SHOW GLOBAL STATUS LIKE 'Aborted_clients'")[0][1])


def test_an_environment_that_is_killed_says_no_goodbye(own_server: LocalServer) -> None:
    before = lost_without_a_goodbye(own_server)
    with function(own_server) as runtime:
        invoke(runtime)
        runtime.kill()
        wait_until(lambda: own_server.session_ids() == [])
        assert lost_without_a_goodbye(own_server) == before + 1


@runs_handlers
def test_on_sigterm_the_server_is_told_goodbye_and_the_process_ends_by_the_signal(own_server: LocalServer) -> None:
    before = lost_without_a_goodbye(own_server)
    with function(own_server) as runtime:
        invoke(runtime)
        assert runtime.shutdown(grace_s=LIMIT_S) == -signal.SIGTERM
    wait_until(lambda: own_server.session_ids() == [])
    assert lost_without_a_goodbye(own_server) == before


@runs_handlers
def test_a_sigterm_handler_of_the_function_s_is_called_after_the_goodbye(own_server: LocalServer) -> None:
    before = lost_without_a_goodbye(own_server)
    with function(own_server, SIGTERM_HANDLER="mine") as runtime:
        invoke(runtime)
        runtime.freeze()
        assert runtime.shutdown(grace_s=LIMIT_S) == 0  # it ends with `os._exit`, which closes nothing
        assert "goodbye 15" in runtime.output()
    wait_until(lambda: own_server.session_ids() == [])
    assert lost_without_a_goodbye(own_server) == before


@runs_handlers
def test_a_server_that_does_not_answer_delays_no_shutdown(own_server: LocalServer) -> None:
    with function(own_server, DB_MAX_CONNECTIONS="3") as runtime:
        invoke(runtime, in_threads=3)
        own_server.freeze()
        try:
            assert runtime.shutdown(grace_s=5.0) == -signal.SIGTERM  # and not SIGKILL, which comes when that is over
        finally:
            own_server.thaw()
    wait_until(lambda: own_server.session_ids() == [])


# --- processes


def test_each_worker_of_a_managed_instance_has_a_connection_of_its_own(own_server: LocalServer, tmp_path: Path) -> None:
    workers = 3
    variables = {
        "AWS_LAMBDA_INITIALIZATION_TYPE": "lambda-managed-instances",
        "AWS_LAMBDA_MAX_CONCURRENCY": str(workers),
        "DB_WARM_UP": "init",
    }
    with function(own_server, **variables) as runtime:
        wait_until(lambda: len(own_server.session_ids()) == workers, timeout_s=LIMIT_S)
        for number in range(2):
            folder = tmp_path / str(number)
            folder.mkdir()
            with ThreadPoolExecutor(max_workers=workers) as invokers:  # at once: each waits for the others
                events = [{"meet_in": str(folder), "count": workers}] * workers
                answers = list(invokers.map(lambda event: invoke(runtime, **event), events))
            assert len({told["pid"] for told in answers} - {runtime.pid}) == workers
            assert {told["session"] for told in answers} == set(own_server.session_ids())
            assert {(told["opened_at_init"], told["opened"]) for told in answers} == {(1, 1)}
            assert len(own_server.session_ids()) == workers


def test_a_handler_that_forks_keeps_its_connection_and_each_child_has_its_own(own_server: LocalServer) -> None:
    with function(own_server) as runtime:
        told = invoke(runtime, children=3)
        assert told["session_after"] == told["session"]
        assert told["opened"] == 1
        assert [first == second for first, second in told["children"]] == [True] * 3
        assert len({told["session"], *(first for first, _ in told["children"])}) == 4
        assert invoke(runtime)["session"] == told["session"]


def test_threads_of_a_handler_each_have_a_connection_which_later_invocations_use_again(
    own_server: LocalServer,
) -> None:
    with function(own_server, DB_MAX_CONNECTIONS="3") as runtime:
        told = invoke(runtime, in_threads=3)
        again = invoke(runtime, in_threads=3)
        assert len(set(told["in_threads"])) == 3
        assert set(again["in_threads"]) == set(told["in_threads"]) == set(own_server.session_ids())
        assert again["opened"] == 3


# --- between invocations


POLLING = 1 if sys.version_info >= (3, 12) else 0
"""Threads of the runtime client's own, which are there while it waits for an invocation."""


def threads(runtime: LocalRuntime) -> int:
    """Count the threads of a function between its invocations."""
    return len(list(Path(f"/proc/{runtime.pid}/task").iterdir()))


def known(told: dict[str, Any]) -> list[str]:
    """Return the threads in an invocation, but those of the runtime client, of which Python knows nothing."""
    return [name for name in told["threads"] if name != "unknown"]


def test_no_thread_and_no_timer_of_the_library_s_is_alive_between_invocations(own_server: LocalServer) -> None:
    with function(own_server, handler="ordinary.bare", DB_WARM_UP="init") as runtime:
        before = known(invoke(runtime))
        wait_until(lambda: threads(runtime) == len(before) + POLLING)
    with function(own_server, handler="ordinary.handler", DB_WARM_UP="init") as runtime:
        for _ in range(3):
            told = invoke(runtime)
            (session,) = own_server.session_ids()
            own_server.kill_session(session)
        assert told["opened"] == 3
        assert told["timers"] == []
        told = invoke(runtime)
        session = told["session"]
        told = invoke(runtime)
        assert (told["session"], known(told)) == (session, before)
        wait_until(lambda: threads(runtime) == len(before) + POLLING)


def test_a_statement_that_was_interrupted_leaves_no_thread_no_timer_and_no_connection(own_server: LocalServer) -> None:
    make_things(own_server)
    with function(own_server, handler="ordinary.bare") as runtime:
        before = known(invoke(runtime))
    with function(own_server, handler="matrix.handler") as runtime:
        invoke(runtime, mark="the first")
        assert known(invoke(runtime, mark="within its time")) == before
        event = {"mark": "", "name": new_thing(own_server), "statement": STATEMENTS[own_server.engine]}
        interrupted = runtime.invoke(event, timeout_s=1.5)
        assert interrupted.value["error"] == "DeadlineExceededError"
        assert (known(interrupted.value), interrupted.value["timers"]) == (before, [])
        wait_until(lambda: threads(runtime) == len(before) + POLLING)
        wait_until(lambda: own_server.session_ids() == [])  # neither the one that was cut, nor the one that said so
        assert known(invoke(runtime, mark="after it")) == before
