"""PostgreSQL through the local RDS Proxy: psycopg's ways of speaking, `psql` and `pgbench`."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import generators, waiting

from tests.support.clients import wait_until
from tests.support.rds_proxy import clients, connect, database_session, make_proxy, value

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lambda_dbconn.testing.rds_proxy import LocalRdsProxy
    from lambda_dbconn.testing.servers import LocalPostgres

pytestmark = pytest.mark.once

POSTGRES_PROGRAMS = Path("/usr/lib/postgresql")


@pytest.fixture
def proxy(postgres: LocalPostgres) -> Iterator[LocalRdsProxy]:
    with make_proxy(postgres, max_database_connections=2, borrow_timeout_s=5) as proxy:
        yield proxy
        assert "[ERROR]" not in proxy.log()


@pytest.fixture
def connection(proxy: LocalRdsProxy, postgres: LocalPostgres) -> Iterator[Any]:
    with closing(connect(proxy, postgres.password)) as connection:
        yield connection


@pytest.mark.parametrize("prepare_threshold", [0, 1, None])
def test_statements_work_at_every_prepare_threshold(
    postgres: LocalPostgres, proxy: LocalRdsProxy, prepare_threshold: int | None
) -> None:
    with clients(proxy, postgres.password, 6, prepare_threshold=prepare_threshold) as connections:
        errors: list[BaseException] = []

        def work(offset: int, connection: Any) -> None:
            try:
                for number in range(30):
                    # The same name for other statements in other clients, over two database connections.
                    sql = f"SELECT %s::int + {offset if number % 2 else -offset}"
                    assert value(connection, sql, number) == number + (offset if number % 2 else -offset)
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=work, args=item) for item in enumerate(connections)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        assert proxy.stats().pins == {}


def test_prepared_statements_are_made_again_on_another_database_connection(
    postgres: LocalPostgres, proxy: LocalRdsProxy, connection: Any
) -> None:
    connection.prepare_threshold = 0
    first = database_session(connection)
    assert value(connection, "SELECT pg_backend_pid() - %s", 0) == first
    with clients(proxy, postgres.password, 1) as (other,):
        other.execute("BEGIN")
        while database_session(other) != first:
            other.execute("COMMIT")
            value(connection, "SELECT 1 + %s", 1)
            other.execute("BEGIN")
        assert value(connection, "SELECT pg_backend_pid() - %s", 0) != first
    names = [request.text for request in proxy.sessions()[0].statements if request.kind == "Bind"]
    assert names[0].startswith("_pg3_")
    assert proxy.stats().pins == {}


def test_statements_that_failed_to_prepare_are_not_made_again(postgres: LocalPostgres, connection: Any) -> None:
    connection.prepare_threshold = 0
    for _ in range(2):
        with pytest.raises(psycopg.errors.UndefinedTable):
            connection.execute("SELECT %s FROM nowhere", (1,))
    assert value(connection, "SELECT 1 + %s", 1) == 2


def answer(connection: Any) -> Any:
    """Wait for what was sent by hand, as psycopg does; in libpq's own waiting, the proxy's thread could not run."""
    return waiting.wait(generators.execute(connection.pgconn), connection.fileno())


def test_the_unnamed_statement_lasts_beyond_a_sync(
    postgres: LocalPostgres, connection: Any, proxy: LocalRdsProxy
) -> None:
    connection.pgconn.send_prepare(b"", b"SELECT $1::int + 40")
    answer(connection)
    with clients(proxy, postgres.password, 1) as (other,):
        assert value(other, "SELECT %s", 1) == 1  # which replaces it on the shared connection
        connection.pgconn.send_query_prepared(b"", [b"2"])
        assert answer(connection)[0].get_value(0, 0) == b"42"
        connection.pgconn.send_describe_prepared(b"")
        assert answer(connection)[0].nparams == 1


def test_psycopgs_deallocate_all_pins(proxy: LocalRdsProxy, connection: Any) -> None:
    connection.autocommit = False
    connection.prepare_threshold = 0
    connection.execute("SELECT %s", (1,))
    connection.rollback()
    connection.execute("SELECT 1")
    assert proxy.stats().pins == {"Running a prepared statement.": 1}
    assert [request.text for request in proxy.sessions()[0].statements].count("DEALLOCATE ALL") == 1


def test_pipelines_pass_with_their_errors(proxy: LocalRdsProxy, connection: Any) -> None:
    with connection.pipeline():
        results = [connection.execute("SELECT %s::int", (number,)) for number in range(500)]
        assert [result.fetchone()[0] for result in results] == [*range(500)]
    connection.prepare_threshold = 0
    for _ in range(10):
        with pytest.raises(psycopg.errors.DivisionByZero), connection.pipeline():  # noqa: PT012 - it fails at its end
            connection.execute("SELECT 1 / %s", (0,))
            connection.execute("SELECT 2 / %s", (2,))
        assert value(connection, "SELECT 2 / %s", 2) == 1
        assert proxy.stats().borrowed_connections == 0


def test_a_pipeline_whose_requests_and_answers_are_large_does_not_stall(connection: Any) -> None:
    with connection.pipeline():
        results = [connection.execute("SELECT %s::text", (str(number) * 400_000,)) for number in range(10)]
        assert [len(result.fetchone()[0]) for result in results] == [400_000] * 10


def test_copy_goes_in_and_out(proxy: LocalRdsProxy, connection: Any) -> None:
    connection.execute("CREATE TABLE IF NOT EXISTS copied (id int, text text)")
    connection.execute("TRUNCATE copied")
    with connection.cursor() as cursor:
        with cursor.copy("COPY copied FROM STDIN") as copy:
            for number in range(20_000):
                copy.write_row((number, "x" * 100))
        with cursor.copy("COPY copied TO STDOUT") as copy:
            assert sum(1 for _ in copy.rows()) == 20_000
        with pytest.raises(psycopg.errors.BadCopyFileFormat), cursor.copy("COPY copied FROM STDIN") as copy:
            copy.write_row((1, 2, 3))
        with (
            pytest.raises(RuntimeError, match="no more"),
            cursor.copy("COPY copied FROM STDIN") as copy,
        ):
            raise RuntimeError("no more")
    assert value(connection, "SELECT count(*) FROM copied") == 20_000
    assert proxy.stats().borrowed_connections == 0


def message(kind: bytes, body: bytes) -> bytes:
    return kind + (4 + len(body)).to_bytes(4) + body


def fail_to_copy(raw: socket.socket, *, then: bytes, up_to: bytes) -> None:
    """Copy what is no number, send more at once, and read until the server has said a certain thing."""
    raw.sendall(message(b"Q", b"COPY never_copied FROM STDIN\0"))
    assert raw.recv(1000)[:1] == b"G"
    raw.sendall(message(b"d", b"no number\n") + then)
    heard = b""
    while up_to not in heard:
        heard += raw.recv(1000)


@pytest.fixture
def failed_copy(postgres: LocalPostgres) -> Iterator[tuple[LocalRdsProxy, socket.socket, Any]]:
    """A proxy with one database connection, a client's bare socket before a COPY, and another client."""
    with (
        make_proxy(postgres, max_database_connections=1, borrow_timeout_s=5, is_tls_required=False) as proxy,
        closing(connect(proxy, postgres.password, is_tls=False)) as client,
        closing(connect(proxy, postgres.password)) as other,
        socket.socket(fileno=os.dup(client.fileno())) as raw,
    ):
        other.execute("CREATE TABLE IF NOT EXISTS never_copied (id int)")
        raw.settimeout(5)
        yield proxy, raw, other


