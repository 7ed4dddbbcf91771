"""`lambda-dbconn pins`: its options; `lambda_dbconn.cli.pins` does it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from lambda_dbconn.cli.pins.sources import Language

_HELP = """Find statements that pin a session on RDS Proxy, in .sql files and in the strings of Python code.

\b
Examples:
  lambda-dbconn pins --engine postgresql src migrations
  lambda-dbconn pins --engine mysql schema.sql handler.py
  pg_dump -s shop | lambda-dbconn pins --engine postgresql --as sql -
  lambda-dbconn pins --engine postgresql --explain "SET search_path TO tenant_7"

A folder is walked for *.sql and *.py; - is standard input. Nothing is executed, and nobody is asked. Each statement
is a line FILE:LINE: REASON (FIX). Where a pin is meant, say so in its line:

\b
  cursor.execute("LISTEN jobs")  # lambda-dbconn: allow-pin
  LISTEN jobs;                   -- lambda-dbconn: allow-pin

Exit code: 0 nothing pins, 1 something does, 2 wrongly called or a file could not be read.
"""


@click.command("pins", help=_HELP, short_help="Find statements that pin a session on RDS Proxy.")
@click.argument("files", nargs=-1, type=click.Path(exists=True, allow_dash=True), metavar="[FILE]...")
@click.option(
    "--engine",
    type=click.Choice(["postgresql", "mysql"]),
    required=True,
    help="Whose SQL it is. mysql is for MariaDB, too.",
)
@click.option(
    *("--as", "language"),
    type=click.Choice(["sql", "python"]),
    help="What standard input is, and files that end in neither .sql nor .py.",
)
@click.option("--explain", "statement", metavar="SQL", help="Say of one statement whether it pins, by which rule.")
@click.pass_context
def command(
    ctx: click.Context, *, files: tuple[str, ...], engine: str, language: Language | None, statement: str | None
) -> None:
    """Check what is asked for together, and do it."""
    if (statement is None) == (not files):
        raise click.UsageError("say either files or --explain")
    from lambda_dbconn.cli.pins.report import check, explain

    if statement is not None:
        ctx.exit(explain(engine, statement))
    ctx.exit(check(engine, files, language))
