"""What `pins` prints: a line for each finding, an explanation, and what could not be read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from lambda_dbconn.cli.pins.search import search
from lambda_dbconn.cli.pins.sources import STDIN, UnreadableError, language_of, read, walked
from lambda_dbconn.cli.printable import printable
from lambda_dbconn.proxy import pin

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lambda_dbconn.cli.pins.sources import Language

NOTHING_PINS, PINS, CANNOT_SAY = 0, 1, 2  # exit codes

_GUIDE = "https://docs.aws.amazon.com/AmazonRDS"
_SOURCES = {
    "P": f"RDS user guide, Avoiding pinning an RDS Proxy: {_GUIDE}/latest/UserGuide/rds-proxy-pinning.html",
    "A": f"Aurora user guide, Avoiding pinning an RDS Proxy: {_GUIDE}/latest/AuroraUserGuide/rds-proxy-pinning.html",
}


def check(engine: str, names: Sequence[str], language: Language | None) -> int:
    """Print a line for each statement that pins, and return the exit code.

    Args:
        engine: `postgresql` or `mysql`.
        names: Files and folders; `-` is standard input.
        language: Of standard input and of files whose name does not say it.
    """
    looked_at = found = 0
    unreadable: list[str] = []

    def fail(where: str, why: str) -> None:
        unreadable.append(where)
        _print(f"{where}: {why}", to_stderr=True)

    for name in walked(names, lambda error: fail(str(error.filename), error.strerror or "cannot be read")):
        written_in = language_of(name) or language
        if written_in is None:
            raise click.UsageError(f"say --as sql or --as python for {printable(name)}: its name does not say it")
        shown = "<stdin>" if name == STDIN else name
        looked_at += 1
        try:
            for finding in search(engine, written_in, read(name, written_in)):
                found += 1
                rule = finding.rule
                _print(f"{shown}:{finding.line}: {finding.shown}: {rule.reason} ({rule.fix})")
        except UnreadableError as error:
            fail(shown if error.line is None else f"{shown}:{error.line}", str(error))
    _print(f"statements that pin: {found}, files: {looked_at}, not readable: {len(unreadable)}", to_stderr=True)
    return CANNOT_SAY if unreadable else PINS if found else NOTHING_PINS


def explain(engine: str, text: str) -> int:
    """Print the verdict on a text that is sent as it is, and return the exit code."""
    found = pin(engine, text)
    if found is None:
        _print("verdict: does not pin: no rule is about it")
        return NOTHING_PINS
    rule = found.rule
    _print(f"verdict: pins: {found.shown}")
    _print(f"rule:    {rule.id} ({rule.basis})")
    _print(f"reason:  {rule.reason}")
    _print(f"fix:     {rule.fix}")
    _print(f"source:  {_SOURCES[rule.source]}")
    return PINS


def _print(line: str, *, to_stderr: bool = False) -> None:
    click.echo(printable(line), err=to_stderr)
