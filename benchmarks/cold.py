"""A whole cold process to its first row, against the bare driver: time and peak memory."""

from __future__ import annotations

import compileall
import os
import statistics
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from typing import TYPE_CHECKING

import lambda_dbconn
from benchmarks.subjects import running

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

TIME_TARGET = 1.05
MEMORY_TARGET_MIB = 2.0

_BY_HAND = {
    "postgresql": """
import os, psycopg
e = os.environ
connection = psycopg.connect(
    host=e["DB_HOST"], port=e["DB_PORT"], dbname=e["DB_NAME"], user=e["DB_USER"], password=e["DB_PASSWORD"],
    sslmode="verify-full", sslrootcert=e["DB_SSLROOTCERT"], gssencmode="disable", autocommit=True,
    prepare_threshold=None,
)
with connection.cursor() as cursor:
    cursor.execute("select 1")
    assert cursor.fetchone() == (1,)
""",
    "mysql": """
import os, ssl, pymysql
e = os.environ
connection = pymysql.connect(
    host=e["DB_HOST"], port=int(e["DB_PORT"]), database=e["DB_NAME"], user=e["DB_USER"],
    password=e["DB_PASSWORD"], ssl=ssl.create_default_context(cafile=e["DB_SSLROOTCERT"]), autocommit=True,
)
with connection.cursor() as cursor:
    cursor.execute("select 1")
    assert cursor.fetchone() == (1,)
""",
}
# A child's resource usage begins with its parent's peak; the high-water mark of its own memory does not.
_REPORT_MEMORY = """
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
_BY_LIBRARY = """
import lambda_dbconn
db = lambda_dbconn.from_env()
with db.connection() as connection, connection.cursor() as cursor:
    cursor.execute("select 1")
    assert cursor.fetchone() == (1,)
"""


def measure(engine: str, *, runs: int = 31) -> str:
    """Return one line of results for an engine: lower quartiles of alternating processes, bytecode compiled first."""
    _compile()
    with running(engine) as (_, environ):
        for code in (_BY_HAND[engine], _BY_LIBRARY):
            _process(code, environ)
        pairs = [(_process(_BY_HAND[engine], environ), _process(_BY_LIBRARY, environ)) for _ in range(runs)]
    hand_ms = undisturbed(hand[0] for hand, _ in pairs)
    added_ms = undisturbed(library[0] for _, library in pairs) - hand_ms
    hand_mib = statistics.median(hand[1] for hand, _ in pairs)
    added_mib = statistics.median(library[1] - hand[1] for hand, library in pairs)
    return (
        f"{engine:<11}bare {hand_ms:6.1f} ms   added {added_ms:4.1f} ms   ratio {1 + added_ms / hand_ms:.3f} "
        f"(target {TIME_TARGET})   memory {hand_mib:.1f} MiB, added {added_mib:.2f} MiB (target {MEMORY_TARGET_MIB:g})"
    )


def undisturbed(figures: Iterable[float]) -> float:
    """Return the lower quartile: what else runs on a machine only ever adds, and one lucky run is no measure either."""
    return statistics.quantiles(figures, n=4)[0]


def _compile() -> None:
    """Compile all that is imported: without bytecode every process would compile anew, and that would be measured."""
    for folder in (Path(lambda_dbconn.__file__).parent, Path(sysconfig.get_path("purelib"))):
        compileall.compile_dir(folder, quiet=2, workers=1)


def _process(code: str, environ: Mapping[str, str]) -> tuple[float, float]:
    """Run a process to its end; return milliseconds and its peak memory in MiB."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("DB_", "AWS_"))}
    start = time.perf_counter()
    process = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code + _REPORT_MEMORY],
        env={**inherited, "PYTHONPATH": str(Path(lambda_dbconn.__file__).parent.parent), **environ},
        stdout=subprocess.PIPE,
        check=True,
    )
    elapsed_ms = (time.perf_counter() - start) * 1e3
    return elapsed_ms, int(process.stdout) / 1024
