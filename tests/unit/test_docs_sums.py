"""The sums in the documentation are right, and what is said at each limit is what the code makes of it."""

from __future__ import annotations

import ast
import math
import operator
import re
from typing import TYPE_CHECKING, Any

import pytest

from lambda_dbconn import errors
from lambda_dbconn.cache.backoff import RetryBudget
from lambda_dbconn.drivers.errors import connect_error
from lambda_dbconn.settings import Settings
from lambda_dbconn.testing.fakes import FakeClock
from tests.unit.test_docs import ROOT, read, split

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.once

FOLDER = ROOT / "docs" / "explanation"
_OPERATORS: dict[type[ast.AST], Callable[..., float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.USub: operator.neg,
}


def value_of(expression: str) -> float:
    """Compute a sum as the pages write it."""
    plain = expression.replace(",", "")
    for sign, python in {"×": "*", "÷": "/", "−": "-"}.items():  # noqa: RUF001 - that is what the pages have
        plain = plain.replace(sign, python)
    return _value(ast.parse(plain, mode="eval").body)


def _value(node: Any) -> float:
    if isinstance(node, ast.Constant):
        return float(str(node.value))
    if isinstance(node, ast.BinOp):
        return _OPERATORS[type(node.op)](_value(node.left), _value(node.right))
    if isinstance(node, ast.UnaryOp):
        return _OPERATORS[type(node.op)](_value(node.operand))
    assert isinstance(node, ast.Call)
    assert node.func.id == "exp"  # type: ignore[attr-defined]
    return math.exp(_value(node.args[0]))


def sums(page: str) -> list[tuple[str, str, str]]:
    """Return label, expression and result of each sum of a page; a `text` block has nothing else."""
    found = []
    for fence in split((FOLDER / page).read_text(encoding="utf-8"))[1]:
        if fence.language == "text":
            for line in fence.code.splitlines():
                match = re.fullmatch(r"(.+): (.+) = ([\d,.]+)", line)
                assert match is not None, f"{page}, line {fence.line}: {line!r} is no sum"
                found.append((match[1], match[2], match[3]))
    return found


ALL = [(page, *each) for page in ("scaling.md", "cost-and-latency.md") for each in sums(page)]


@pytest.mark.parametrize(("page", "label", "expression", "result"), ALL, ids=[f"{p}: {label}" for p, label, *_ in ALL])
def test_a_sum_is_right_to_its_last_digit(page: str, label: str, expression: str, result: str) -> None:
    digits = len(result.partition(".")[2])
    assert f"{value_of(expression):,.{digits}f}" == result


def test_there_are_sums_on_each_page() -> None:
    assert len(sums("scaling.md")) > 8
    assert len(sums("cost-and-latency.md")) > 12


def test_the_numbers_of_the_library_in_them_are_its_own() -> None:
    scaling = read(FOLDER / "scaling.md")
    assert f"{Settings.max_lifetime_s:,.0f} × 0.05" in (FOLDER / "scaling.md").read_text()  # noqa: RUF001
    assert f"lifetime limit of the library's own, {Settings.max_lifetime_s / 3600:.0f} hours" in scaling
    assert f"`DB_MAX_IDLE_S` of {Settings.max_idle_s / 60:.0f} minutes" in scaling
    assert f"come after {Settings.ping_idle_s:.0f} seconds" in " ".join(read(FOLDER / "cost-and-latency.md").split())


def test_the_budget_is_as_the_page_says() -> None:
    budget = RetryBudget(FakeClock())
    for _ in range(10):
        assert budget.wait_s() == 0
        budget.spend()
    assert budget.wait_s() == pytest.approx(2.0)


# --- what is said


def said() -> list[list[str]]:
    text = read(FOLDER / "scaling.md").partition("## What is said at each limit")[2]
    table = re.search(r"(?:^\|.*\n)+", text, flags=re.MULTILINE)
    assert table is not None
    return [[cell.strip() for cell in line.strip("|\n").split("|")] for line in table[0].splitlines()[2:]]


@pytest.mark.parametrize("cells", said(), ids=lambda cells: cells[0][:40])
def test_what_is_said_at_a_limit_becomes_the_error_that_the_page_names(cells: list[str]) -> None:
    words, engine, _, error, is_tried_again = cells
    found = re.fullmatch(r"(?:(\d+) )?\*(.+)\*", words)
    assert found is not None
    made = connect_error(engine.lower(), "there", found[2], number=int(found[1] or 0))
    assert type(made) is getattr(errors, error.strip("`"))
    assert made.retryable is (is_tried_again == "yes")
