"""The invocation matrix: what becomes of a function's connection in each situation, on each engine, by each way.

`matrix_page` writes it into the documentation. Every session of an environment is told apart by its id: at the database
itself, or at a proxy that no other function uses.
"""

from __future__ import annotations

import re
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lambda_dbconn.testing.runtime_api import LocalRuntime
from tests.support.clients import wait_until
from tests.support.lock_times import is_locked, new_thing, touches
from tests.support.stage import RUNTIMES, STATEMENTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from lambda_dbconn.testing.runtime_api import Invocation
    from tests.support.stage import Stage

FREEZE_S = 300.0
YEARS_S = 3 * 365 * 86400.0
_TIMEOUT_MID_QUERY_S = 1.5
_WORKERS = 2
_EVENT = re.compile(
    r"^\[(\w+)\]\t\S+\t[^\t]*\t([A-Z]\w+) endpoint=\S+(?:.*? (reason=\w+|is_left_open=\w+))?", re.MULTILINE
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What was observed.

    Attributes:
        answer: What the invoker got.
        state: What has become of the connection by the next invocation.
        logged: The library's lines in the function's log, without times and places.
        seen: What the other end of the connection saw.
    """

    answer: str
    state: str
    logged: tuple[str, ...]
    seen: str

    def cells(self) -> list[str]:
        """Return it as cells of a table."""
        return [self.answer, self.state, "<br>".join(f"`{line}`" for line in self.logged) or "nothing", self.seen]


def observe(
    stage: Stage,
    act: Callable[[], Invocation],
    *,
    before: dict[str, Any] | None,
    gains: int = 0,
    is_forced: bool = False,
) -> Row:
    """Let something happen to a function, invoke it once more, and say what was observed.

    Args:
        stage: Where.
        act: What happens.
        before: What the invocation before told; None if this is the first of its environment.
        gains: How many sessions more there will be.
        is_forced: The session is ended by something else than its client, so whether that said goodbye is no news.
    """
    sessions, lost, pings, said = stage.sessions(), stage.lost(), stage.pings(), len(stage.function.output())
    invocation = act()
    after = stage.ask().value
    wait_until(lambda: len(stage.sessions()) == len(sessions) + gains)
    assert after["timers"] == []
    assert before is None or after["threads"] == before["threads"]
    return Row(
        answer=_answer(invocation),
        state=_state(before, after),
        logged=_logged(stage.function.output()[said:]),
        seen=_seen(
            sessions, stage.sessions(), lost=0 if is_forced else stage.lost() - lost, pings=stage.pings() - pings
        ),
    )


def _answer(invocation: Invocation) -> str:
    if invocation.error is not None:
        return f"`{invocation.error.type}`"
    return f"an answer, after `{invocation.value['error']}`" if "error" in invocation.value else "an answer"


def _state(before: dict[str, Any] | None, after: dict[str, Any]) -> str:
    if before is None:
        at_init, opened = after["opened_at_init"], after["opened"]
        return {(0, 1): "opened", (1, 1): "opened at init", (1, 2): "opened at init, then replaced"}[at_init, opened]
    if before["pid"] != after["pid"]:
        return "gone with its environment"
    return {0: "kept", 1: "replaced"}[after["opened"] - before["opened"]]


def _logged(output: str) -> tuple[str, ...]:
    return tuple(" ".join(filter(None, groups)) for groups in _EVENT.findall(output))


def _seen(before: set[int], after: set[int], *, lost: int, pings: int) -> str:
    ended, began = len(before - after), len(after - before)
    sessions = []
    if ended:
        sessions.append(f"{ended} ended" + (f", {lost} without a goodbye" if lost else ""))
    if began:
        sessions.append(f"{began} began")
    words = [f"sessions: {', '.join(sessions) or 'as before'}"]
    if pings:
        words.append(f"{pings} ping{'s' * (pings > 1)}")
    return "; ".join(words)


# --- the situations


def cold(stage: Stage) -> Row:
    """Be the first invocation of an environment."""
    stage.end()
    return observe(stage, stage.ask, before=None, gains=1)


def warm(stage: Stage) -> Row:
    """Come soon after another invocation."""
    return observe(stage, stage.ask, before=stage.ask().value)


def frozen(stage: Stage) -> Row:
    """Come five minutes after another invocation; the clocks say so."""
    before = stage.ask().value
    _freeze(stage)
    return observe(stage, lambda: stage.ask(clock_moves_s=FREEZE_S), before=before)


def frozen_and_cut(stage: Stage) -> Row:
    """Lose the connection during a freeze: the server, or the proxy, hangs up."""
    before = stage.ask().value

    def act() -> Invocation:
        _freeze(stage)
        stage.cut(before["session"])
        return stage.ask()

    return observe(stage, act, before=before, is_forced=True)


def frozen_and_killed(stage: Stage) -> Row:
    """Lose the environment during a freeze."""
    before = stage.ask().value

    def act() -> Invocation:
        _freeze(stage)
        stage.end()
        return stage.ask()

    return observe(stage, act, before=before)


def _freeze(stage: Stage) -> None:
    assert isinstance(stage.function, LocalRuntime)
    stage.function.freeze()


def restored(stage: Stage) -> Row:
    """Come after a SnapStart restore, with a connection opened before the snapshot, years ago."""
    assert isinstance(stage.function, LocalRuntime)
    function, count = stage.function, len(stage.sessions())

    def act() -> Invocation:
        function.start()
        wait_until(lambda: len(stage.sessions()) == count)
        function.restore()
        return stage.ask(clock_moves_s=YEARS_S)

    row = observe(stage, act, before=None, gains=1)
    return replace(row, seen=f"before the snapshot 1 began and ended; {row.seen}")


def forked(stage: Stage) -> Row:
    """Be one of two invocations at once, in the forked workers of a managed instance."""
    answers: list[Any] = []

    def act() -> Invocation:
        with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(max_workers=_WORKERS) as invokers:
            both = [invokers.submit(stage.ask, meet_in=folder, count=_WORKERS) for _ in range(_WORKERS)]
            answers.extend(future.result() for future in both)
        return answers[0]  # type: ignore[no-any-return]

    row = observe(stage, act, before=None, gains=_WORKERS)
    assert len({answer.value["pid"] for answer in answers}) == _WORKERS
    assert {(answer.value["opened_at_init"], answer.value["opened"]) for answer in answers} == {(1, 1)}
    return replace(row, state=f"{row.state}, one for each worker")


def timed_out(stage: Stage) -> Row:
    """Have no more time, in the middle of a statement that has locked a row."""
    name = new_thing(stage.server)
    before = stage.ask().value
    locks = []

    def act() -> Invocation:
        invocation = stage.ask(name=name, statement=STATEMENTS[stage.server.engine], timeout_s=_TIMEOUT_MID_QUERY_S)
        locks.append(stage.lock_is_free(name))
        return invocation

    try:
        row = observe(stage, act, before=before, is_forced=True)
    finally:
        stage.end_statements()
    return replace(row, seen=f"{row.seen}; {locks[0]}")


def failed(stage: Stage) -> Row:
    """Raise in a transaction that has changed a row."""
    name = new_thing(stage.server)
    before = stage.ask().value
    row = observe(stage, lambda: stage.ask(name=name, fails=True), before=before)
    is_undone = touches(stage.server, name) == 0 and not is_locked(stage.server, name)
    return replace(row, seen=f"{row.seen}; {'rolled back, lock free' if is_undone else 'NOT ROLLED BACK'}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """A line of the matrix.

    Attributes:
        name: Its own.
        observe: Makes it happen.
        runtimes: What can: the emulator knows neither freeze nor SnapStart nor managed instances.
        variables: Of a function that is made for it alone; None: any function does.
    """

    name: str
    observe: Callable[[Stage], Row]
    runtimes: tuple[str, ...] = RUNTIMES[:1]
    variables: tuple[tuple[str, str], ...] | None = None


SITUATIONS = (
    Situation(name="cold", observe=cold, runtimes=RUNTIMES),
    Situation(name="warm", observe=warm, runtimes=RUNTIMES),
    Situation(name="frozen for 5 minutes", observe=frozen),
    Situation(name="frozen, connection cut", observe=frozen_and_cut),
    Situation(name="frozen, environment killed", observe=frozen_and_killed),
    Situation(
        name="SnapStart restore",
        observe=restored,
        variables=(("AWS_LAMBDA_INITIALIZATION_TYPE", "snap-start"), ("DB_WARM_UP", "init")),
    ),
    Situation(
        name="managed instance's forks",
        observe=forked,
        variables=(
            ("AWS_LAMBDA_INITIALIZATION_TYPE", "lambda-managed-instances"),
            ("AWS_LAMBDA_MAX_CONCURRENCY", str(_WORKERS)),
            ("DB_WARM_UP", "init"),
        ),
    ),
    Situation(name="timeout in a query", observe=timed_out, runtimes=RUNTIMES),
    Situation(name="error in the handler", observe=failed, runtimes=RUNTIMES),
)
