"""The comparison's trials: each peer does what the page says, in an environment that has the versions it names."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from benchmarks.peers.__main__ import table
from benchmarks.peers.handlers import PEERS
from benchmarks.peers.trials import QUESTIONS, Trials, environment
from tests.support.pages import DOCS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lambda_dbconn.testing.certificates import Certificates

PAGE = DOCS / "explanation" / "comparison.md"
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        return environment(tmp_path_factory.mktemp("peers"))
    except subprocess.CalledProcessError as error:
        pytest.skip(f"pip reaches no index, or not all that is asked for: {error}")


@pytest.fixture(scope="module")
def trials(python: Path, postgres: object, certificates: Certificates) -> Iterator[Trials]:
    """The trials' own servers; `postgres` is asked for because it skips or fails where there is none."""
    with Trials(python, certificates) as trials:
        yield trials


def documented() -> str:
    return PAGE.read_text(encoding="utf-8").partition("<!-- trials -->\n")[2].partition("<!-- end -->")[0].strip()


@pytest.mark.skipif(
    "LAMBDA_DBCONN_TRIES_PEERS" not in os.environ, reason="takes minutes, and packages of others: `tox -e peers`"
)
@pytest.mark.timeout(600)
def test_each_peer_does_what_the_page_says(trials: Trials) -> None:
    assert table(trials) == documented(), "run: python -m benchmarks.peers"


def test_the_page_has_a_line_for_each_peer_and_a_column_for_each_question() -> None:
    head, _, *lines = documented().splitlines()
    assert [cell.strip() for cell in head.strip("|").split(" | ")] == ["Peer", *QUESTIONS]
    assert [line.split(" | ")[0].removeprefix("| ") for line in lines] == [title for title, _ in PEERS.values()]
