"""The tables of `docs/reference/errors.md` that are made from the code.

`python -m tests.support.catalogue` writes them into the page.
"""

from __future__ import annotations

from pathlib import Path

from lambda_dbconn.cache.policy import RETRYABLE, reason_to_evict
from lambda_dbconn.drivers import ErrorKind, SessionState
from lambda_dbconn.drivers.errors import _ROWS, ROWS

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "errors.md"
_ENGINES = {"postgresql": "PostgreSQL", "mysql": "MySQL", "": "both"}


def said_at_connect() -> str:
    """Return the table of what servers and the proxy say while connecting."""
    lines = ["| Engine | Number | Words | Error | Retried | Remedy |", "|---|---|---|---|---|---|"]
    for engine, numbers, words, error, is_retryable, remedy in _ROWS:
        cells = (
            _ENGINES[engine],
            ", ".join(str(number) for number in numbers),
            f"*{words}*" if words else "",
            f"`{error.__name__}`",
            "yes" if is_retryable else "no",
            remedy or error.remedy,
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def said_of_queries() -> str:
    """Return the table of what a query's error means."""
    lines = ["| Engine | Codes | Words | Means | The connection | `run()` |", "|---|---|---|---|---|---|"]
    for engine, codes, words, failure in ROWS:
        cells = (
            _ENGINES[engine],
            ", ".join(f"{code}…" if engine == "postgresql" and len(code) == 2 else code for code in codes),
            f"*{words}*" if words else "",
            failure.value,
            _fate(failure),
            "retries" if failure in RETRYABLE else "raises",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _fate(failure: ErrorKind) -> str:
    reason = reason_to_evict(SessionState.CLEAN, failure, None)
    return f"discarded at release (`{reason}`)" if reason else "kept, rolled back"


TABLES = {"said at connect": said_at_connect, "said of queries": said_of_queries}


def with_tables(page: str) -> str:
    """Return the page with the tables as they are now, each between its two comments."""
    for name, make in TABLES.items():
        before, begin, rest = page.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition("<!-- end -->")
        assert end, f"the page has no place for the table {name!r}"
        page = f"{before}{begin}{make()}\n{end}{after}"
    return page


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
