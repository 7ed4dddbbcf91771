"""The tables of `docs/explanation/invocation-matrix.md`, which are observed and not written.

`python -m tests.support.matrix_page` observes all of it, in half a minute, and writes them into the page. It needs the
servers, and the emulator (`python -m tests.support.emulator`).
"""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from lambda_dbconn.testing.certificates import Certificates
from tests.support import lock_times
from tests.support.matrix import SITUATIONS
from tests.support.rds_proxy import PROXY_NAME
from tests.support.stage import ENGINES, RUNTIMES, WAYS, server_for, stage_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lambda_dbconn.testing.servers import LocalServer
    from tests.support.matrix import Row, Situation

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "invocation-matrix.md"
HANDLERS = {"matrix.handler": "with the library", "matrix.plain": "plain"}
_MATRIX_HEAD = "| Situation | Database | Way | Under | The invoker got | The connection | Logged | The other end saw |"
_TIMES_HEAD = "| Database | Handler | The invoker got | after | The row was locked for | of that, after the answer |"


def line_of(situation: Situation, engine: str, way: str, row: Row) -> str:
    """Return one line of the matrix."""
    under = " and ".join(situation.runtimes)
    return f"| {' | '.join([situation.name, ENGINES[engine], way, under, *row.cells()])} |"


def matrix_lines(servers: dict[tuple[str, str], LocalServer], certificates: Certificates) -> Iterator[str]:
    """Observe every cell, under all that can make it happen, which must agree.

    Args:
        servers: One for each engine and way.
        certificates: A proxy's.

    Raises:
        RuntimeUnavailableError: There is no emulator.
    """
    with ExitStack() as stack:
        stages = {
            (engine, way, runtime): stack.enter_context(stage_for(server, way, runtime, certificates))
            for (engine, way), server in servers.items()
            for runtime in RUNTIMES
        }
        for situation in SITUATIONS:
            for (engine, way), server in servers.items():
                if situation.variables is None:
                    rows = {situation.observe(stages[engine, way, runtime]) for runtime in situation.runtimes}
                else:
                    with stage_for(server, way, RUNTIMES[0], certificates, situation.variables) as stage:
                        rows = {situation.observe(stage)}
                (row,) = rows
                yield line_of(situation, engine, way, row)


def time_lines(server: LocalServer) -> Iterator[str]:
    """Measure how long a row stays locked; the figures are of this machine and this moment."""
    with ThreadPoolExecutor(max_workers=len(HANDLERS)) as measurers:
        measured = list(measurers.map(lambda handler: lock_times.measure(server, handler), HANDLERS))
    for name, lock_time in zip(HANDLERS.values(), measured, strict=True):
        invocation = lock_time.invocation
        answer = f"an answer, after `{invocation.value['error']}`" if invocation.error is None else "a timeout"
        times = [invocation.duration_ms / 1000, lock_time.locked_s, lock_time.locked_after_s]
        cells = [ENGINES[server.engine], name, answer, *(f"{seconds:.1f} s" for seconds in times)]
        yield f"| {' | '.join(cells)} |"


def with_tables(page: str, tables: dict[str, list[str]]) -> str:
    """Return the page with these lines in its tables, each between its two comments."""
    for name, lines in tables.items():
        before, begin, rest = page.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition("<!-- end -->")
        assert end, f"the page has no place for the table {name!r}"
        table = "\n".join([lines[0], _rule(lines[0]), *lines[1:]])
        page = f"{before}{begin}{table}\n{end}{after}"
    return page


def _rule(head: str) -> str:
    """Return the line below a table's head."""
    return "|" + "---|" * (head.count("|") - 1)


def main() -> None:
    """Observe everything and write the page."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        for name in ("server", "proxy"):
            (Path(folder) / name).mkdir()
        certificates = Certificates.create(Path(folder) / "server")
        proxy_certificates = Certificates.create(Path(folder) / "proxy", extra_names=[PROXY_NAME])
        servers = {
            (engine, way): stack.enter_context(server_for(engine, certificates)) for engine in ENGINES for way in WAYS
        }
        for server in servers.values():
            lock_times.make_things(server)
        tables = {
            "matrix": [_MATRIX_HEAD, *matrix_lines(servers, proxy_certificates)],
            "times": [_TIMES_HEAD, *(line for engine in ENGINES for line in time_lines(servers[engine, WAYS[0]]))],
        }
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8"), tables), encoding="utf-8")


if __name__ == "__main__":
    main()