def test_the_rest_of_a_copy_that_has_failed_takes_no_database_connection(
    failed_copy: tuple[LocalRdsProxy, socket.socket, Any],
) -> None:
    proxy, raw, other = failed_copy
    fail_to_copy(raw, then=b"", up_to=b"Z\0\0\0\5I")
    raw.sendall(message(b"d", b"1\n") + message(b"c", b""))
    wait_until(lambda: proxy.sessions()[0].statements[-1].kind == "CopyDone")
    assert value(other, "SELECT 1") == 1
    assert proxy.stats().borrowed_connections == 0
    raw.sendall(message(b"Q", b"SELECT 2\0"))
    assert raw.recv(1000)[:1] == b"T"


def test_the_rest_of_a_copy_that_has_failed_reaches_no_other_client(
    failed_copy: tuple[LocalRdsProxy, socket.socket, Any],
) -> None:
    _, raw, other = failed_copy
    late = message(b"d", b"x" * 1000)
    fail_to_copy(raw, then=late[:10], up_to=b"invalid input syntax")
    with ThreadPoolExecutor() as pool:
        answered = pool.submit(value, other, "SELECT 1")
        with pytest.raises(TimeoutError):
            answered.result(0.2)
        raw.sendall(late[10:])
        assert answered.result(5) == 1


