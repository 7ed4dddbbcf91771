"""The command line in this process, with standard output and standard error apart: click 8.1's runner mixes them."""

from __future__ import annotations

import io
import os
from contextlib import redirect_stderr, redirect_stdout
from typing import TYPE_CHECKING, NamedTuple
from unittest import mock

import pytest

from lambda_dbconn.cli.group import CommandGroup

if TYPE_CHECKING:
    from collections.abc import Mapping


class Outcome(NamedTuple):
    """What a command left."""

    exit_code: object
    stdout: str
    stderr: str


def run(*arguments: str, environ: Mapping[str, str] | None = None) -> Outcome:
    """Run `lambda-dbconn` with these arguments, and these variables besides."""
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.dict(os.environ, environ or {}),
        redirect_stdout(out),
        redirect_stderr(err),
        pytest.raises(SystemExit) as end,
    ):
        CommandGroup.default().main([*arguments], prog_name="lambda-dbconn")
    return Outcome(end.value.code, out.getvalue(), err.getvalue())
