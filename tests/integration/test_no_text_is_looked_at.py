"""On a direct endpoint no statement's text is looked at: what would look at it is not even imported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.database import environment

if TYPE_CHECKING:
    from lambda_dbconn.testing.servers import LocalServer

SESSIONS = """
import json, sys
import lambda_dbconn
db = lambda_dbconn.from_env()
for statement in {statements!r}:
    with db.connection() as conn:
        conn.cursor().execute(statement)
    with db.transaction() as conn:
        conn.cursor().execute(statement)
print(json.dumps(sorted(sys.modules)))
"""
STATEMENTS = {
    "postgresql": ["SELECT 1", "SET app.x = '/*'", "SELECT set_config('app.x', '-- ''', false)", "LISTEN x"],
    "mysql": ["SELECT 1", "SET @a = '/*'", "SELECT 1 INTO @x", "SET SESSION sql_mode = ''", "/*! SET @b = 1 */"],
}
LOOK_AT_TEXT = ("lambda_dbconn.proxy", "lambda_dbconn.proxy.guard", "lambda_dbconn.drivers.watching")


@pytest.mark.parametrize("reset", ["always", "wait", "never"])
def test_on_a_direct_endpoint_nothing_is_imported_that_looks_at_a_text(server: LocalServer, reset: str) -> None:
    code = SESSIONS.format(statements=STATEMENTS[server.engine])
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        env=environment(server) | {"DB_RESET": reset},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    modules = json.loads(run.stdout)
    assert "lambda_dbconn.cache.slot" in modules
    assert [name for name in modules if name.startswith(LOOK_AT_TEXT)] == []
