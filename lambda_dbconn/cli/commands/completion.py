"""`lambda-dbconn completion`: the script that lets a shell complete commands and options; click writes it."""

from __future__ import annotations

import click

_HELP = """Print what lets your shell complete commands, options and their values at the tab key.

\b
Examples:
  eval "$(lambda-dbconn completion bash)"                  # in ~/.bashrc
  eval "$(lambda-dbconn completion zsh)"                   # in ~/.zshrc, after compinit
  lambda-dbconn completion fish > ~/.config/fish/completions/lambda-dbconn.fish

The script asks lambda-dbconn each time, so it need not be written again after an update. bash must be 4.4 or later:
the one of macOS is not.
"""


@click.command("completion", help=_HELP, short_help="Print what lets your shell complete.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(ctx: click.Context, *, shell: str) -> None:
    """Let click write it, for the whole command line."""
    from click.shell_completion import get_completion_class

    from lambda_dbconn.cli.group import COMPLETION_VARIABLE, NAME

    completion = get_completion_class(shell)
    assert completion is not None  # noqa: S101 - click has all of these
    click.echo(completion(ctx.find_root().command, {}, NAME, COMPLETION_VARIABLE).source())
