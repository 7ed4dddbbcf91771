"""Draw what became of the fleet's invocations: `python -m benchmarks.picture OUT.svg`, for PostgreSQL.

The same figures go to standard output, as a table in Markdown.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from benchmarks.fleet import Plan, outcomes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.fleet import Outcome

_WIDTH, _BAR_LEFT, _BAR_WIDTH, _ROW = 860, 230, 330, 62
_TOP = 70
_GOOD, _BAD = "#2b7a5b", "#c2512f"


def draw(outcomes: Sequence[Outcome], plan: Plan) -> str:
    """Return the picture: a bar for each way of connecting, its successes and failures, and what it took."""
    height = _TOP + _ROW * len(outcomes) + 30
    title = (
        f"{plan.environments} environments, {plan.environments * plan.invocations} invocations, {plan.at_once} at once"
    )
    rows = [_row(outcome, _TOP + _ROW * number) for number, outcome in enumerate(outcomes)]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif">',
            f"<title>{escape(title)}</title>",
            f'<rect width="{_WIDTH}" height="{height}" fill="#fff"/>',
            _text(20, 34, title, size=18),
            _text(_BAR_LEFT, 58, "succeeded", colour=_GOOD),
            _text(_BAR_LEFT + 80, 58, "failed", colour=_BAD),
            _text(_BAR_LEFT + _BAR_WIDTH + 20, 58, "of those that succeeded; connections"),
            *rows,
            "</svg>\n",
        ]
    )


def table(outcomes: Sequence[Outcome]) -> str:
    """Return the figures in Markdown."""
    lines = [
        "| Sessions | Succeeded | Failed | Median | p99 | Connections to the database | Logins |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {outcome.title} | {outcome.succeeded} | {outcome.failed} | {outcome.percentile_ms(50):.1f} ms | "
        f"{outcome.percentile_ms(99):.1f} ms | {outcome.database_connections} | {outcome.connects} |"
        for outcome in outcomes
    ]
    return "\n".join(lines)


def _row(outcome: Outcome, top: int) -> str:
    share = outcome.succeeded / max(1, outcome.succeeded + outcome.failed)
    good = round(_BAR_WIDTH * share)
    right = _BAR_LEFT + _BAR_WIDTH + 20
    median_ms, p99_ms = outcome.percentile_ms(50), outcome.percentile_ms(99)
    return "\n".join(
        [
            _text(20, top + 27, outcome.title),
            f'<rect x="{_BAR_LEFT}" y="{top + 8}" width="{good}" height="28" fill="{_GOOD}"/>',
            f'<rect x="{_BAR_LEFT + good}" y="{top + 8}" width="{_BAR_WIDTH - good}" height="28" fill="{_BAD}"/>',
            _text(_BAR_LEFT + 8, top + 27, f"{share:.0%}", colour="#fff"),
            _text(right, top + 20, f"median {median_ms:.1f} ms, p99 {p99_ms:.1f} ms"),
            _text(right, top + 39, f"{outcome.database_connections} to the database, {outcome.connects} logins"),
        ]
    )


def _text(x: int, y: int, text: str, *, size: int = 14, colour: str = "#222") -> str:
    return f'<text x="{x}" y="{y}" font-size="{size}" fill="{colour}">{escape(text)}</text>'


def main(arguments: list[str]) -> int:
    """Measure, and write the picture; return the exit code."""
    if len(arguments) != 1:
        print("usage: python -m benchmarks.picture OUT.svg", file=sys.stderr)
        return 2
    plan = Plan()
    found = list(outcomes("postgresql", plan))
    Path(arguments[0]).write_text(draw(found, plan), encoding="utf-8")
    print(table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
