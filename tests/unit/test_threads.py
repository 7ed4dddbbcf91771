from __future__ import annotations

import asyncio
import threading
from contextvars import ContextVar

import pytest

from lambda_dbconn.threads import in_thread, in_thread_unless_cancelled

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
