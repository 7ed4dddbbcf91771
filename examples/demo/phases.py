"""The phases of the demo: what happens in each, and whether it really did."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

from examples.demo.faults import (
    Fault,
    FaultError,
    PathDead,
    ServerDown,
    ServerRestarted,
    SessionsIdleOut,
    SessionsKilled,
)
from examples.demo.measured import Tally

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from examples.demo.stage import Pair, Stage

INVOCATIONS = 500
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
        is_relayed: whether the connections lead through the relay.
    """

    title: str
    story: str
    invocations: int
    fault: Fault | None = None
    strikes: int = 0
    is_frozen: bool = True
    is_relayed: bool = False

    @property
    def oldest_server(self) -> int:
        """The oldest version of PostgreSQL with which it can be played."""
        return self.fault.oldest_server if self.fault else 0

    def scaled(self, invocations: int) -> Phase:
        """Return it with its share of another number of invocations."""
        if self.invocations == 1:
            return self
        count = max(_FEWEST, round(self.invocations * invocations / INVOCATIONS))
        return replace(self, invocations=count, strikes=min(self.strikes, count // _FEWEST))

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
    Phase(title="frozen, thawed", story="the process is stopped in between (SIGSTOP)", invocations=80),
    Phase(
        title="session killed",
        story="the server ends the session of the frozen process (pg_terminate_backend)",
        invocations=40,
        fault=SessionsKilled(),
        strikes=5,
    ),
    Phase(
        title="server restart",
        story="the server restarts while the process is frozen",
        invocations=24,
        fault=ServerRestarted(),
        strikes=3,
    ),
    Phase(
        title="server down",
        story="the server comes back only after the invocation has begun",
        invocations=20,
        fault=ServerDown(),
        strikes=2,
    ),
    Phase(
        title="idle too long",
        story="the server's idle_session_timeout ends the session of the frozen process",
        invocations=24,
        fault=SessionsIdleOut(),
        strikes=3,
    ),
    Phase(
        title="path dead",
        story="the network forgets the connection, without a word; what is sent is not answered",
        invocations=16,
        fault=PathDead(),
        strikes=2,
        is_relayed=True,
    ),
    Phase(title="warm again", story="one invocation after another", invocations=150, is_frozen=False),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseResult:
    """What a phase came to.

    Attributes:
        phase: as it was played.
        library: the tally of the function with the library.
        plain: the tally of the plain function.
        complaints: why the phase was not what it claims to be, or not what the library promises.
    """

    phase: Phase
    library: Tally
    plain: Tally
    complaints: tuple[str, ...]


def play(stage: Stage, phase: Phase, advance: Callable[[], None]) -> PhaseResult:
    """Play a phase, calling `advance` after each invocation of either function."""
    pair = stage.relayed if phase.is_relayed else stage.direct
    library, plain = Tally(), Tally()
    counted = pair.library.counters
    complaints: list[str] = []
    try:
        _invoke_all(stage, pair, phase, (library, plain), advance)
    except FaultError as error:
        complaints.append(f"{phase.title}: {error}")
    library.counters = pair.library.counters - counted
    if pair.library.environments > 1:
        complaints.append(f"{phase.title}: the library's execution environment was replaced")
    complaints += _complaints(phase, library, plain)
    if plain.failed and not phase.is_relayed:
        pair.plain.replace()  # as a new deployment would: by itself it stays broken
    return PhaseResult(phase=phase, library=library, plain=plain, complaints=tuple(complaints))


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
        for function, tally in turns:
            for _ in range(size):
                tally.answers.append(function.invoke())
                if phase.is_frozen:
                    _freeze(pair)
                advance()
        if phase.fault and number > 0:
            phase.fault.settle(stage)


def _freeze(pair: Pair) -> None:
    for function in pair.both:
        if not function.freeze():
            raise FaultError("an execution environment is not frozen")
    time.sleep(_FREEZE_S)


def _complaints(phase: Phase, library: Tally, plain: Tally) -> Iterator[str]:
    """Say what the reader of the table must not be left to find out."""
    failures = [answer for answer in library.answers if answer.error]
    if failures:
        first = f"{failures[0].error}: {failures[0].message}"
        yield f"{phase.title}: {len(failures)} of {len(library.answers)} failed with the library, first by {first}"
    if phase.fault:
        proved = library.counters[phase.fault.proof]
        if proved < phase.strikes:
            yield f"{phase.title}: {phase.strikes} strikes, but only {proved} times '{phase.fault.proof}'"
        if not plain.failed:
            yield f"{phase.title}: the plain function did not fail: was there a fault at all?"
        return
    if plain.failed:
        yield f"{phase.title}: the plain function failed without a fault"
    expected = "opened" if phase.invocations == 1 else "reused"
    if library.counters[expected] != phase.invocations or library.replaced:
        yield f"{phase.title}: the library should have {expected} one connection, and has {dict(library.counters)}"
