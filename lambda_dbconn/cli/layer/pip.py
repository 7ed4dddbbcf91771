"""pip, as this Python has it: a program that is called, for it is no library."""

from __future__ import annotations

import subprocess
import sys

import click

_QUIETLY = ("--quiet", "--disable-pip-version-check", "--no-input")


def run_pip(subcommand: str, *arguments: str, purpose: str) -> None:
    """Run pip to its end.

    Raises:
        click.ClickException: It failed; with what pip calls errors.
    """
    command = [sys.executable, "-P", "-m", "pip", subcommand, *_QUIETLY, *arguments]
    run = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own Python's pip
    if run.returncode != 0:
        raise click.ClickException(f"{purpose}: {_why(run.stderr)}")


def _why(errors: str) -> str:
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    return " ".join([line for line in lines if line.startswith("ERROR:")] or lines[-1:]) or "pip did not say why"
