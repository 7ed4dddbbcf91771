from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from lambda_dbconn.cache.sansio import run_async, run_sync

if TYPE_CHECKING:
    from collections.abc import Callable

    from lambda_dbconn.cache.sansio import Operation


def fail() -> int:
    raise LookupError("nothing here")


def add(first: Callable[[], object], second: Callable[[], object]) -> Operation[object]:
    """Take two steps; one that fails with a LookupError counts as ten."""
    results = []
    for step in (first, second):
        try:
            results.append((yield step))
        except LookupError:
            results.append(10)
    return sum(results)


def awaited(function: Callable[[], object]) -> Callable[[], object]:
    async def call() -> object:
        await asyncio.sleep(0)
        return function()

    return call


def in_both_ways(*functions: Callable[[], object]) -> list[object]:
    first, second = functions
    return [
        run_sync(add(first, second)),
        asyncio.run(run_async(add(awaited(first), awaited(second)))),
    ]


def test_steps_go_on_with_what_each_returns() -> None:
    assert in_both_ways(lambda: 1, lambda: 2) == [3, 3]


def test_steps_go_on_after_an_error_that_they_catch() -> None:
    assert in_both_ways(fail, lambda: 2) == [12, 12]


def test_an_error_that_they_do_not_catch_comes_out() -> None:
    with pytest.raises(ZeroDivisionError):
        run_sync(add(lambda: 1, lambda: 1 // 0))
    with pytest.raises(ZeroDivisionError):
        asyncio.run(run_async(add(awaited(lambda: 1), awaited(lambda: 1 // 0))))


def test_steps_may_be_none() -> None:
    def nothing() -> Operation[str]:
        return "done"
        yield

    assert run_sync(nothing()) == asyncio.run(run_async(nothing())) == "done"


def test_a_cancellation_is_an_error_of_the_step_that_it_meets() -> None:
    met: list[str] = []

    def steps() -> Operation[None]:
        try:
            yield lambda: asyncio.sleep(60)
        except asyncio.CancelledError:
            met.append("cancelled")
            raise

    async def cancel() -> None:
        task = asyncio.create_task(run_async(steps()))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())
    assert met == ["cancelled"]