def test_a_flush_behind_the_last_sync_holds_no_database_connection(postgres: LocalPostgres) -> None:
    statement = [
        (b"P", b"\0SELECT 1/0\0\0\0"),
        (b"B", b"\0\0\0\0\0\0\0\0"),
        (b"E", b"\0\0\0\0\0"),
        (b"S", b""),
        (b"H", b""),
    ]
    with (
        make_proxy(postgres, is_tls_required=False) as proxy,
        closing(connect(proxy, postgres.password, is_tls=False)) as client,
        socket.socket(fileno=os.dup(client.fileno())) as raw,
    ):
        raw.settimeout(5)
        raw.sendall(b"".join(message(*part) for part in statement))  # as psycopg does in a pipeline that has failed
        heard = b""
        while b"Z\0\0\0\5I" not in heard:
            heard += raw.recv(1000)
        raw.sendall(message(b"Q", b"SELECT 2\0"))
        assert raw.recv(1000)[:1] == b"T"
        wait_until(lambda: proxy.stats().borrowed_connections == 0)


def test_copy_by_the_extended_protocol_goes_in(proxy: LocalRdsProxy, connection: Any) -> None:
    connection.execute("CREATE TABLE IF NOT EXISTS copied_so (id int)")
    pgconn = connection.pgconn
    for _ in range(2):  # the server ignores the first Sync, and the client sends a second
        pgconn.send_query_params(b"COPY copied_so FROM STDIN", [])
        assert answer(connection)[0].status == psycopg.pq.ExecStatus.COPY_IN
        pgconn.put_copy_data(b"1\n2\n")
        pgconn.put_copy_end()
        assert answer(connection)[0].status == psycopg.pq.ExecStatus.COMMAND_OK
        assert proxy.stats().borrowed_connections == 0
    assert value(connection, "SELECT count(*) FROM copied_so WHERE id > %s", 0) == 4


def test_large_results_and_values_pass(connection: Any) -> None:
    assert len(connection.execute("SELECT i, repeat('x', 50) FROM generate_series(1, 20000) i").fetchall()) == 20_000
    assert len(value(connection, "SELECT repeat('x', 20000000)")) == 20_000_000
    assert value(connection, "SELECT length(%s)", "y" * 20_000_000) == 20_000_000


def test_a_reader_that_is_slow_makes_the_server_wait_and_not_the_proxy_grow(
    postgres: LocalPostgres, proxy: LocalRdsProxy, connection: Any
) -> None:
    connection.pgconn.send_query(b"SELECT repeat('x', 1000) FROM generate_series(1, 100000)")
    connection.pgconn.flush()
    event = "SELECT wait_event FROM pg_stat_activity WHERE usename = 'app' AND state = 'active'"
    wait_until(lambda: ("ClientWrite",) in postgres.query(event))
    assert answer(connection)[0].ntuples == 100_000
    assert value(connection, "SELECT 1") == 1


def test_several_statements_in_one_message_answer_all(proxy: LocalRdsProxy, connection: Any) -> None:
    cursor = connection.execute("SELECT 1; SELECT 2; BEGIN; SELECT 3")
    answers = [cursor.fetchone()[0]]
    while cursor.nextset():
        if cursor.description:
            answers.append(cursor.fetchone()[0])
    assert answers == [1, 2, 3]
    assert proxy.stats().borrowed_connections == 1
    connection.execute("COMMIT")
    assert proxy.stats().borrowed_connections == 0


def test_server_side_cursors_pin(proxy: LocalRdsProxy, connection: Any) -> None:
    with connection.transaction(), connection.cursor("named") as cursor:
        cursor.itersize = 100
        cursor.execute("SELECT generate_series(1, 1000)")
        assert sum(row[0] for row in cursor) == 500_500
    assert proxy.stats().pins == {"SQL declared a cursor.": 1}


