"""The local Lambda runtime, running the real runtime client on small handlers."""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lambda_dbconn.testing._execution_environment import ExecutionEnvironment
from lambda_dbconn.testing.runtime_api import (
    FunctionFault,
    InitError,
    Invocation,
    LocalRuntime,
    RuntimeUnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(sys.platform != "linux", reason="awslambdaric has wheels for Linux only"),
]

LIMIT_S = 10.0
APP = """
    import os, signal, sys, threading, time

    count = 0
    print("imported", flush=True)

    def handler(event, context):
        global count
        count += 1
        match event:
            case {"sleep_s": seconds}:
                print("asleep", flush=True)
                time.sleep(seconds)
            case {"raise": text}:
                raise ValueError(text)
            case {"exit": status}:
                os._exit(status)
            case {"tick": path}:
                threading.Thread(target=tick, args=(path,), daemon=True).start()
        return {
            "pid": os.getpid(),
            "count": count,
            "event": event,
            "request_id": context.aws_request_id,
            "remaining_ms": context.get_remaining_time_in_millis(),
            "now_s": time.time(),
        }

    def tick(path):
        while True:
            with open(path, "a") as file:
                file.write("tick\\n")
            time.sleep(0.01)

    def environ(event, context):
        return dict(os.environ)
"""
SNAP_START = """
    from snapshot_restore_py import register_after_restore, register_before_snapshot

    hooks = []
    register_before_snapshot(hooks.append, "before")
    register_after_restore(hooks.append, "after")

    def handler(event, context):
        return hooks
"""


@pytest.fixture
def function(tmp_path: Path) -> Iterator[Callable[..., LocalRuntime]]:
    """Write a module, and return a runtime for it, which is shut down after the test."""
    runtimes = []

    def write(code: str = APP, **options: Any) -> LocalRuntime:
        (tmp_path / "app.py").write_text(textwrap.dedent(code))
        runtimes.append(LocalRuntime(directory=tmp_path, **options))
        return runtimes[-1]

    yield write
    for runtime in runtimes:
        runtime.shutdown(grace_s=0)


def is_alive(pid: int) -> bool:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def wait_until(fact: Callable[[], bool]) -> None:
    give_up_s = time.monotonic() + LIMIT_S
    while not fact():
        assert time.monotonic() < give_up_s
        time.sleep(0.01)


def test_one_environment_serves_one_invocation_after_another(function: Callable[..., LocalRuntime]) -> None:
    with function() as runtime:
        invocations = [runtime.invoke({"n": number}) for number in range(3)]
        assert [each.value["event"]["n"] for each in invocations] == [0, 1, 2]
        assert [each.value["count"] for each in invocations] == [1, 2, 3]
        assert [each.value["request_id"] for each in invocations] == [each.request_id for each in invocations]
        assert {each.value["pid"] for each in invocations} == {runtime.pid}
        assert all(each.error is None and each.duration_ms > 0 for each in invocations)


def test_a_large_event_and_answer_come_through_whole(function: Callable[..., LocalRuntime]) -> None:
    with function() as runtime:
        text = "x" * 5_000_000
        assert runtime.invoke({"text": text}).value["event"] == {"text": text}


def test_the_remaining_time_is_what_is_left_of_the_timeout(function: Callable[..., LocalRuntime]) -> None:
    with function(timeout_s=60.0) as runtime:
        for timeout_s in (60.0, 30.0):
            earliest_s = time.time()
            invocation = runtime.invoke({}, timeout_s=None if timeout_s == 60.0 else timeout_s)
            latest_s = time.time()
            deadline_s = invocation.value["now_s"] + invocation.value["remaining_ms"] / 1000
            assert earliest_s - 0.1 <= deadline_s - timeout_s <= latest_s + 0.1


def test_a_handler_that_raises_keeps_its_environment(function: Callable[..., LocalRuntime]) -> None:
    with function() as runtime:
        invocation = runtime.invoke({"raise": "no such employee"})
        assert invocation.value is None
        assert not invocation.timed_out
        assert invocation.error is not None
        assert (invocation.error.type, invocation.error.message) == ("ValueError", "no such employee")
        assert "in handler" in invocation.error.stack[-1]
        assert runtime.invoke({}).value["count"] == 2


