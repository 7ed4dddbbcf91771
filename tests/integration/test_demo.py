"""`make demo`, after its installation: with few invocations, and with a library that is none."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from lambda_dbconn.testing.servers import LocalPostgres

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="awslambdaric has wheels for Linux only")

_ROOT = Path(__file__).parents[2]
_STRUCK = {
    "session killed": "hang_up",
    "server restart": "hang_up",
    "server down": "hang_up",
    "idle too long": "hang_up",
    "path dead": "ping_failed",
}


def run_demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "examples.demo", *arguments],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.fixture(scope="module")
def phases(postgres: LocalPostgres) -> dict[str, Any]:
    """The figures of a run with few invocations, by phase."""
    run = run_demo("--invocations", "60", "--json")
    assert run.returncode == 0, run.stdout + run.stderr
    return {phase["title"]: phase for phase in json.loads(run.stdout)["phases"]}


@pytest.fixture(scope="module")
def sabotaged(postgres: LocalPostgres) -> subprocess.CompletedProcess[str]:
    """A run in which the plain handler stands in the library's place, too."""
    return run_demo("--invocations", "20", "--library-handler", "plain")


def test_the_library_fails_in_no_phase_and_the_plain_handler_wherever_there_is_a_fault(phases: dict[str, Any]) -> None:
    assert [phase["library"]["failed"] for phase in phases.values()] == [0] * 9
    assert {title for title, phase in phases.items() if phase["plain"]["failed"]} == set(_STRUCK)


@pytest.mark.parametrize(("title", "reason"), _STRUCK.items())
def test_each_fault_costs_the_library_one_connection_each_time(phases: dict[str, Any], title: str, reason: str) -> None:
    assert phases[title]["strikes"] >= 1
    assert phases[title]["library"]["replaced"] == {reason: phases[title]["strikes"]}


def test_a_server_that_is_down_is_tried_again_until_it_is_back(phases: dict[str, Any]) -> None:
    assert phases["server down"]["library"]["connect_failures"] >= phases["server down"]["strikes"]


def test_the_plain_handler_does_not_recover_from_a_killed_session(phases: dict[str, Any]) -> None:
    plain = phases["session killed"]["plain"]
    assert next(iter(plain["errors"])) == "AdminShutdown"
    assert not plain["has_recovered"]


@pytest.mark.parametrize("title", ["warm", "frozen, thawed", "warm again"])
def test_without_a_fault_the_library_only_reuses(phases: dict[str, Any], title: str) -> None:
    library = phases[title]["library"]
    assert (library["opened"], library["reused"]) == (0, library["invocations"])


def test_the_overhead_is_the_difference_to_the_bare_driver_in_the_same_phase(phases: dict[str, Any]) -> None:
    for phase in phases.values():
        for quantile, overhead_s in phase["overhead_s"].items():
            bare_s = phase["plain"]["database_s"][quantile]
            assert overhead_s == pytest.approx(phase["library"]["database_s"][quantile] - bare_s, abs=1e-6)


def test_a_handler_that_fails_in_the_library_s_place_is_noticed_and_named(
    sabotaged: subprocess.CompletedProcess[str],
) -> None:
    assert sabotaged.returncode == 1, sabotaged.stdout + sabotaged.stderr
    assert "NOT GOOD: session killed: 2 of 4 failed with the library, first by AdminShutdown: " in sabotaged.stdout
    assert "none of" not in sabotaged.stdout


def test_what_is_not_a_terminal_gets_a_table_without_control_codes(
    sabotaged: subprocess.CompletedProcess[str],
) -> None:
    assert not set(sabotaged.stdout + sabotaged.stderr) & {"\x1b", "\r"}
    lines = sabotaged.stdout.splitlines()
    headings = next(line.split() for line in lines if line.startswith("phase "))
    assert headings == ["phase", "calls", "failed", "opened", "reused", "replaced", "p50", "p99", "failed", "with"]
    _story, row = (line for line in lines if line.startswith("session killed  "))
    assert row.removeprefix("session killed").split()[:4] == ["4", "2", "0", "0"]
    assert max(map(len, lines)) <= 100


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
