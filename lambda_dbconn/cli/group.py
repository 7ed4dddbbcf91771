"""The frame of the command line: finds the commands, and says what went wrong in one line."""

from __future__ import annotations

import pkgutil
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any, Self

import click

from lambda_dbconn import __version__
from lambda_dbconn.cli import commands
from lambda_dbconn.cli.printable import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

NAME = "lambda-dbconn"
COMPLETION_VARIABLE = "_LAMBDA_DBCONN_COMPLETE"  # click looks at this one, by the command's name

_HELP = """A database connection that is always good, for AWS Lambda functions.

\b
Examples:
  lambda-dbconn doctor
  lambda-dbconn iam-policy --format sam
  lambda-dbconn pins --engine postgresql src migrations
  lambda-dbconn local-proxy --engine postgresql
  lambda-dbconn layer --python 3.13 --arch arm64 --engine postgresql
  lambda-dbconn local-proxy --help

\b
Completion at the tab key, in bash (or zsh, fish: write that for bash):
  eval "$(lambda-dbconn completion bash)"

Exit code: 0 well, 1 failed, 2 wrongly called or something is not installed, 130 broken off by Ctrl-C.
"""


class CommandGroup(click.Group):
    """The modules in `commands`, each with a click command called `command`; `local_proxy` is `local-proxy`.

    A module is imported for its help and to be run, so it imports what it needs inside its function.
    """

    @classmethod
    def default(cls) -> Self:
        """Return what `lambda-dbconn` runs."""
        version = click.version_option(__version__, message=f"{NAME} %(version)s")
        group = cls(
            NAME,
            help=_HELP,
            callback=_show_help_without_a_command,
            invoke_without_command=True,
            context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
        )
        version(group)
        return group

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Name the commands."""
        return sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(commands.__path__))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command; None if there is none of that name."""
        if cmd_name not in self.list_commands(ctx):
            return None
        module = import_module(f"{commands.__name__}.{cmd_name.replace('-', '_')}")
        command: click.Command = module.command
        return command

    def main(self, args: Sequence[str] | None = None, *rest: Any, **extra: Any) -> Any:
        """Run, and end the process; an error is one line on standard error."""
        extra["standalone_mode"] = False
        try:
            exit_code = super().main(args, *rest, **extra)
        except click.ClickException as error:
            click.echo(_line(error), err=True)
            sys.exit(error.exit_code)
        except click.Abort:
            sys.exit(130)  # as a shell reports a Ctrl-C
        sys.exit(exit_code if isinstance(exit_code, int) else 0)


@click.pass_context
def _show_help_without_a_command(ctx: click.Context) -> None:
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def _line(error: click.ClickException) -> str:
    """Say where, what, and, if the call was wrong, where to learn how to call."""
    context = error.ctx if isinstance(error, click.UsageError) else click.get_current_context(silent=True)
    where = context.command_path if context is not None else NAME
    what = " ".join(error.format_message().split()).removesuffix(".")
    advice = f" (see {where} --help)" if isinstance(error, click.UsageError) else ""
    return printable(f"{where}: {what}{advice}")