def test_an_init_that_fails_is_told_with_its_output(function: Callable[..., LocalRuntime]) -> None:
    runtime = function("print('before it fails')\nimport no_such_module")
    with pytest.raises(InitError, match="no_such_module") as caught:
        runtime.start()
    assert caught.value.fault.type == "Runtime.ImportModuleError"
    assert "before it fails" in caught.value.output
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    assert runtime.output() == caught.value.output


def test_an_init_that_exits_is_told_with_its_status(function: Callable[..., LocalRuntime]) -> None:
    with pytest.raises(InitError, match="exit status 3"):
        function("import os; os._exit(3)").start()


def test_an_init_that_takes_too_long_is_ended(function: Callable[..., LocalRuntime]) -> None:
    runtime = function("import time; time.sleep(60)", init_timeout_s=0.2)
    with pytest.raises(InitError, match=r"Init timed out after 0\.20 seconds"):
        runtime.start()


def test_an_init_that_fails_at_an_invocation_is_its_error(function: Callable[..., LocalRuntime]) -> None:
    invocation = function("1 / 0").invoke({})
    assert invocation.error is not None
    assert invocation.error.type == "ZeroDivisionError"


def test_a_timeout_kills_the_environment_and_the_next_invocation_has_a_new_one(
    function: Callable[..., LocalRuntime],
) -> None:
    with function(timeout_s=30.0) as runtime:
        first_pid = runtime.pid
        invocation = runtime.invoke({"sleep_s": 60}, timeout_s=0.3)
        assert invocation.timed_out
        assert invocation.error is not None
        assert "Task timed out after 0.30 seconds" in invocation.error.message
        assert invocation.duration_ms >= 300
        assert not is_alive(first_pid)
        after = runtime.invoke({}).value
        assert after["pid"] != first_pid
        assert after["count"] == 1
        assert runtime.output().splitlines() == ["imported", "asleep", "imported"]


def test_a_crash_ends_the_environment_and_the_next_invocation_has_a_new_one(
    function: Callable[..., LocalRuntime],
) -> None:
    with function() as runtime:
        invocation = runtime.invoke({"exit": 7})
        assert invocation.error == FunctionFault(
            type="Runtime.ExitError",
            message=f"RequestId: {invocation.request_id} Error: Runtime exited with error: exit status 7",
        )
        assert runtime.invoke({}).value["count"] == 1


def test_an_environment_that_died_between_invocations_is_replaced(
    function: Callable[..., LocalRuntime],
) -> None:
    with function() as runtime:
        os.kill(runtime.pid, signal.SIGKILL)
        os.waitid(os.P_PID, runtime.pid, os.WEXITED | os.WNOWAIT)
        assert runtime.invoke({}).value["count"] == 1


def test_kill_ends_an_invocation_under_way(function: Callable[..., LocalRuntime]) -> None:
    with function(timeout_s=60.0) as runtime:
        invocations: list[Invocation] = []
        thread = threading.Thread(target=lambda: invocations.append(runtime.invoke({"sleep_s": 60})))
        thread.start()
        wait_until(lambda: "asleep" in runtime.output())
        runtime.kill()
        thread.join()
        assert invocations[0].error is not None
        assert "signal: killed" in invocations[0].error.message
        assert runtime.invoke({}).value["count"] == 1


def test_a_frozen_environment_stands_still_until_it_is_thawed(
    function: Callable[..., LocalRuntime], tmp_path: Path
) -> None:
    with function() as runtime:
        runtime.invoke({"tick": str(tmp_path / "ticks")})
        wait_until((tmp_path / "ticks").exists)
        runtime.freeze()
        assert runtime.is_frozen
        ticks = (tmp_path / "ticks").read_text()
        time.sleep(0.1)
        assert (tmp_path / "ticks").read_text() == ticks
        runtime.thaw()
        assert not runtime.is_frozen
        wait_until(lambda: (tmp_path / "ticks").read_text() != ticks)


def test_an_invocation_thaws_what_was_frozen(function: Callable[..., LocalRuntime]) -> None:
    with function() as runtime:
        pid = runtime.pid
        runtime.freeze()
        assert runtime.invoke({}).value["pid"] == pid
        assert not runtime.is_frozen


def test_freezing_between_invocations_stops_background_work(
    function: Callable[..., LocalRuntime], tmp_path: Path
) -> None:
    with function(freeze_between_invocations=True) as runtime:
        assert not runtime.is_frozen
        runtime.invoke({"tick": str(tmp_path / "ticks")})
        runtime.invoke({"sleep_s": 0.1})
        assert runtime.is_frozen
        ticks = (tmp_path / "ticks").read_text()
        time.sleep(0.1)
        assert (tmp_path / "ticks").read_text() == ticks
        assert runtime.invoke({}).value["count"] == 3


