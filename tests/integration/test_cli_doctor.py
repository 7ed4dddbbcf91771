"""`lambda-dbconn doctor` as people and scripts run it, and the examples as Lambda does."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.invocations import environment, function
from tests.support.local_proxy import clean_environment

if TYPE_CHECKING:
    from lambda_dbconn.testing.servers import LocalPostgres, LocalServer

pytestmark = pytest.mark.walk


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lambda_dbconn", "doctor", *arguments],
        env=clean_environment(variables) | {"COLUMNS": "120"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_all_is_well_and_the_exit_code_is_0(server: LocalServer) -> None:
    done = run(**environment(server))
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert done.stdout.rstrip().endswith("All is well.")
    assert server.password not in done.stdout
    assert "\x1b" not in done.stdout


def test_a_wrong_password_is_shown_as_a_failed_login_with_its_causes_and_exit_code_1(server: LocalServer) -> None:
    done = run(**environment(server) | {"DB_PASSWORD": "Canary-7f3e9b"})
    assert (done.returncode, done.stderr) == (1, "")
    assert "Why login may have failed" in done.stdout
    assert done.stdout.rstrip().endswith("Not well: login.")
    assert "Canary" not in done.stdout


def test_json_is_all_that_machines_get_also_of_a_failure(server: LocalServer) -> None:
    done = run("--json", **environment(server) | {"DB_NAME": "nowhere"})
    assert (done.returncode, done.stderr) == (1, "")
    found = json.loads(done.stdout)
    assert not found["is_well"]
    assert [step["name"] for step in found["steps"] if step["status"] == "failed"] == ["login"]


def test_prefix_and_reader_choose_what_is_examined(postgres: LocalPostgres) -> None:
    known = {name.replace("DB_", "SHOP_"): value for name, value in environment(postgres).items()}
    done = run("--prefix", "SHOP_", "--reader", "--json", **known | {"SHOP_READER_HOST": "127.0.0.1"})
    assert done.returncode == 0, done.stdout
    assert json.loads(done.stdout)["endpoint"] == f"127.0.0.1:{postgres.port}"


# --- the examples

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="awslambdaric has wheels for Linux only")


@needs_linux
def test_a_function_examines_its_environment_and_logs_what_it_finds(server: LocalServer) -> None:
    with function("doctor/handler.handler", environment(server)) as runtime:
        invocation = runtime.invoke({})
        assert invocation.error is None, runtime.output()
        assert invocation.value["is_well"], runtime.output()
        assert "passed  round_trip" in runtime.output()
        assert server.password not in runtime.output()


@needs_linux
def test_a_function_with_wrong_settings_says_which() -> None:
    with function("doctor/handler.handler", {"SHOP_HOST": "localhost", "SHOP_ENGINE": "mysql"}) as runtime:
        value = runtime.invoke({"prefix": "SHOP_"}).value
    assert not value["is_well"]
    assert value["steps"][0]["causes"][0]["cause"].startswith("SHOP_USER is not set")


@needs_linux
def test_a_function_examines_its_connection_when_it_is_asked_to(server: LocalServer) -> None:
    with function("doctor/in_your_function.handler", environment(server)) as runtime:
        assert runtime.invoke({}).value == {"answer": 42}
        assert runtime.invoke({"doctor": True}).value["is_well"], runtime.output()
        assert runtime.invoke({}).value == {"answer": 42}


WITHOUT_THE_EXTRA = """
import sys
for name in ("click", "rich"):
    sys.modules[name] = None
import lambda_dbconn
db = lambda_dbconn.from_env()
diagnosis = db.doctor()
assert diagnosis.is_well, str(diagnosis)
"""


def test_a_function_needs_no_extra_of_the_command_line(server: LocalServer) -> None:
    subprocess.run(
        [sys.executable, "-c", WITHOUT_THE_EXTRA], env=clean_environment(environment(server)), check=True, timeout=60
    )
