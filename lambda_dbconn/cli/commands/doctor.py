"""`lambda-dbconn doctor`: its options; `lambda_dbconn.doctor` examines, `lambda_dbconn.cli.doctor` shows."""

from __future__ import annotations

import click

_HELP = """Find out what is wrong between here and the database.

It goes step by step: settings, endpoint, DNS, TCP, TLS, credentials, login, proxy, server, role, pinning, round trip.
Each step has passed, failed or been skipped, and a failure comes with its likely causes and what to do. It sends no
SQL but a few plain SELECT or SHOW, and shows no secret. The settings are the variables that from_env() reads.

\b
Examples:
  lambda-dbconn doctor
  lambda-dbconn doctor --prefix ORDERS_DB_ --reader
  lambda-dbconn doctor --json | jq '.steps[] | select(.status == "failed")'

The exit code is 0 when all is well, and 1 when it is not. Where only a function gets to the database, let the function
examine itself: db.doctor(), as examples/doctor shows.
"""


@click.command("doctor", help=_HELP, short_help="Find out what is wrong with a connection.")
@click.option("--prefix", default="DB_", show_default=True, help="Of the variables.")
@click.option("--reader", "is_reader", is_flag=True, help="Examine READER_HOST instead of HOST.")
@click.option(
    *("--timeout", "timeout_s"),
    type=click.FloatRange(min=0, min_open=True),
    default=30.0,
    show_default=True,
    help="Seconds for all steps together.",
)
@click.option("--json", "is_json", is_flag=True, help="Print JSON, for machines.")
@click.pass_context
def command(ctx: click.Context, *, prefix: str, is_reader: bool, timeout_s: float, is_json: bool) -> None:
    """Examine, show, and say by the exit code whether all is well."""
    import json

    from lambda_dbconn.cli.requirements import require

    require("rich", extra="cli")
    if not (prefix.isascii() and prefix.isidentifier()):
        raise click.BadParameter("accepted are letters, digits and underscores", param_hint="--prefix")

    from rich.console import Console

    from lambda_dbconn.cli.doctor.showing import Progress, show
    from lambda_dbconn.doctor import examine_environment

    with Progress() as progress:
        diagnosis = examine_environment(prefix, context=timeout_s, is_reader=is_reader, tell=progress.tell)
    if is_json:
        click.echo(json.dumps(diagnosis.as_dict(), indent=2))
    else:
        show(diagnosis, Console())
    if not diagnosis.is_well:
        ctx.exit(1)