def test_shutdown_sends_sigterm_even_to_a_frozen_runtime(function: Callable[..., LocalRuntime]) -> None:
    runtime = function()
    runtime.start()
    pid = runtime.pid
    runtime.freeze()
    assert runtime.shutdown() == -signal.SIGTERM
    assert runtime.shutdown() is None
    assert not is_alive(pid)
    with pytest.raises(RuntimeError, match="no execution environment"):
        _ = runtime.pid


def test_shutdown_kills_a_runtime_that_outlives_its_grace(function: Callable[..., LocalRuntime]) -> None:
    runtime = function("import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + textwrap.dedent(APP))
    runtime.start()
    assert runtime.shutdown(grace_s=0.1) == -signal.SIGKILL


@pytest.mark.skipif(sys.version_info < (3, 12), reason="there, the main thread waits in C and runs no handler")
def test_a_sigterm_handler_runs_in_the_grace(function: Callable[..., LocalRuntime]) -> None:
    handle = "signal.signal(signal.SIGTERM, lambda *_: (print('goodbye', flush=True), os._exit(0)))\n"
    runtime = function("import os, signal\n" + handle + textwrap.dedent(APP))
    runtime.start()
    assert runtime.shutdown(grace_s=LIMIT_S) == 0
    assert runtime.output().splitlines() == ["imported", "goodbye"]


def test_a_runtime_is_frozen_and_ended_when_it_sleeps(
    function: Callable[..., LocalRuntime], monkeypatch: pytest.MonkeyPatch
) -> None:
    states = []

    def looked_at(action: Callable[..., None]) -> Callable[..., None]:
        def act(environment: ExecutionEnvironment, *arguments: Any) -> None:
            states.append(Path(f"/proc/{environment.pid}/stat").read_text().rpartition(")")[2].split()[0])
            action(environment, *arguments)

        return act

    for name in ("freeze", "terminate"):
        monkeypatch.setattr(ExecutionEnvironment, name, looked_at(getattr(ExecutionEnvironment, name)))
    runtime = function()
    pid = runtime.invoke({}).value["pid"]
    (core, *_) = os.sched_getaffinity(pid)
    os.sched_setaffinity(pid, {core})
    with busy(core):
        for _ in range(10):
            runtime.invoke({})
            runtime.freeze()
        runtime.invoke({})
        runtime.shutdown()
    assert states == ["S"] * 11


@contextlib.contextmanager
def busy(core: int) -> Iterator[None]:
    command = [sys.executable, "-c", f"import os; os.sched_setaffinity(0, {{{core}}})\nwhile True: pass"]
    with subprocess.Popen(command) as rival:
        try:
            yield
        finally:
            rival.kill()


def test_the_processes_that_a_function_started_end_with_it(function: Callable[..., LocalRuntime]) -> None:
    code = "import subprocess\nchild = subprocess.Popen(['sleep', '60'])\ndef handler(*_): return child.pid"
    with function(code) as runtime:
        pid = runtime.invoke({}).value
        assert is_alive(pid)
    wait_until(lambda: not is_alive(pid))


def test_a_function_sees_the_variables_of_lambda_and_none_of_the_developer(
    function: Callable[..., LocalRuntime], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "production")
    monkeypatch.setenv("DATABASE_URL", "postgresql://production")
    with function(handler="app.environ", environment={"DB_USER": "me", "AWS_REGION": "eu-west-1"}) as runtime:
        seen = runtime.invoke({}).value
    assert not {"AWS_PROFILE", "DATABASE_URL"} & seen.keys()
    assert seen["DB_USER"] == "me"
    assert seen["AWS_REGION"] == "eu-west-1"
    assert seen["LAMBDA_TASK_ROOT"] == str(tmp_path)
    assert seen["AWS_EXECUTION_ENV"] == "AWS_Lambda_python{}.{}".format(*sys.version_info)
    assert seen["AWS_ACCESS_KEY_ID"] == seen["AWS_SECRET_ACCESS_KEY"] == seen["AWS_SESSION_TOKEN"] == "testing"


def test_snap_start_waits_between_its_hooks_for_the_restore(function: Callable[..., LocalRuntime]) -> None:
    pytest.importorskip("snapshot_restore_py")
    with function(SNAP_START, environment={"AWS_LAMBDA_INITIALIZATION_TYPE": "snap-start"}) as runtime:
        runtime.restore()
        with pytest.raises(RuntimeError, match="no snapshot waits"):
            runtime.restore()
        assert runtime.invoke({}).value == ["before", "after"]
        runtime.kill()
        assert runtime.invoke({}).value == ["before", "after"]


def test_snap_start_gives_a_function_no_keys_and_no_log_stream(function: Callable[..., LocalRuntime]) -> None:
    variables = {"AWS_LAMBDA_INITIALIZATION_TYPE": "snap-start", "AWS_SESSION_TOKEN": "given"}
    with function(handler="app.environ", environment=variables) as runtime:
        seen = runtime.invoke({}).value
    assert {name for name in seen if "KEY" in name or "LOG" in name} == set()
    assert seen["AWS_SESSION_TOKEN"] == "given"


def test_snap_start_tells_of_a_hook_that_fails_at_the_restore(function: Callable[..., LocalRuntime]) -> None:
    pytest.importorskip("snapshot_restore_py")
    code = SNAP_START + "\n    register_after_restore(lambda: 1 / 0)"
    runtime = function(code, environment={"AWS_LAMBDA_INITIALIZATION_TYPE": "snap-start"})
    runtime.start()
    with pytest.raises(InitError, match="ZeroDivisionError"):
        runtime.restore()


def test_a_managed_instance_serves_at_once_and_outlives_a_timeout(function: Callable[..., LocalRuntime]) -> None:
    with function(environment={"AWS_LAMBDA_MAX_CONCURRENCY": "2"}, timeout_s=LIMIT_S) as runtime:
        slow: list[Invocation] = []
        thread = threading.Thread(target=lambda: slow.append(runtime.invoke({"sleep_s": 4}, timeout_s=3)))
        thread.start()
        wait_until(lambda: "asleep" in runtime.output())
        other = runtime.invoke({}).value
        assert slow == []
        thread.join()
        assert slow[0].timed_out
        assert other["count"] == 1
        wait_until(lambda: runtime.invoke({}).value["pid"] != other["pid"])  # the late one has not been killed
        assert runtime.pid != other["pid"]


def test_an_environment_outlives_the_thread_that_began_it(function: Callable[..., LocalRuntime]) -> None:
    runtime = function()
    thread = threading.Thread(target=runtime.start)
    thread.start()
    thread.join()
    pid = runtime.pid
    assert runtime.invoke({}).value["pid"] == pid


def test_starting_twice_is_an_error(function: Callable[..., LocalRuntime]) -> None:
    with function() as runtime, pytest.raises(RuntimeError, match="already"):
        runtime.start()


def test_a_missing_runtime_client_is_told_with_what_to_install(
    function: Callable[..., LocalRuntime], tmp_path: Path
) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    python.chmod(0o755)
    with pytest.raises(RuntimeUnavailableError, match=r"lambda-dbconn\[demo\]"):
        function(python=str(python)).start()


def test_no_linux_is_told(function: Callable[..., LocalRuntime], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(RuntimeUnavailableError, match="Linux only"):
        function().start()


def test_a_shutdown_leaves_no_thread_and_no_file(function: Callable[..., LocalRuntime]) -> None:
    def resources() -> tuple[set[threading.Thread], int]:
        gc.collect()
        return set(threading.enumerate()), len(list(Path("/proc/self/fd").iterdir()))

    threads_before, files_before = resources()
    for _ in range(3):
        with function() as runtime:
            runtime.invoke({})
    with pytest.raises(InitError):
        function("1 / 0").start()
    with pytest.raises(FileNotFoundError):
        function(python="/no/such/python").start()
    threads, files = resources()
    assert threads <= threads_before  # those of other tests may have ended meanwhile
    assert files <= files_before


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv asks the kernel for the signal")
def test_a_harness_that_is_killed_leaves_no_runtime(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(textwrap.dedent(APP))
    harness = """
        import sys, time
        from lambda_dbconn.testing.runtime_api import LocalRuntime
        runtime = LocalRuntime(directory=sys.argv[1])
        runtime.start()
        runtime.freeze()  # else it would end by itself, as its API is gone
        print(runtime.pid, flush=True)
        time.sleep(60)
    """
    command = [sys.executable, "-c", textwrap.dedent(harness), str(tmp_path)]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(root)}) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        assert is_alive(pid)
        process.kill()
    wait_until(lambda: not is_alive(pid))
