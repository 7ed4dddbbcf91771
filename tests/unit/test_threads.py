from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
import threading
from contextvars import ContextVar

import pytest

from lambda_dbconn._threads import in_thread, in_thread_now, in_thread_unless_cancelled

WHO: ContextVar[str] = ContextVar("WHO")


@pytest.mark.parametrize("_", range(50))
def test_a_call_runs_in_a_thread_of_its_own_with_the_callers_context_and_the_thread_has_ended(_: int) -> None:
    WHO.set("the caller")

    async def call() -> tuple[str, threading.Thread]:
        return await in_thread(lambda: (WHO.get(), threading.current_thread()))

    who, thread = asyncio.run(call())
    assert who == "the caller"
    assert thread is not threading.current_thread()
    assert not thread.is_alive()  # already: the environment may be frozen now


def test_what_a_call_raises_is_raised() -> None:
    async def call() -> None:
        await in_thread(lambda: 1 // 0)

    with pytest.raises(ZeroDivisionError):
        asyncio.run(call())


def test_a_cancellation_is_obeyed_when_the_call_has_ended() -> None:
    may_end, has_ended = threading.Event(), threading.Event()

    def work() -> None:
        assert may_end.wait(30)
        has_ended.set()

    async def cancel() -> None:
        task = asyncio.create_task(in_thread(work))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)
        assert not task.done()
        may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert has_ended.is_set()

    asyncio.run(cancel())


@pytest.mark.parametrize("is_failing", [False, True])
def test_a_cancellation_is_obeyed_at_once_and_what_comes_later_is_undone(is_failing: bool) -> None:
    may_end, has_undone = threading.Event(), threading.Event()
    undone: list[int] = []

    def work() -> int:
        assert may_end.wait(30)
        if is_failing:
            has_undone.set()  # there is nothing to undo
            raise LookupError
        return 7

    def undo(result: int) -> None:
        undone.append(result)
        has_undone.set()

    async def cancel() -> None:
        task = asyncio.create_task(in_thread_unless_cancelled(work, undo=undo))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert undone == []

    asyncio.run(cancel())
    may_end.set()
    assert has_undone.wait(30)
    assert undone == ([] if is_failing else [7])


def test_without_a_cancellation_nothing_is_undone() -> None:
    undone: list[int] = []

    async def call() -> int:
        return await in_thread_unless_cancelled(lambda: 7, undo=undone.append)

    assert (asyncio.run(call()), undone) == (7, [])


class Fault(BaseException):
    """What no `except Exception` catches."""


@pytest.mark.parametrize(
    "error", [LookupError("no"), StopIteration("no"), KeyboardInterrupt("no"), Fault("no")], ids=repr
)
@pytest.mark.parametrize("call", ["in_thread", "in_thread_unless_cancelled", "in_thread_now"])
def test_whatever_a_call_raises_ends_the_wait_for_it(call: str, error: BaseException) -> None:
    def fail() -> None:
        raise error

    async def run() -> None:
        if call == "in_thread":
            await in_thread(fail)
        elif call == "in_thread_unless_cancelled":
            await in_thread_unless_cancelled(fail, undo=lambda _: None)
        else:
            in_thread_now(fail)

    with pytest.raises(BaseException, match=r"no|StopIteration") as caught:
        asyncio.run(run())
    assert error in (caught.value, caught.value.__cause__, caught.value.__context__)


def test_a_result_that_comes_when_the_loop_is_closed_is_undone() -> None:
    may_end, has_undone = threading.Event(), threading.Event()

    def work() -> int:
        assert may_end.wait(30)
        return 7

    loop = asyncio.new_event_loop()
    waiting = in_thread_unless_cancelled(work, undo=lambda _: has_undone.set())
    task = loop.create_task(waiting)
    loop.run_until_complete(asyncio.sleep(0))
    task._log_destroy_pending = False  # type: ignore[attr-defined] # what asyncio would complain of is meant
    loop.close()
    waiting.close()
    may_end.set()
    assert has_undone.wait(30)


def test_a_result_for_a_closed_loop_is_no_error_in_the_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    failures: list[object] = []
    monkeypatch.setattr(threading, "excepthook", failures.append)
    may_end = threading.Event()
    loop = asyncio.new_event_loop()
    waiting = in_thread_unless_cancelled(may_end.wait, 30, undo=lambda _: None)
    task = loop.create_task(waiting)
    loop.run_until_complete(asyncio.sleep(0))
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "lambda_dbconn"]
    task._log_destroy_pending = False  # type: ignore[attr-defined] # as above
    loop.close()
    may_end.set()
    thread.join(30)
    assert failures == []
    waiting.close()


@pytest.mark.parametrize("call", ["in_thread", "in_thread_unless_cancelled"])
def test_a_process_with_a_stuck_call_exits_at_once(call: str) -> None:
    undo = ", undo=print" if call == "in_thread_unless_cancelled" else ""
    script = f"""
        import asyncio, time
        from lambda_dbconn._threads import {call}

        async def cancel():
            task = asyncio.create_task({call}(time.sleep, 600{undo}))
            await asyncio.sleep(0.05)
            task.cancel()
            await asyncio.sleep(0)
            task.cancel()  # the second one is obeyed by all
            await asyncio.wait([task])
            print(task.cancelled())

        asyncio.run(cancel())
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (run.stdout, run.stderr, run.returncode) == ("True\n", "", 0)
