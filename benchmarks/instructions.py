"""A whole cold process to its first row, in instructions: what else runs on the machine does not change those.

Needs valgrind, which counts them: those of the process, not the kernel's. Once in a plain process, and once in one that
has what Lambda's runtime client imports before the handler.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import lambda_dbconn
from benchmarks.cold import _BY_HAND, _compile
from benchmarks.credentials import iam_way, ways

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.credentials import Ways


BEFORE = {"plain process": "", "runtime client": "import awslambdaric.bootstrap\n"}
_COUNT = ("valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null")
_LEFT_OUT = "secret, botocore"  # an SDK: no ratio that wants counting


def measure(engine: str) -> str:
    """Return a line of results for each process and each kind of credentials."""
    if shutil.which(_COUNT[0]) is None:
        return f"{engine:<11}not counted: there is no valgrind"
    _compile()
    with ways(engine) as (server, static, paths):
        counted = {name: way for name, way in paths.items() if name != _LEFT_OUT}
        lines = [_line(engine, before, static, counted) for before in BEFORE]
        with_token, by_iam = iam_way(server, static)
        lines += [_line(engine, before, with_token, by_iam) for before in BEFORE]
    return "\n".join(lines)


def _line(engine: str, before: str, hand: Mapping[str, str], paths: Ways) -> str:
    imports = BEFORE[before]
    bare = _instructions(imports + _BY_HAND[engine], hand)
    ratios = {name: _instructions(imports + code, environ) / bare for name, (code, environ) in paths.items()}
    shown = "   ".join(f"{name} {ratio:.3f}" for name, ratio in ratios.items())
    return f"{engine:<11}{before:<16}bare {bare / 1e6:6.1f} million   {shown}"


def _instructions(code: str, environ: Mapping[str, str]) -> int:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("DB_", "AWS_"))}
    # One order of hashes, and patience: a process takes fifty times as long.
    settings = {"PYTHONHASHSEED": "0", "DB_CONNECT_TIMEOUT_S": "300", "PYTHONPATH": str(_root())}
    with tempfile.NamedTemporaryFile("r") as log:
        subprocess.run(
            [*_COUNT, f"--log-file={log.name}", sys.executable, "-W", "ignore", "-c", code],
            env={**inherited, **settings, **environ},
            stdout=subprocess.DEVNULL,
            check=True,
        )
        count = re.search(r"Collected : (\d+)", log.read())
        assert count is not None
        return int(count[1])


def _root() -> Path:
    return Path(lambda_dbconn.__file__).parent.parent
