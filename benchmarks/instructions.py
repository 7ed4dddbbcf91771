"""Cold processes to their first row, and warm borrows, in instructions: what else runs here does not change those.

Needs valgrind, which counts those of the process, not the kernel's. The cold process once is a plain one, and once
has what Lambda's runtime client imports before the handler; and once it trusts whom it would trust for a proxy.
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
from benchmarks.credentials import as_to_a_proxy, iam_way, ways

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.credentials import Ways


BEFORE = {"plain process": "", "runtime client": "import awslambdaric.bootstrap\n"}
# What `warm` times, so many times.
_WARM = """
import os
from benchmarks.subjects import bare_connection
from benchmarks.warm import invocation, select_1
from lambda_dbconn import ConnectionManager, Settings

db, bare, context = ConnectionManager(Settings.from_env()), bare_connection(os.environ), invocation()

def by_hand():
    select_1(bare)

def by_library():
    with db.connection() as connection:
        select_1(connection)

def within_a_deadline():
    with db.connection(context) as connection:
        select_1(connection)

for _ in range({times}):
    {way}()
"""
_WARMING_UP, _WARM_TIMES = 500, 2000
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
        lines.append(_line(engine, "plain process", *as_to_a_proxy(static, counted)))
        lines.append(_warm_line(engine, static))
        with_token, by_iam = iam_way(server, static)
        lines += [_line(engine, before, with_token, by_iam) for before in BEFORE]
        lines.append(_line(engine, "plain process", *as_to_a_proxy(with_token, by_iam)))
    return "\n".join(lines)


def _line(engine: str, process: str, hand: Mapping[str, str], paths: Ways) -> str:
    imports = BEFORE[process]
    bare = _instructions(imports + _BY_HAND[engine], hand)
    ratios = {name: _instructions(imports + code, environ) / bare for name, (code, environ) in paths.items()}
    shown = "   ".join(f"{name} {ratio:.3f}" for name, ratio in ratios.items())
    return f"{engine:<11}{process:<16}bare {bare / 1e6:6.1f} million   {shown}"


def _warm_line(engine: str, environ: Mapping[str, str]) -> str:
    bare, library, limited = (_each(way, environ) for way in ("by_hand", "by_library", "within_a_deadline"))
    return (
        f"{engine:<11}{'warm':<16}bare {bare / 1e3:6.1f} thousand   added {(library - bare) / 1e3:.1f}   "
        f"with a deadline {(limited - library) / 1e3:.1f} more"
    )


def _each(way: str, environ: Mapping[str, str]) -> float:
    """Return the instructions of one time, when it has been done often enough for Python to have adapted to it."""
    before, after = (
        _instructions(_WARM.format(way=way, times=times), environ) for times in (_WARMING_UP, _WARMING_UP + _WARM_TIMES)
    )
    return (after - before) / _WARM_TIMES


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
