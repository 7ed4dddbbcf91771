"""What a command is at, on standard error: a line for each step, under which, on a terminal, the seconds go by."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def step(text: str) -> Iterator[None]:
    """Say what is done for as long as it lasts; what moves is gone when it is over, and the line stays.

    Without rich, on a dumb terminal, or where nobody looks, there is the line alone.
    """
    click.echo(f"{text} ...", err=True)
    if not sys.stderr.isatty() or find_spec("rich") is None:
        yield
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if console.is_dumb_terminal:  # where nothing can be taken back
        yield
        return
    with Progress(SpinnerColumn(), TimeElapsedColumn(), console=console, transient=True) as progress:
        progress.add_task("", total=None)
        yield
