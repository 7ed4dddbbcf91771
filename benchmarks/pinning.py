"""What judging a statement costs: seen before, at a glance, taken apart, and beside a query; sqlglot, if installed."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

from benchmarks.subjects import running
from benchmarks.warm import one_core, turn
from lambda_dbconn import ConnectionManager, Settings, proxy
from lambda_dbconn.proxy.guard import PinGuard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_STATEMENTS = Path(__file__).parents[1] / "tests" / "data" / "pinning" / "statements.tsv"
_IMPORTS = {
    "library": "lambda_dbconn.cache.cache, re",  # what is there anyway
    "guard": "lambda_dbconn.cache.cache, lambda_dbconn.proxy.guard, re",
    "rules": "lambda_dbconn.cache.cache, lambda_dbconn.proxy.judge, re",
    "sqlglot": "lambda_dbconn.cache.cache, re, sqlglot",
}


def measure(engine: str, *, rounds: int = 15) -> str:
    """Return the results for an engine: microseconds per statement of the labelled set, and imports in milliseconds."""
    lines = _STATEMENTS.read_text(encoding="utf-8").splitlines()
    texts = [_unescaped(fields[3]) for line in lines if (fields := line.split("\t"))[0] == engine]
    glance_us = _per_text_us(texts, lambda text: proxy.is_harmless(engine, text), rounds)
    as_it_is_us = _per_text_us(texts, lambda text: proxy.pin(engine, text), rounds)
    with mock.patch.object(proxy, "is_harmless", return_value=False):
        scanned_us = _per_text_us(texts, lambda text: proxy.pin(engine, text), rounds)
    share = sum(proxy.is_harmless(engine, text) for text in texts) / len(texts)
    first = (
        f"{engine:<11}{len(texts)} statements, {share:.0%} harmless at a glance; µs each: glance {glance_us:.2f}, "
        f"pin() {as_it_is_us:.1f}, with the scanner always {scanned_us:.1f}"
    )
    results = [first]
    guard = PinGuard(engine, "", action="warn", closes=True, emit=lambda _event: None)
    results.append(_seen_before(guard, texts, rounds))
    results.append(_with_a_server(engine))
    names = ["guard", "rules"]
    if find_spec("sqlglot"):
        names.append("sqlglot")
        results.append(_sqlglot(engine, texts, scanned_us, rounds))
    base_ms = _import_ms("library")
    results.append(f"{'':<11}import, ms: " + ", ".join(f"{name} {_import_ms(name) - base_ms:.1f}" for name in names))
    return "\n".join(results)


def _unescaped(text: str) -> str:
    return "\\".join(half.replace("\\n", "\n").replace("\\t", "\t") for half in text.split("\\\\"))


class _Marked:
    """Stands for a slot of the cache."""

    has_pinned = False
    evict_reason: str | None = None

    def will_change(self, names: Iterable[str]) -> None:
        """Do nothing."""


def _seen_before(guard: PinGuard, texts: list[str], rounds: int) -> str:
    """Judge texts that do not pin a second time, against calling something that does nothing."""
    harmless = [text for text in texts if proxy.pin(guard._engine, text) is None][:200]  # noqa: SLF001 - it has no public name
    cost_us = _per_text_us(harmless, guard.watcher(_Marked()), rounds)
    nothing_us = _per_text_us(harmless, lambda text: text, rounds)
    return f"{'':<11}seen before: {cost_us:.2f} µs each ({cost_us / nothing_us:.1f} times a call that does nothing)"


def _with_a_server(engine: str, *, rounds: int = 200, per_round: int = 100) -> str:
    """Run `select 1` with and without the guard, in rounds that follow each other in any order."""
    with one_core(), running(engine) as (_, environ):
        managers = [
            ConnectionManager[Any](Settings.from_env(environ={**environ, "DB_ON_PIN": action}))
            for action in ("ignore", "warn")
        ]

        def run(db: ConnectionManager[Any]) -> float:
            with db.connection() as connection, connection.cursor() as cursor:
                start = time.perf_counter()
                for _ in range(per_round):
                    cursor.execute("select 1")
                return (time.perf_counter() - start) / per_round * 1e6

        calls = [partial(run, db) for db in managers]
        pairs = [turn(calls) for _ in range(rounds)]
        for db in managers:
            db.close()
    without_us = statistics.median(pair[0] for pair in pairs)
    added_us = statistics.median(pair[1] - pair[0] for pair in pairs)
    ratio = 1 + added_us / without_us
    return f"{'':<11}`select 1`: {without_us:.1f} µs, the guard adds {added_us:.2f} (ratio {ratio:.3f})"


def _sqlglot(engine: str, texts: list[str], scanned_us: float, rounds: int) -> str:
    import sqlglot  # type: ignore[import-not-found, unused-ignore] # not a dependency: for comparison

    dialect: Any = sqlglot.Dialect.get_or_raise({"postgresql": "postgres", "mysql": "mysql"}[engine])
    refused = [text for text in texts if not _can(dialect.tokenize, text)]
    accepted = [text for text in texts if text not in refused]
    cost_us = _per_text_us(accepted, dialect.tokenize, rounds)
    return (
        f"{'':<11}sqlglot {sqlglot.__version__} tokenizing only: {cost_us:.1f} µs each ({cost_us / scanned_us:.1f} "
        f"times ours with the rules); raises on {len(refused)} of {len(texts)}"
    )


def _can(function: Callable[[str], object], text: str) -> bool:
    try:
        function(text)
    except Exception:  # noqa: BLE001 - that it raises is the result
        return False
    return True


def _per_text_us(texts: list[str], function: Callable[[str], object], rounds: int) -> float:
    times_s = []
    for _ in range(rounds):
        start = time.perf_counter()
        for text in texts:
            function(text)
        times_s.append(time.perf_counter() - start)
    return statistics.median(times_s) / len(texts) * 1e6


def _import_ms(name: str, *, rounds: int = 15) -> float:
    code = f"import time; start = time.perf_counter(); import {_IMPORTS[name]}; print(time.perf_counter() - start)"
    printed = [
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
        for _ in range(rounds)
    ]
    return min(map(float, printed)) * 1e3  # what else the machine does only adds
