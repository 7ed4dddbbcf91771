"""What the demo prints: progress on the way, then a table for people or figures for programs."""

from __future__ import annotations

import math
import platform
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from examples.demo.measured import Tally, quantile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from examples.demo.phases import Phase, PhaseResult

_WIDTH = 100
_LONG = 10
_RULE_UNDER_HEADINGS = box.Box("    \n    \n ── \n" + "    \n" * 5)
_QUANTILES = {"p50": 0.50, "p99": 0.99}
_NOTES = """
Calls are invocations of each function. Opened, reused and replaced are connections, as the library counted them.
Overhead is about the time inside the handler from asking for the connection to giving it back, with one select in \
between: the library's median (p50) and 99th percentile (p99), less those of the plain handler, that is of the bare \
driver, when it succeeded in the same phase. A few µs either way are noise in the warm phases, tens of µs in the others.
The plain handler has one global connection. Lambda keeps an environment whose handler has raised, so it stays broken \
until a deployment, say, replaces the environment; here that is done after each phase. A handler that hangs until its \
timeout gets a new environment from Lambda.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The outcome of a run.

    Attributes:
        server: name and version of the database server.
        is_tls: whether the connections are encrypted, and the server verified.
        results: of the phases that were played, in order.
        complaints: why the run does not show what it should; none if it does.
        elapsed_s: how long it took, in seconds.
    """

    server: str
    is_tls: bool
    results: Sequence[PhaseResult]
    complaints: Sequence[str]
    elapsed_s: float

    def as_json(self) -> dict[str, Any]:
        """Return the figures; times are seconds, and None where there is nothing to measure."""
        return {
            "python": platform.python_version(),
            "server": self.server,
            "is_tls": self.is_tls,
            "elapsed_s": round(self.elapsed_s, 3),
            "is_good": not self.complaints,
            "complaints": list(self.complaints),
            "phases": [_phase_as_json(result) for result in self.results],
        }

    def print(self, console: Console) -> None:
        """Print the table, what its columns mean, and the verdict."""
        is_wide = console.width >= _WIDTH
        console.print(_table(self.results, has_fates=is_wide))
        for result in self.results:
            if result.plain.failed and not is_wide:
                console.print(f"plain, {result.phase.title}: {_fate(result.plain, ' ')}")
        console.print(Text(_NOTES, style="dim"))
        for complaint in self.complaints:
            console.print(Text(f"NOT GOOD: {complaint}", style="bold red"))
        if not self.complaints:
            console.print(Text(self._verdict(), style="bold green"))

    def _verdict(self) -> str:
        total = sum(len(result.library.answers) for result in self.results)
        failed = sum(result.plain.failed for result in self.results)
        return (
            f"With the library none of {total} invocations failed; with the plain handler {failed} of {total} did. "
            f"({self.elapsed_s:.0f} s)"
        )


def _phase_as_json(result: PhaseResult) -> dict[str, Any]:
    return {
        "title": result.phase.title,
        "strikes": result.phase.strikes,
        "library": _tally_as_json(result.library)
        | {"opened": result.library.counters["opened"], "reused": result.library.counters["reused"]}
        | {"replaced": result.library.replaced, "connect_failures": result.library.counters["connect_failures"]},
        "plain": _tally_as_json(result.plain) | {"has_recovered": result.plain.has_recovered},
        "overhead_s": {name: _or_none(overhead_s(result, share)) for name, share in _QUANTILES.items()},
    }


def _tally_as_json(tally: Tally) -> dict[str, Any]:
    return {
        "invocations": len(tally.answers),
        "failed": tally.failed,
        "errors": dict(tally.errors),
        "database_s": {name: _or_none(quantile(tally.database_s, share)) for name, share in _QUANTILES.items()},
    }


def _or_none(number: float) -> float | None:
    return None if math.isnan(number) else round(number, 7)


def overhead_s(result: PhaseResult, share: float) -> float:
    """Return a quantile of the library's times less that of the bare driver's in the same phase, in seconds."""
    return quantile(result.library.database_s, share) - quantile(result.plain.database_s, share)


def _table(results: Sequence[PhaseResult], *, has_fates: bool) -> Table:
    table = Table(box=_RULE_UNDER_HEADINGS, padding=0, show_edge=False, header_style="bold")
    table.add_column("\nphase", no_wrap=True)
    for heading in ("\ncalls", "library\nfailed", "\nopened", "\nreused"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("\nreplaced", no_wrap=True)
    for heading in ("overhead\np50", "\np99", "plain\nfailed"):
        table.add_column(heading, justify="right", no_wrap=True)
    if has_fates:
        table.add_column("\nwith", no_wrap=True)
    for result in results:
        table.add_row(*_row(result), *([_fate(result.plain, "\n")] if has_fates else []))
    return table


def _row(result: PhaseResult) -> Iterator[Text | str]:
    library, plain = result.library, result.plain
    yield result.phase.title
    yield str(len(library.answers))
    yield _count_of_failures(library)
    yield str(library.counters["opened"])
    yield str(library.counters["reused"])
    yield "\n".join(f"{times} {reason}" for reason, times in library.replaced.items()) or "0"
    for share in _QUANTILES.values():
        yield _signed(overhead_s(result, share))
    yield _count_of_failures(plain)


def _count_of_failures(tally: Tally) -> Text:
    return Text(str(tally.failed), style="bold red" if tally.failed else "green")


def _fate(tally: Tally, separator: str) -> str:
    """Say what became of the plain function: its errors in order of appearance, and whether it recovered."""
    if not tally.failed:
        return ""
    end = "new environment" if tally.has_recovered else "never recovered"
    return f",{separator}".join([*tally.errors, end])


def _signed(seconds: float) -> str:
    """Write a duration with its sign, in the unit that suits its size."""
    if math.isnan(seconds):
        return ""
    for unit, factor in (("s", 1.0), ("ms", 1e3)):
        if abs(seconds) * factor >= 1:
            digits = 1 if abs(seconds) * factor < _LONG else 0
            return f"{seconds * factor:+.{digits}f} {unit}"
    return f"{seconds * 1e6:+.0f} µs"


@contextmanager
def progress(phases: Sequence[Phase], console: Console) -> Iterator[Callable[[Phase], Callable[[], None]]]:
    """Show how far the run is: a line for each phase, and on a terminal a bar below.

    Gives a function to be called at the start of a phase; that returns another one, to be called after each
    invocation.
    """
    longest = max(len(phase.title) for phase in phases)
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("invocations"), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=2 * sum(phase.invocations for phase in phases))

        def begin(phase: Phase) -> Callable[[], None]:
            console.print(f"{phase.title:<{longest}}  {phase.story}")
            return lambda: bar.advance(task)

        yield begin
    console.print()


def introduce(server: str, *, is_tls: bool, console: Console) -> None:
    """Say what takes part."""
    console.print(f"runtime  awslambdaric {version('awslambdaric')} on Python {platform.python_version()}")
    console.print(f"server   {server}, {'verified TLS' if is_tls else 'without TLS: this build has none'}\n")


def console(*, is_error_stream: bool) -> Console:
    """Return a console for people: 100 columns wide unless it is a terminal, and then as wide as that."""
    is_terminal = Console(stderr=is_error_stream).is_terminal
    width = None if is_terminal else _WIDTH
    return Console(stderr=is_error_stream, width=width, highlight=False, markup=False, emoji=False)
