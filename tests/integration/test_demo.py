"""`make demo`, after its installation: with few invocations, and with a library that is none."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from examples.demo.report import console, introduce
from examples.demo.stage import choose_servers
from lambda_dbconn.testing.servers import LocalMariaDB, LocalPostgres, ServerUnavailableError

pytestmark = [
    pytest.mark.walk,
    pytest.mark.skipif(sys.platform != "linux", reason="awslambdaric has wheels for Linux only"),
    pytest.mark.timeout(300),
]

_ROOT = Path(__file__).parents[2]
_ENGINES = ("PostgreSQL", "MariaDB")
_FAULTLESS = ("cold start", "warm", "frozen", "warm again")
_BREAKING = {
    "proxy restarts": "hang_up",
    "proxy away": "hang_up",
    "token expires": "hang_up",
    "idle too long": "hang_up",
    "secret rotates": "hang_up",
    "path dead": "ping_failed",
}
_CREDENTIALS = ("token expires", "secret rotates")


def run_demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "examples.demo", *arguments],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.fixture(scope="module")
def figures(postgres: LocalPostgres, mariadb: LocalMariaDB) -> dict[str, Any]:
    """The figures of a run with few invocations."""
    run = run_demo("--invocations", "60", "--json")
    assert run.returncode == 0, run.stdout + run.stderr
    result: dict[str, Any] = json.loads(run.stdout)
    return result


@pytest.fixture(scope="module")
def phases(figures: dict[str, Any]) -> dict[tuple[str, str], Any]:
    """Its phases, by title and engine."""
    return {(phase["title"], phase["engine"]): phase for phase in figures["phases"]}


@pytest.fixture(scope="module")
def sabotaged(postgres: LocalPostgres) -> subprocess.CompletedProcess[str]:
    """A run in which the plain handler stands in the library's place, too."""
    return run_demo("--invocations", "20", "--library-handler", "plain", "--only", "postgresql")


def test_the_library_fails_in_no_phase_with_either_engine(phases: dict[tuple[str, str], Any]) -> None:
    assert set(phases) == {(title, engine) for title in [*_FAULTLESS, "failover", *_BREAKING] for engine in _ENGINES}
    assert [phase["library"]["failed"] for phase in phases.values()] == [0] * len(phases)


@pytest.mark.parametrize("engine", _ENGINES)
@pytest.mark.parametrize(("title", "reason"), _BREAKING.items())
def test_each_fault_costs_the_library_one_connection_each_time(
    phases: dict[tuple[str, str], Any], title: str, reason: str, engine: str
) -> None:
    phase = phases[title, engine]
    assert phase["strikes"] >= 1
    assert phase["library"]["replaced"] == {reason: phase["strikes"]}


@pytest.mark.parametrize("engine", _ENGINES)
def test_a_proxy_that_is_away_is_tried_again_until_it_is_back(phases: dict[tuple[str, str], Any], engine: str) -> None:
    phase = phases["proxy away", engine]
    assert phase["library"]["connect_failures"] >= phase["strikes"]
    assert phase["plain"]["failed"] >= 1


@pytest.mark.parametrize("engine", _ENGINES)
@pytest.mark.parametrize("title", _CREDENTIALS)
def test_the_plain_handler_does_not_get_over_old_credentials(
    phases: dict[tuple[str, str], Any], title: str, engine: str
) -> None:
    plain = phases[title, engine]["plain"]
    assert plain["is_broken"]
    assert "OperationalError" in plain["errors"]


@pytest.mark.parametrize("engine", _ENGINES)
def test_the_plain_handler_is_fair_where_the_driver_can_tell_it_reconnects(
    phases: dict[tuple[str, str], Any], engine: str
) -> None:
    for title in ("proxy restarts", "idle too long"):
        phase = phases[title, engine]
        assert not phase["plain"]["is_broken"]
        assert phase["plain"]["failed"] <= phase["strikes"]


@pytest.mark.parametrize("engine", _ENGINES)
@pytest.mark.parametrize("title", ["warm", "frozen", "failover", "warm again"])
def test_where_nothing_breaks_the_library_only_reuses(
    phases: dict[tuple[str, str], Any], title: str, engine: str
) -> None:
    library = phases[title, engine]["library"]
    assert (library["opened"], library["reused"]) == (0, library["invocations"])


def test_the_proxies_let_in_tokens_and_passwords_and_refused_old_ones(figures: dict[str, Any]) -> None:
    opened = sum(phase["library"]["opened"] for phase in figures["phases"])
    assert sum(figures["logins"].values()) > opened > 0
    assert min(figures["logins"].values()) > 0
    assert figures["refused"] > 0


def test_the_overhead_is_the_difference_to_the_plain_handler_in_the_same_phase(figures: dict[str, Any]) -> None:
    for phase in figures["phases"]:
        for quantile, overhead_s in phase["overhead_s"].items():
            plain_s = phase["plain"]["database_s"][quantile]
            assert overhead_s == pytest.approx(phase["library"]["database_s"][quantile] - plain_s, abs=1e-6)


def test_a_handler_that_fails_in_the_library_s_place_is_noticed_and_named(
    sabotaged: subprocess.CompletedProcess[str],
) -> None:
    assert sabotaged.returncode == 1, sabotaged.stdout + sabotaged.stderr
    said = " ".join(sabotaged.stdout.split())
    assert "NOT GOOD: proxy restarts, PostgreSQL: 3 of 12 failed with the library, first by " in said
    assert "NOT GOOD: token expires, PostgreSQL: " in said
    assert "NOT GOOD: secret rotates, PostgreSQL: " in said
    assert "none of" not in said


def test_what_is_not_a_terminal_gets_a_table_without_control_codes(
    sabotaged: subprocess.CompletedProcess[str],
) -> None:
    assert not set(sabotaged.stdout + sabotaged.stderr) & {"\x1b", "\r"}
    lines = sabotaged.stdout.splitlines()
    headings = next(line.split() for line in lines if line.startswith("phase "))
    assert headings == ["phase", "database", "calls", "failed", "opened", "replaced", "extra", "failed", "and"]
    _story, row = (line for line in lines if line.startswith("proxy restarts "))
    assert row.removeprefix("proxy restarts").split()[:5] == ["PostgreSQL", "12", "3", "0", "0"]
    assert max(map(len, lines)) <= 100


def test_mariadb_is_left_out_where_it_is_missing_and_that_is_said_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def version() -> str:
        raise ServerUnavailableError("no program 'mariadbd'")

    monkeypatch.setattr(LocalMariaDB, "version", version)

    assert choose_servers(None) == [LocalPostgres]
    introduce({"PostgreSQL": "15"}, has_all=False, console=console(is_error_stream=False))
    assert [line for line in capsys.readouterr().out.splitlines() if "not MariaDB" in line]


def test_too_few_invocations_are_refused() -> None:
    run = run_demo("--invocations", "3")

    assert run.returncode == 2
    assert "at least 20" in run.stderr


def test_a_machine_without_the_runtime_client_is_told_so_in_one_line() -> None:
    code = (
        "import sys; sys.modules['awslambdaric'] = None; sys.path.insert(0, '.');"
        "import importlib.util as util; find = util.find_spec;"
        "util.find_spec = lambda name, *rest: None if name == 'awslambdaric' else find(name, *rest);"
        "from examples.demo.__main__ import main; sys.exit(main([]))"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=_ROOT, capture_output=True, text=True, check=False)

    assert run.returncode == 2
    assert run.stdout == ""
    assert run.stderr.count("\n") == 1
    assert "awslambdaric" in run.stderr
