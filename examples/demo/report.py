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

from examples.demo.measured import TIMED_OUT, Tally, quantile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from examples.demo.phases import Phase, PhaseResult

_WIDTH = 100
_LONG = 10
_RULE_UNDER_HEADINGS = box.Box("    \n    \n ── \n" + "    \n" * 5)
_QUANTILES = {"p50": 0.50, "p99": 0.99}
_NOTES = """
Calls are invocations of each function. Opened and replaced are connections, as the library counted them. Extra is \
the library's median time from asking for the connection to giving it back, with one select in between, less the plain \
handler's; mostly noise where others use the processor as well. The plain handlers keep one global connection, and \
the token or password of the import. The PostgreSQL one connects anew when psycopg calls it closed; the MariaDB one \
pings before each query, which is a round trip. One that stays broken gets a new environment after the phase, as by a \
deployment.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The outcome of a run.

    Attributes:
        servers: the databases' versions by name.
        logins: how many the proxies let in, by what they ask for.
        refused: how many they did not.
        results: of the phases that were played, in order.
        complaints: why the run does not show what it should; none if it does.
        elapsed_s: how long it took, in seconds.
    """

    servers: Mapping[str, str]
    logins: Mapping[str, int]
    refused: int
    results: Sequence[PhaseResult]
    complaints: Sequence[str]
    elapsed_s: float

    def as_json(self) -> dict[str, Any]:
        """Return the figures; times are seconds, and None where there is nothing to measure."""
        return {
            "python": platform.python_version(),
            "servers": dict(self.servers),
            "logins": dict(self.logins),
            "refused": self.refused,
            "elapsed_s": round(self.elapsed_s, 3),
            "is_valid": not self.complaints,
            "complaints": list(self.complaints),
            "phases": [_phase_as_json(result) for result in self.results],
        }

    def print(self, console: Console) -> None:
        """Print the table, what its columns mean, and the verdict."""
        is_wide = console.width >= _WIDTH
        console.print(_table(self.results, is_wide=is_wide))
        console.print()
        for result in self.results:
            if result.plain.is_broken and result.plain.last_failure is not None:
                said = result.plain.last_failure.message.strip().splitlines()[-1]
                said = said.rpartition("FATAL:")[2].strip().partition(". ")[0]
                line = f"plain, {result.phase.title}, {result.engine}: {said}"
                console.print(line, no_wrap=True, overflow="ellipsis")
        console.print(Text(_NOTES, style="dim"))
        for complaint in self.complaints:
            console.print(Text(f"NOT GOOD: {complaint}", style="bold red"))
        if not self.complaints:
            console.print(Text(self._verdict(), style="bold green"))

    def _verdict(self) -> str:
        total = sum(len(result.library.answers) for result in self.results)
        failed = sum(result.plain.failed for result in self.results)
        return (
            f"With the library none of {total} invocations failed; with the plain handlers {failed} of {total} did.\n"
            f"The proxies let in {self.logins['iam']} logins whose token they verified, and {self.logins['secret']} "
            f"with the secret's password; they refused {self.refused}. "
            f"False certificates were refused. ({self.elapsed_s:.0f} s)"
        )


def _phase_as_json(result: PhaseResult) -> dict[str, Any]:
    return {
        "title": result.phase.title,
        "engine": result.engine,
        "strikes": result.phase.strikes,
        "library": _tally_as_json(result.library)
        | {"opened": result.library.counters["opened"], "reused": result.library.counters["reused"]}
        | {"replaced": result.library.replaced, "connect_failures": result.library.counters["connect_failures"]},
        "plain": _tally_as_json(result.plain) | {"is_broken": result.plain.is_broken},
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


def _table(results: Sequence[PhaseResult], *, is_wide: bool) -> Table:
    """Have a line for each phase and engine; a narrow one says nothing of connections and times."""
    table = Table(box=_RULE_UNDER_HEADINGS, padding=0, show_edge=False, header_style="bold")
    for heading in ("\nphase", "\ndatabase"):
        table.add_column(heading, no_wrap=True)
    for heading in ("\ncalls", "library\nfailed"):
        table.add_column(heading, justify="right", no_wrap=True)
    if is_wide:
        table.add_column("\nopened", justify="right", no_wrap=True)
        table.add_column("\nreplaced", no_wrap=True)
        table.add_column("\nextra", justify="right", no_wrap=True)
    table.add_column("plain\nfailed", justify="right", no_wrap=True)
    table.add_column("\nand", no_wrap=True)
    titles: set[str] = set()
    for result in results:
        title = "" if result.phase.title in titles else result.phase.title
        titles.add(result.phase.title)
        table.add_row(title, *_row(result, is_wide=is_wide))
    return table


def _row(result: PhaseResult, *, is_wide: bool) -> Iterator[Text | str]:
    library, plain = result.library, result.plain
    yield result.engine
    yield str(len(library.answers))
    yield _count_of_failures(library)
    if is_wide:
        yield str(library.counters["opened"])
        yield ", ".join(f"{times} {reason}" for reason, times in library.replaced.items()) or "0"
        yield "" if result.phase.fault else _signed(overhead_s(result, _QUANTILES["p50"]))
    yield _count_of_failures(plain)
    yield _fate(plain)


def _count_of_failures(tally: Tally) -> Text:
    return Text(str(tally.failed), style="bold red" if tally.failed else "green")


def _fate(tally: Tally) -> str:
    """Say what became of the plain function."""
    if tally.is_broken:
        return "stays broken"
    if TIMED_OUT in tally.errors:
        return "hangs, times out"
    return "recovers" if tally.failed else ""


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
def progress(
    phases: Sequence[Phase], console: Console, *, engines: int
) -> Iterator[Callable[[Phase], Callable[[], None]]]:
    """Show how far the run is: a line for each phase, and on a terminal a bar below.

    Gives a function to be called at the start of a phase; that returns another one, to be called after each
    invocation.
    """
    longest = max(len(phase.title) for phase in phases)
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("invocations"), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=2 * engines * sum(phase.invocations for phase in phases))

        def begin(phase: Phase) -> Callable[[], None]:
            console.print(f"{phase.title:<{longest}}  {phase.story}")
            return lambda: bar.advance(task)

        yield begin
    console.print()


def introduce(servers: Mapping[str, str], *, has_all: bool, console: Console) -> None:
    """Say what takes part, and what does not."""
    console.print(
        f"function  awslambdaric {version('awslambdaric')} on Python {platform.python_version()}, frozen as on Lambda"
    )
    console.print("login     IAM tokens and Secrets Manager, over verified TLS")
    console.print("proxy     a local stand-in for RDS Proxy, one for tokens and one for the secret")
    console.print(f"database  {', '.join(' '.join(pair) for pair in servers.items())}")
    if not has_all:
        console.print("          not MariaDB: there is no mariadbd on this machine (on Debian: mariadb-server-core)")
    console.print()


def console(*, is_error_stream: bool) -> Console:
    """Return a console for people: 100 columns wide unless it is a terminal, and then as wide as that."""
    is_terminal = Console(stderr=is_error_stream).is_terminal
    width = None if is_terminal else _WIDTH
    return Console(stderr=is_error_stream, width=width, highlight=False, markup=False, emoji=False)
