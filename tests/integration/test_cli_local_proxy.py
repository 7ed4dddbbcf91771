"""`lambda-dbconn local-proxy` as people run it: the real command, and programs that are given what it prints."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lambda_dbconn import ConnectionManager, Settings
from tests.support.clients import query, wait_until
from tests.support.database import wait_for_end
from tests.support.leftovers import processes_that_mention
from tests.support.local_proxy import PROGRAM, clean_environment, command, run_program, run_to_end, running_command
from tests.support.rds_proxy import DRIVER_ERRORS

if TYPE_CHECKING:
    from lambda_dbconn.testing.servers import LocalPostgres, LocalServer

pytestmark = pytest.mark.walk

ENGINES = {"LocalPostgres": "postgresql", "LocalMariaDB": "mysql"}
PIN = "CREATE TEMPORARY TABLE scratch (number int)"
PINNED = "The client session was pinned to the database connection"
PIN_REASONS = {"postgresql": "SQL created a temporary object.", "mysql": "SQL created a temporary table."}

needs_proc = pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc to look at")


@pytest.fixture
def engine(server_class: type[LocalServer]) -> str:
    """Each engine of which a private server can be started."""
    return ENGINES[server_class.__name__]


@pytest.fixture(params=["postgres", "mariadb", "mysql"])
def foreign(request: pytest.FixtureRequest) -> LocalServer:
    """A server that the command has not started."""
    server: LocalServer = request.getfixturevalue(request.param)
    return server


def url_of(server: LocalServer, *, parameters: str = "") -> str:
    return f"{server.engine}://{server.user}@{server.host}:{server.port}/{server.database}{parameters}"


# --- a private server


@needs_proc
@pytest.mark.parametrize(("auth", "number"), [("iam", signal.SIGINT), ("secret", signal.SIGTERM)])
def test_a_program_that_is_given_what_is_printed_logs_in_and_nothing_is_left_at_the_end(
    engine: str, auth: str, number: signal.Signals, temporary_directory: Path, tmp_path: Path
) -> None:
    arguments = ["--engine", engine, "--auth", auth, "--print-env", "json"]
    with running_command(tmp_path, *arguments, TMPDIR=str(temporary_directory)) as proxy:
        run = run_program(PIN, environ=proxy.variables)
        assert run.stdout, run.stderr
        assert json.loads(run.stdout) == ["iam" if auth == "iam" else "password", engine, 42]
        wait_until(lambda: f"[WARN] [proxyEndpoint=default] [clientConnection=1] {PINNED}" in proxy.errors)
        assert "Logins" not in proxy.errors  # which comes at the end
        assert any(temporary_directory.iterdir())
        assert proxy.end(number) == (0, "")
    assert "Logins: 1, refused: 0\n" in proxy.errors
    assert f"Sessions pinned: 1\n  1 x {PIN_REASONS[engine]}\n" in proxy.errors
    assert "Traceback" not in proxy.errors
    assert list(temporary_directory.iterdir()) == []
    assert processes_that_mention(temporary_directory) == []


@pytest.mark.parametrize("auth", ["iam", "secret"])
def test_a_shell_can_read_what_is_printed_for_it(
    postgres: LocalPostgres, auth: str, temporary_directory: Path, tmp_path: Path
) -> None:
    """Also one that has settings and keys of its own."""
    stray = {
        "DB_PASSWORD": "stray",
        "DB_SSLMODE": "disable",
        "DB_SIGNING_HOST": "stray.example",
        "DB_AUTH": "iam",
        "AWS_SESSION_TOKEN": "stray",
        "DATABASE_URL": "mysql://stray@stray.example/stray",
    }
    path = tmp_path / "proxy.env"
    with (
        path.open("w") as output,
        (tmp_path / "errors").open("w") as errors,
        subprocess.Popen(
            command("--engine", "postgresql", "--auth", auth),
            env=clean_environment({"TMPDIR": str(temporary_directory)}),
            stdout=output,
            stderr=errors,
        ) as process,
    ):
        try:
            wait_until(lambda: "Serving on" in (tmp_path / "errors").read_text(), timeout_s=60)
            run = subprocess.run(
                ["sh", "-c", '. "$1"; exec "$2" -c "$3"', "sh", path, sys.executable, PROGRAM],
                env=clean_environment(stray),
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert run.stdout, run.stderr
            assert json.loads(run.stdout)[2] == 42
        finally:
            process.terminate()
    assert process.returncode == 0
    assert "good for nothing else" in path.read_text()


@needs_proc
def test_ended_while_its_server_starts_it_leaves_nothing(
    engine: str, temporary_directory: Path, tmp_path: Path
) -> None:
    with (
        (tmp_path / "errors").open("w") as errors,
        subprocess.Popen(
            command("--engine", engine),
            env=clean_environment({"TMPDIR": str(temporary_directory)}),
            stdout=subprocess.DEVNULL,
            stderr=errors,
        ) as process,
    ):
        wait_until(lambda: list(temporary_directory.glob("*/setup.log")), timeout_s=60)
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)  # impatience changes nothing
        assert process.wait(60) == 0
    assert "Traceback" not in (tmp_path / "errors").read_text()
    assert list(temporary_directory.iterdir()) == []
    assert processes_that_mention(temporary_directory) == []


def test_a_port_that_is_taken_is_one_line(postgres: LocalPostgres, temporary_directory: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        run = run_to_end(
            *("--engine", "postgresql", "--listen-port", str(port)), environ={"TMPDIR": str(temporary_directory)}
        )
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr.splitlines()[1:] == [f"lambda-dbconn: port {port} is taken: choose another --listen-port"]


# --- a server that runs already


@pytest.mark.parametrize("is_tls", [True, False], ids=["tls", "plain"])
def test_a_server_that_runs_is_stood_in_front_of(foreign: LocalServer, is_tls: bool, tmp_path: Path) -> None:
    assert foreign.certificates is not None
    parameters = f"?sslrootcert={foreign.certificates.ca_path}" if is_tls else ""
    arguments = ["--backend", url_of(foreign, parameters=parameters), "--print-env", "json"]
    with running_command(tmp_path, *arguments, BACKEND_PASSWORD=foreign.password) as proxy:
        variables = proxy.variables
        run = run_program(PIN, environ=variables)
        assert run.stdout, run.stderr
        assert json.loads(run.stdout) == ["iam", foreign.engine, 42]
        assert proxy.end(signal.SIGTERM) == (0, "")
    assert foreign.password not in proxy.first_line + proxy.errors
    assert not Path(variables["DB_SSLROOTCERT"]).exists()


def test_the_passwords_of_people_stay_in_their_variables(server: LocalServer, tmp_path: Path) -> None:
    arguments = ["--backend", url_of(server), "--auth", "secret", "--print-env", "json"]
    with running_command(tmp_path, *arguments, BACKEND_PASSWORD=server.password) as proxy:
        assert "DB_PASSWORD" not in proxy.variables
        run = run_program(environ=proxy.variables | {"DB_PASSWORD": server.password})
        assert run.stdout, run.stderr
        wrong = run_program(environ=proxy.variables | {"DB_PASSWORD": "wrong"})
        assert "AuthenticationError" in wrong.stderr
        assert proxy.end(signal.SIGINT) == (0, "")
    assert "Logins: 1, refused: 1\n" in proxy.errors
    assert "Not shown: DB_PASSWORD, which is what BACKEND_PASSWORD holds.\n" in proxy.errors
    assert server.password not in proxy.first_line + proxy.errors


@pytest.mark.parametrize("session_token", ["", "A" * 800], ids=["a user's key", "a role's key"])
def test_a_key_of_the_users_lets_in_and_is_not_shown(
    postgres: LocalPostgres, session_token: str, tmp_path: Path
) -> None:
    keys = {"AWS_SECRET_ACCESS_KEY": "the-secret-part", "AWS_SESSION_TOKEN": session_token}
    arguments = ["--backend", url_of(postgres), "--access-key-id", "AKIAOWN", "--region", "eu-west-1"]
    arguments += ["--print-env", "json"]
    with running_command(tmp_path, *arguments, BACKEND_PASSWORD=postgres.password, **keys) as proxy:
        assert proxy.variables["AWS_ACCESS_KEY_ID"] == "AKIAOWN"
        assert proxy.variables["DB_SIGNING_HOST"].endswith(".eu-west-1.rds.amazonaws.com")
        run = run_program(environ={**keys, **proxy.variables})
        assert run.stdout, run.stderr
        wrong = run_program(environ={**keys, **proxy.variables, "AWS_SECRET_ACCESS_KEY": "another"})
        assert "AuthenticationError" in wrong.stderr
        assert proxy.end(signal.SIGTERM) == (0, "")
    said = proxy.first_line + proxy.errors
    assert "the-secret-part" not in said
    assert "AAAA" not in said


def test_the_limits_are_the_proxys(server: LocalServer, tmp_path: Path) -> None:
    arguments = ["--backend", url_of(server), "--auth", "secret", "--print-env", "json"]
    arguments += ["--read-only", "--max-connections", "1", "--borrow-timeout", "2"]
    with running_command(tmp_path, *arguments, BACKEND_PASSWORD=server.password) as proxy:
        settings = Settings.from_env(environ=proxy.variables | {"DB_PASSWORD": server.password})
        first: ConnectionManager[Any] = ConnectionManager(settings)
        second: ConnectionManager[Any] = ConnectionManager(settings)
        with closing(first), closing(second):
            assert second.warm_up(20)  # PyMySQL needs the database for that
            with first.transaction(20) as connection:
                assert query(connection, "SELECT 1") == 1
                with second.connection(20) as waiting, pytest.raises(DRIVER_ERRORS, match="Timed-out waiting"):
                    query(waiting, "SELECT 1")
            with first.connection(20) as connection, pytest.raises(DRIVER_ERRORS, match=r"(?i)read.only"):
                query(connection, "CREATE TABLE forbidden (number int)")
        assert proxy.end(signal.SIGTERM) == (0, "")
    assert "waited in vain: 1\n" in proxy.errors


def test_a_client_that_asks_nothing_for_too_long_is_cut_off(postgres: LocalPostgres, tmp_path: Path) -> None:
    arguments = ["--backend", url_of(postgres), "--auth", "secret", "--print-env", "json"]
    arguments += ["--idle-client-timeout", "0.2"]
    with running_command(tmp_path, *arguments, BACKEND_PASSWORD=postgres.password) as proxy:
        settings = Settings.from_env(environ=proxy.variables | {"DB_PASSWORD": postgres.password})
        db: ConnectionManager[Any] = ConnectionManager(settings)
        with closing(db), db.connection(20) as connection:
            wait_for_end(connection.fileno())


def test_a_client_that_is_still_there_at_the_end_is_hung_up_on_before_the_summary(
    postgres: LocalPostgres, tmp_path: Path
) -> None:
    arguments = ["--backend", url_of(postgres), "--auth", "secret", "--print-env", "json"]
    with running_command(tmp_path, *arguments, BACKEND_PASSWORD=postgres.password) as proxy:
        settings = Settings.from_env(environ=proxy.variables | {"DB_PASSWORD": postgres.password})
        db: ConnectionManager[Any] = ConnectionManager(settings)
        with closing(db), db.connection(20) as connection:
            assert proxy.end(signal.SIGTERM) == (0, "")
            wait_for_end(connection.fileno())
    assert "The client connection closed" in proxy.errors.partition("Logins: 1")[0]


@pytest.mark.parametrize("password", ["Canary-wrong", ""])
def test_a_password_that_is_refused_is_found_out_at_once(server: LocalServer, password: str, tmp_path: Path) -> None:
    run = run_to_end("--backend", url_of(server), environ={"BACKEND_PASSWORD": password})
    assert (run.returncode, run.stdout, run.stderr.count("\n")) == (1, "", 1), run.stderr
    assert f"{server.host}:{server.port}" in run.stderr
    assert "Canary-wrong" not in run.stderr
    assert ("(BACKEND_PASSWORD is not set)" in run.stderr) == (not password)


@pytest.mark.parametrize("engine", ["postgresql", "mysql"])
def test_a_server_that_cannot_be_reached_is_one_line(engine: str) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        address = f"127.0.0.1:{nobody.getsockname()[1]}"
        run = run_to_end("--backend", f"{engine}://app@{address}/app?connect_timeout_s=0.5", environ={})
    assert (run.returncode, run.stdout, run.stderr.count("\n")) == (1, "", 1), run.stderr
    assert run.stderr.startswith(f"lambda-dbconn: cannot connect to {address}")
