"""The phases of the demo: what happens in each, and whether it really did."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

from examples.demo.faults import (
    DatabaseFailedOver,
    Fault,
    FaultError,
    PathDead,
    ProxyDown,
    ProxyRestarted,
    SecretRotated,
    SessionsIdleOut,
    TokenExpired,
)
from examples.demo.measured import Tally

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from examples.demo.stage import Pair, Stage

INVOCATIONS = 400
"""About how many invocations of each function there are by default."""

_FREEZE_S = 0.01
_FEWEST = 4
_ROUND = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """A number of invocations of both functions under the same conditions, in rounds.

    In each round one function after the other is invoked a few times in a row. They do not take turns with every
    invocation: a failing one makes work for the processor, and the other would seem slower than it is.

    Attributes:
        title: for the table.
        story: what happens, for people.
        invocations: of each function, out of `INVOCATIONS` in all.
        fault: what strikes in the second half of them.
        strikes: how often.
        is_frozen: whether the environments are frozen between invocations.
        is_by_secret: whether the functions log in with the secret, rather than with tokens.
        timeout_s: the functions' timeout.
    """

    title: str
    story: str
    invocations: int
    fault: Fault | None = None
    strikes: int = 0
    is_frozen: bool = True
    is_by_secret: bool = False
    timeout_s: float = 10.0

    def scaled(self, invocations: int) -> Phase:
        """Return it with its share of another number of invocations, and as many strikes."""
        if self.invocations == 1:
            return self
        count = max(_FEWEST, round(self.invocations * invocations / INVOCATIONS))
        return replace(self, invocations=max(count, self.strikes * _FEWEST))

    def rounds(self) -> list[int]:
        """Return how many invocations of each function there are in each round; one strike before all but the first."""
        if self.fault is None:
            return _split(self.invocations, -(-self.invocations // _ROUND))
        struck = self.invocations // 2
        return [self.invocations - struck, *_split(struck, self.strikes)]


def _split(number: int, parts: int) -> list[int]:
    """Return whole numbers, as equal as can be, that add up to `number`."""
    ends = [number * part // parts for part in range(parts + 1)]
    return [end - start for start, end in pairwise(ends)]


PHASES = (
    Phase(
        title="cold start",
        story="the first invocation; the plain function has connected while it was imported",
        invocations=1,
        is_frozen=False,
    ),
    Phase(title="warm", story="one invocation after another", invocations=150, is_frozen=False),
    Phase(
        title="frozen", story="the process is stopped after each invocation, and goes on with the next", invocations=60
    ),
    Phase(
        title="failover",
        story="the database restarts behind the proxy, which lets its clients wait",
        invocations=12,
        fault=DatabaseFailedOver(),
        strikes=2,
    ),
    Phase(
        title="proxy restarts",
        story="the proxy hangs up on the frozen functions",
        invocations=24,
        fault=ProxyRestarted(),
        strikes=3,
    ),
    Phase(
        title="proxy away",
        story="the proxy comes back only after the invocation has begun",
        invocations=12,
        fault=ProxyDown(),
        strikes=2,
    ),
    Phase(
        title="token expires",
        story="the IAM token of the login is too old when the connection is lost",
        invocations=16,
        fault=TokenExpired(),
        strikes=2,
    ),
    Phase(
        title="idle too long",
        story="the proxy ends the idle session, as RDS Proxy does after half an hour",
        invocations=12,
        fault=SessionsIdleOut(),
        strikes=2,
        is_by_secret=True,
    ),
    Phase(
        title="secret rotates",
        story="the password changes in four steps, and the connection is lost after each",
        invocations=24,
        fault=SecretRotated(),
        strikes=4,
        is_by_secret=True,
    ),
    Phase(
        title="path dead",
        story="the network forgets the connection without a word; what is sent is not answered",
        invocations=8,
        fault=PathDead(),
        strikes=1,
        is_by_secret=True,
        timeout_s=3.0,  # Lambda's default; the plain one hangs for as long as it may
    ),
    Phase(title="warm again", story="one invocation after another", invocations=100, is_frozen=False),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseResult:
    """What a phase came to.

    Attributes:
        engine: the database's name.
        phase: as it was played.
        library: the tally of the function with the library.
        plain: the tally of the plain function.
        complaints: why the phase was not what it claims to be, or not what the library promises.
    """

    engine: str
    phase: Phase
    library: Tally
    plain: Tally
    complaints: tuple[str, ...]


def play(stage: Stage, phase: Phase, advance: Callable[[], None]) -> PhaseResult:
    """Play a phase, calling `advance` after each invocation of either function."""
    pair = stage.by_secret if phase.is_by_secret else stage.by_iam
    library, plain = Tally(), Tally()
    counted = pair.library.counters
    complaints: list[str] = []
    try:
        _invoke_all(stage, pair, phase, (library, plain), advance)
    except FaultError as error:
        complaints.append(str(error))
    library.counters = pair.library.counters - counted
    if pair.library.environments > 1:
        complaints.append("the library's execution environment was replaced")
    complaints += _library_complaints(phase, library)
    complaints += _plain_complaints(phase, plain)
    if plain.is_broken:
        pair.plain.close()
        pair.plain.start()  # as a new deployment would: by itself it stays broken
    return PhaseResult(
        engine=stage.title,
        phase=phase,
        library=library,
        plain=plain,
        complaints=tuple(f"{phase.title}, {stage.title}: {complaint}" for complaint in complaints),
    )


def _invoke_all(
    stage: Stage, pair: Pair, phase: Phase, tallies: tuple[Tally, Tally], advance: Callable[[], None]
) -> None:
    rounds = phase.rounds()
    for number, size in enumerate(rounds):
        if phase.fault and number > 0:
            _freeze(pair)
            phase.fault.strike(stage)
        if phase.fault and number + 1 < len(rounds):
            phase.fault.prepare(stage)
        turns = list(zip(pair.both, tallies, strict=True))
        if number % 2 == 1 and not phase.fault:
            turns.reverse()  # a fault is met by the library first, before it passes
        left = size
        if phase.fault and phase.fault.is_brief and number > 0:
            _invoke_at_once(stage, pair, phase, phase.fault, tallies)
            for _ in pair.both:
                advance()
            left -= 1
        for function, tally in turns:
            for _ in range(left):
                tally.answers.append(function.invoke(timeout_s=phase.timeout_s))
                if phase.is_frozen:
                    _freeze(pair)
                advance()
        if phase.fault and number > 0:
            phase.fault.settle(stage)


def _invoke_at_once(stage: Stage, pair: Pair, phase: Phase, fault: Fault, tallies: tuple[Tally, Tally]) -> None:
    """Invoke both functions once, at the same time."""
    with ThreadPoolExecutor(max_workers=2) as threads:
        answers = [threads.submit(function.invoke, timeout_s=phase.timeout_s) for function in reversed(pair.both)]
        answers[0].result()
        fault.relent(stage)
        for tally, answer in zip(reversed(tallies), answers, strict=True):
            tally.answers.append(answer.result())
    _freeze(pair)


def _freeze(pair: Pair) -> None:
    for function in pair.both:
        if not function.freeze():
            raise FaultError("an execution environment is not frozen")
    time.sleep(_FREEZE_S)


def _library_complaints(phase: Phase, library: Tally) -> Iterator[str]:
    """Say where the library's function did not do what it is to do, or has not met the fault."""
    if library.last_failure is not None:
        first = next(answer for answer in library.answers if answer.error)
        failed = f"{library.failed} of {len(library.answers)} failed with the library"
        yield f"{failed}, first by {first.error}: {first.message}"
    if phase.fault and phase.fault.proof:
        proved = library.counters[phase.fault.proof]
        if proved < phase.strikes:
            yield f"{phase.strikes} strikes, but only {proved} times '{phase.fault.proof}'"
        return
    expected = "opened" if phase.invocations == 1 else "reused"
    if library.counters[expected] != phase.invocations or library.replaced:
        yield f"the library should have {expected} one connection, and has {dict(library.counters)}"


def _plain_complaints(phase: Phase, plain: Tally) -> Iterator[str]:
    """Say where the plain function fared otherwise than is said of it: was there a fault at all, or another one?"""
    fate = phase.fault.plain_fate if phase.fault else "is spared"
    if fate == "is spared" and plain.last_failure is not None:
        yield f"the plain function failed where nothing should break: {plain.last_failure.message}"
    if fate in ("fails", "stays broken") and not plain.failed:
        yield "the plain function did not fail: was there a fault at all?"
    if fate == "stays broken" and plain.failed and not plain.is_broken:
        yield "the plain function has recovered by itself"
