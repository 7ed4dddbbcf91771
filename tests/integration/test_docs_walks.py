"""The page of the local proxy, whose blocks belong together, walked from the first to the last."""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.clients import wait_until
from tests.support.local_proxy import clean_environment, command
from tests.support.shell import commands
from tests.support.snippets import ROOT, Snippet, snippets_of

LOCAL_PROXY = Path("docs/how-to/run-a-local-proxy.md")

_LIMIT_S = 60

pytestmark = pytest.mark.walk


def blocks(path: Path) -> list[Snippet]:
    return snippets_of(path, (ROOT / path).read_text(encoding="utf-8"))


def the_one(path: Path, text: str) -> str:
    """Return the code of the page's one block that has this text."""
    (code,) = [snippet.code for snippet in blocks(path) if text in snippet.code]
    return code


def run(words: list[str], folder: Path, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words,
        cwd=folder,
        env=clean_environment(variables),
        capture_output=True,
        text=True,
        timeout=_LIMIT_S,
        check=False,
    )


def is_shown(page: str, said: str) -> bool:
    """Tell whether a program said what the page shows; `…` and numbers may be anything."""
    pattern = re.sub(r"…|\d+", ".*", re.escape(page.strip()))
    return re.search(pattern, said) is not None


@pytest.mark.parametrize(
    ("page", "said", "expected"),
    [
        ("a=1 b=…\nend", "x\na=22 b=3 4\nend\n", True),
        ("a=1\nend", "a=1\nmore\nend", False),
        ("a(1)", "a 1", False),
    ],
)
def test_what_a_page_shows_is_compared_but_for_numbers(page: str, said: str, expected: bool) -> None:
    assert is_shown(page, said) is expected


@pytest.mark.usefixtures("postgres")  # is required, as in the other tests; the command starts one of its own
def test_the_page_of_the_local_proxy_goes_as_it_says(tmp_path: Path) -> None:
    starts = commands(the_one(LOCAL_PROXY, "--engine postgresql > proxy.env"))[0][2:]
    uses = the_one(LOCAL_PROXY, "my_program.py").replace("python", shlex.quote(sys.executable))
    pins = the_one(LOCAL_PROXY, "create temporary").strip()
    borrow = '    cur.execute("select 6 * 7")\n'
    program = the_one(LOCAL_PROXY, borrow).replace(borrow, f"    cur.execute({pins!r})\n{borrow}")
    (tmp_path / "my_program.py").write_text(program)
    said = tmp_path / "said"
    with (
        (tmp_path / "proxy.env").open("w") as output,
        said.open("w") as errors,
        subprocess.Popen(command(*starts), env=clean_environment({}), stdout=output, stderr=errors) as process,
    ):
        try:
            wait_until(lambda: "Serving on" in said.read_text(), timeout_s=_LIMIT_S)
            ran = run(["sh", "-e", "-c", uses], tmp_path, {})
            assert ran.stdout == "42\n", ran.stderr
            process.send_signal(signal.SIGINT)
            assert process.wait(_LIMIT_S) == 0
        finally:
            process.kill()
    shown = [snippet.code for snippet in blocks(LOCAL_PROXY) if snippet.language == "text"]
    assert len(shown) == 2
    assert [page for page in shown if not is_shown(page, said.read_text())] == [], said.read_text()
