"""The fleet's benchmark, small: what is shared fails nothing, what pins fails, and what is direct meets the limit."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest

from benchmarks import fleet, picture

pytestmark = pytest.mark.long

PLAN = fleet.Plan(environments=110, database_connections=4, invocations=1, at_once=12)
SERVERS_LIMIT = 97
"""PostgreSQL's default, without the three that are reserved for administrators."""


@pytest.fixture(scope="module")
def outcomes() -> dict[str, fleet.Outcome]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fleet, "_CONNECT_TIMEOUT_S", 5.0)  # a busy machine does not make a hundred logins in one
        return {outcome.title: outcome for outcome in fleet.outcomes("postgresql", PLAN)}


def test_every_invocation_is_counted(outcomes: dict[str, fleet.Outcome]) -> None:
    for outcome in outcomes.values():
        assert outcome.succeeded + outcome.failed == PLAN.environments * PLAN.invocations
        assert len(outcome.latencies_ms) == outcome.succeeded


def test_many_environments_share_few_connections_and_none_fails(outcomes: dict[str, fleet.Outcome]) -> None:
    shared = outcomes["shared"]
    assert shared.errors == {}
    assert shared.database_connections <= PLAN.database_connections
    assert shared.connects == PLAN.environments


def test_pinned_sessions_keep_the_others_out(outcomes: dict[str, fleet.Outcome]) -> None:
    kept, dropped = outcomes["pinned, and kept"], outcomes["pinned, and dropped"]
    assert kept.failed > dropped.failed
    assert {error.partition(":")[0] for error in kept.errors} <= {"ConnectionException", "ProxyBusyError"}
    assert kept.database_connections <= PLAN.database_connections
    assert dropped.connects >= dropped.succeeded  # each of them costs a login


def test_without_a_proxy_the_servers_limit_is_met(outcomes: dict[str, fleet.Outcome]) -> None:
    direct = outcomes["direct"]
    assert direct.database_connections <= SERVERS_LIMIT < PLAN.environments
    assert direct.failed >= (PLAN.environments - SERVERS_LIMIT) * PLAN.invocations
    assert {error.partition(":")[0] for error in direct.errors} <= {"ProxyBusyError", "DeadlineExceededError"}


def test_the_picture_shows_each_way(outcomes: dict[str, fleet.Outcome]) -> None:
    drawn = ET.fromstring(picture.draw(list(outcomes.values()), PLAN))
    rows = picture.table(list(outcomes.values())).splitlines()
    texts = [element.text or "" for element in drawn.iter() if element.tag.endswith("text")]
    for outcome in outcomes.values():
        assert outcome.title in texts
        assert any(row.startswith(f"| {outcome.title} | {outcome.succeeded} | {outcome.failed} |") for row in rows)
        assert f"{outcome.database_connections} to the database, {outcome.connects} logins" in texts
