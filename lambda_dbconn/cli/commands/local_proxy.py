"""`lambda-dbconn local-proxy`: its options; `lambda_dbconn.cli.local_proxy` does it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

import click

Auth = Literal["iam", "secret"]

_FOREVER_S = 86_400.0
_REGION = re.compile(r"[a-z]{2,}(-[a-z]+)+-\d+")
_AT_LEAST_ONE = click.IntRange(min=1)
_SECONDS = click.FloatRange(min=0, max=_FOREVER_S, min_open=True)

_HELP = """Run a stand-in for Amazon RDS Proxy on this machine, until Ctrl-C.

It speaks verified TLS, checks IAM tokens, pools connections, and pins sessions for the documented reasons; its log
says which. It imitates the documentation, and has not been compared with the real service.

\b
Examples:
  lambda-dbconn local-proxy --engine postgresql
  lambda-dbconn local-proxy --engine mysql --auth secret --max-connections 2
  BACKEND_PASSWORD=... lambda-dbconn local-proxy --backend postgresql://app@localhost/shop

The variables for lambda_dbconn.from_env() go to standard output; everything else to standard error:

\b
  lambda-dbconn local-proxy --engine postgresql > proxy.env    # in one terminal
  . ./proxy.env; python my_program.py                          # in another

Passwords and secret keys are only read from the environment: BACKEND_PASSWORD for --backend, and with
--access-key-id AWS_SECRET_ACCESS_KEY and, if set, AWS_SESSION_TOKEN. A --backend on this machine is spoken to
without TLS, any other with TLS, verified: ?sslrootcert=FILE names the authorities, ?sslmode=disable does without.
"""


def _region(_ctx: click.Context, _option: click.Parameter, value: str) -> str:
    if not _REGION.fullmatch(value):
        raise click.BadParameter(f"{value!r} is not the name of a region, as us-east-1 is")
    return value


@click.command("local-proxy", help=_HELP, short_help="Run a stand-in for RDS Proxy on this machine.")
@click.option("--backend", metavar="URL", help="A server that runs: engine://user@host:port/name.")
@click.option(
    "--engine",
    type=click.Choice(["postgresql", "mysql"]),
    help="Or: start a private server, removed at the end. mysql starts MariaDB.",
)
@click.option("--listen-port", type=click.IntRange(0, 65535), default=0, help="Default: a free one.")
@click.option(
    "--auth",
    type=click.Choice(["iam", "secret"]),
    default="iam",
    show_default=True,
    help="How clients log in: with IAM tokens, or with the database user's password.",
)
@click.option("--access-key-id", metavar="ID", help="Whose tokens are good. Default: a new key pair, printed.")
@click.option("--region", default="us-east-1", show_default=True, callback=_region, help="That tokens are signed for.")
@click.option("--read-only", is_flag=True, help="Be a read-only endpoint.")
@click.option(
    *("--max-connections", "most"),
    type=_AT_LEAST_ONE,
    default=10,
    show_default=True,
    help="Connections to the database.",
)
@click.option(
    *("--borrow-timeout", "borrow_timeout_s"),
    type=_SECONDS,
    default=120.0,
    show_default=True,
    help="Seconds that a request may wait for one.",
)
@click.option(
    *("--idle-client-timeout", "idle_timeout_s"),
    type=_SECONDS,
    default=1800.0,
    show_default=True,
    help="Seconds that a client may ask nothing.",
)
@click.option(
    "--certificates",
    type=click.Path(file_okay=False, resolve_path=True, path_type=Path),
    help="Where certificates are kept, and made when missing. Default: made anew each time.",
)
@click.option(
    "--print-env",
    type=click.Choice(["sh", "json"]),
    default="sh",
    show_default=True,
    help="How clients' variables are written to standard output.",
)
def command(*, backend: str | None, engine: str | None, auth: Auth, access_key_id: str | None, **options: Any) -> None:
    """Check what is asked for together, and do it."""
    if (backend is None) == (engine is None):
        raise click.UsageError("say either --backend or --engine")
    if access_key_id is not None and auth != "iam":
        raise click.UsageError("--access-key-id is for --auth iam")

    from lambda_dbconn.cli.requirements import require

    drivers = {"mysql": "pymysql", "postgresql": "psycopg"}
    require("trustme", *([drivers[engine]] if engine else ()), extra="local-proxy")

    from lambda_dbconn.cli.local_proxy.serving import Order, serve

    serve(Order(backend_url=backend, engine=engine, auth=auth, access_key_id=access_key_id, **options))
