"""A diagnosis for people: a table as it grows, and under it what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lambda_dbconn.cli.printable import printable

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from rich.status import Status

    from lambda_dbconn.doctor import Diagnosis, Step

_STYLES = {"passed": "green", "failed": "bold red", "skipped": "dim"}


class Progress:
    """Says on standard error, while the examination runs and only on a terminal, how far it is."""

    def __init__(self) -> None:
        self._status: Status = Console(stderr=True).status("settings …")

    def __enter__(self) -> Self:
        self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._status.stop()

    def tell(self, step: Step) -> None:
        """Show the step that is over."""
        self._status.update(f"{step.name} {step.status} …")


def show(diagnosis: Diagnosis, console: Console) -> None:
    """Print the table, notes and causes; nothing of it is taken for markup, and no server's text moves the cursor."""
    table = Table(box=None, pad_edge=False)
    for title in ("Step", "Status"):
        table.add_column(title, no_wrap=True)
    table.add_column("ms", justify="right", no_wrap=True)
    table.add_column("Found", overflow="fold")
    for step in diagnosis.steps:
        duration = "" if step.status == "skipped" else f"{step.duration_ms:.1f}"
        style = _STYLES[step.status]
        table.add_row(step.name, Text(step.status, style=style), duration, Text(printable(step.found)))
    console.print(table)
    for step in diagnosis.steps:
        for note in step.notes:
            console.print(Text(f"\nNote on {step.name}: {printable(note)}", style="yellow"))
        for number, cause in enumerate(step.causes, start=1):
            if number == 1:
                console.print(Text(f"\nWhy {step.name} may have failed, the likeliest first:", style="bold"))
            console.print(Text(f"  {number}. {printable(cause.cause)}"))
            console.print(Text(f"     {printable(cause.fix)}", style="cyan"))
    if diagnosis.is_well:
        console.print(Text("\nAll is well.", style="bold green"))
    else:
        failed = ", ".join(step.name for step in diagnosis.steps if step.status == "failed")
        console.print(Text(f"\nNot well: {failed or 'not finished'}.", style="bold red"))