def test_streamed_rows_binary_results_and_client_cursors_pass(connection: Any) -> None:
    with connection.cursor(binary=True) as cursor:
        assert sum(row[0] for row in cursor.stream("SELECT generate_series(1, %s)", (1000,))) == 500_500
    with psycopg.ClientCursor(connection) as client_cursor:
        client_cursor.execute("SELECT %s, %s", (1, "it's"))
        assert client_cursor.fetchone() == (1, "it's")
        client_cursor.executemany("SELECT %s", [(1,), (2,)])
    with connection.transaction() as outer:
        with pytest.raises(ZeroDivisionError), connection.transaction():
            raise ZeroDivisionError
        raise psycopg.Rollback(outer)


def test_notices_and_notifications_reach_a_client(connection: Any) -> None:
    notices: list[str] = []
    connection.add_notice_handler(lambda notice: notices.append(notice.message_primary or ""))
    connection.execute("DO $$ BEGIN RAISE NOTICE 'seen'; END $$")
    assert notices == ["seen"]
    connection.execute("LISTEN news")
    connection.execute("NOTIFY news, 'come'")
    assert [notify.payload for notify in connection.notifies(timeout=2, stop_after=1)] == ["come"]


def environment(proxy: LocalRdsProxy, postgres: LocalPostgres) -> dict[str, str]:
    return os.environ | {
        "PGHOST": proxy.host,
        "PGPORT": str(proxy.port),
        "PGUSER": postgres.user,
        "PGPASSWORD": postgres.password,
        "PGDATABASE": postgres.database,
        "PGSSLMODE": "verify-full",
        "PGSSLROOTCERT": str(proxy.certificates.ca_path),
    }


def program(name: str) -> str:
    for folder in sorted(POSTGRES_PROGRAMS.glob("*/bin"), reverse=True):
        if (folder / name).exists():
            return str(folder / name)
    pytest.skip(f"there is no {name} in {POSTGRES_PROGRAMS}/*/bin: install PostgreSQL")


def run(command: list[str], variables: dict[str, str], *, text: str = "") -> str:
    outcome = subprocess.run(
        command, env=variables, input=text, capture_output=True, text=True, timeout=60, check=False
    )
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    return outcome.stdout + outcome.stderr


def test_psql_feels_at_home(postgres: LocalPostgres, proxy: LocalRdsProxy) -> None:
    script = """
        CREATE TABLE IF NOT EXISTS at_psql (id int PRIMARY KEY, text text);
        TRUNCATE at_psql;
        \\copy at_psql FROM pstdin
1\tone
2\ttwo
\\.
        \\d at_psql
        SELECT * FROM at_psql WHERE id = $1 \\bind 2 \\g
        \\set FETCH_COUNT 1
        SELECT text FROM at_psql ORDER BY id;
        \\copy at_psql TO pstdout
        \\conninfo
    """.replace("\\bind 2", "" if "psql (PostgreSQL) 15" in run([program("psql"), "--version"], {}) else "\\bind 2")
    script = script.replace("id = $1 ", "id = 2 ") if "\\bind" not in script else script
    output = run([program("psql"), "-X", "-v", "ON_ERROR_STOP=1"], environment(proxy, postgres), text=script)
    assert '"at_psql_pkey" PRIMARY KEY' in output
    assert "2\ttwo" in output
    assert "SSL connection" in output or "SSL Connection" in output


@pytest.mark.parametrize("mode", ["simple", "extended", "prepared"])
def test_pgbench_runs_in_every_mode_over_fewer_connections_than_clients(
    postgres: LocalPostgres, proxy: LocalRdsProxy, mode: str
) -> None:
    variables = environment(proxy, postgres)
    pgbench = program("pgbench")
    run([pgbench, "--initialize", "--quiet", "--init-steps=dtGvp"], variables)
    output = run([pgbench, "--no-vacuum", "-c6", "-j6", "-t40", f"--protocol={mode}"], variables)
    assert "number of transactions actually processed: 240/240" in output
    assert "number of failed transactions: 0" in output
    stats = proxy.stats()
    assert (stats.most_database_connections, stats.pins) == (2, {})
    assert postgres.query(
        "SELECT count(*), sum(delta) - (SELECT sum(abalance) FROM pgbench_accounts) FROM pgbench_history"
    )[0] == (240, 0)
