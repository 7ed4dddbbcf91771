"""MySQL's protocol through the local RDS Proxy: PyMySQL's ways of speaking, and the `mariadb` client."""

from __future__ import annotations

import shutil
import struct
import subprocess
import threading
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pymysql
import pytest
from pymysql.constants import CLIENT, COMMAND

from tests.support.clients import wait_until
from tests.support.rds_proxy import clients, connect, make_proxy, rows, value

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lambda_dbconn.testing.rds_proxy import LocalRdsProxy
    from lambda_dbconn.testing.servers import LocalMariaDB
    from tests.support.mysql import LocalMySQL

pytestmark = pytest.mark.once


@pytest.fixture
def proxy(mariadb: LocalMariaDB) -> Iterator[LocalRdsProxy]:
    with make_proxy(mariadb, max_database_connections=2, borrow_timeout_s=5) as proxy:
        yield proxy
        assert "[ERROR]" not in proxy.log()


@pytest.fixture
def connection(proxy: LocalRdsProxy, mariadb: LocalMariaDB) -> Iterator[Any]:
    with closing(connect(proxy, mariadb.password)) as connection:
        yield connection


def table(connection: Any, name: str) -> str:
    rows(connection, f"CREATE OR REPLACE TABLE {name} (id INT AUTO_INCREMENT PRIMARY KEY, text VARCHAR(100) UNIQUE)")
    return name


def test_counts_and_ids_and_types_are_the_servers(connection: Any) -> None:
    name = table(connection, "counted")
    with connection.cursor() as cursor:
        assert cursor.executemany(f"INSERT INTO {name} (text) VALUES (%s)", [("a",), ("b",)]) == 2
        assert cursor.lastrowid == 1
        cursor.execute(f"INSERT INTO {name} (text) VALUES ('c')")
        assert cursor.lastrowid == 3
        assert cursor.execute(f"UPDATE {name} SET text = 'c' WHERE id = 3") == 0  # changed, not found
        cursor.execute("SELECT 1, 1.5, 'x', NULL, DATE '2026-11-22', X'FF00'")
        first = cursor.fetchone()
        assert [type(item).__name__ for item in first] == ["int", "Decimal", "str", "NoneType", "date", "bytes"]
        cursor.execute("SELECT 1 FROM dual WHERE 1 = 0")
        assert cursor.fetchall() == ()
        with pytest.raises(pymysql.err.IntegrityError, match="1062"):
            cursor.execute(f"INSERT INTO {name} (text) VALUES ('a')")
        assert cursor.execute("SELECT '\N{SNOWMAN}\N{PILE OF POO}'") == 1
        assert cursor.fetchone() == ("\N{SNOWMAN}\N{PILE OF POO}",)


def test_found_rows_are_counted_for_those_who_ask_so(proxy: LocalRdsProxy, mariadb: LocalMariaDB) -> None:
    with (
        closing(connect(proxy, mariadb.password)) as usual,
        closing(connect(proxy, mariadb.password, client_flag=CLIENT.FOUND_ROWS)) as found,
    ):
        name = table(usual, "found")
        rows(usual, f"INSERT INTO {name} (text) VALUES ('a')")
        for connection, count in ((usual, 0), (found, 1), (usual, 0)):
            with connection.cursor() as cursor:
                assert cursor.execute(f"UPDATE {name} SET text = 'a'") == count


def test_several_statements_and_a_procedures_results_come_in_order(
    proxy: LocalRdsProxy, mariadb: LocalMariaDB, connection: Any
) -> None:
    mariadb.execute("CREATE OR REPLACE PROCEDURE twice() BEGIN SELECT 1; SELECT 2, 3; END")
    mariadb.execute("GRANT EXECUTE ON PROCEDURE app.twice TO app")
    with connection.cursor() as cursor:
        cursor.callproc("twice")
        assert cursor.fetchall() == ((1,),)
        assert cursor.nextset()
        assert cursor.fetchall() == ((2, 3),)
        cursor.nextset()
    with (
        closing(connect(proxy, mariadb.password, client_flag=CLIENT.MULTI_STATEMENTS)) as multi,
        multi.cursor() as cursor,
    ):
        cursor.execute("SELECT 1; BEGIN; SELECT 2")
        assert cursor.fetchall() == ((1,),)
        assert cursor.nextset()
        assert cursor.nextset()
        assert cursor.fetchall() == ((2,),)
        assert proxy.stats().borrowed_connections == 1
        cursor.execute("COMMIT; SELECT FROM")
        with pytest.raises(pymysql.err.ProgrammingError):
            cursor.nextset()
    wait_until(lambda: proxy.stats().borrowed_connections == 0)


def test_large_results_pass(connection: Any) -> None:
    found = rows(connection, "SELECT seq, REPEAT('x', 50) FROM seq_1_to_20000")
    assert (len(found), found[-1][0]) == (20_000, 20_000)


def test_large_values_pass_in_both_directions(mariadb: LocalMariaDB, proxy: LocalRdsProxy) -> None:
    ((before,),) = mariadb.query("SELECT @@global.max_allowed_packet")
    mariadb.execute("SET GLOBAL max_allowed_packet = 67108864")  # of connections that are opened from now on
    try:
        with closing(connect(proxy, mariadb.password, max_allowed_packet=64 << 20)) as connection:
            # More than 16 MB go in several packets.
            assert len(value(connection, f"SELECT '{'x' * 20_000_000}'")) == 20_000_000
            assert len(value(connection, "SELECT REPEAT('x', 20000000)")) == 20_000_000
            assert proxy.stats().pins == {"The statement is longer than 16 KB.": 1}
    finally:
        mariadb.execute("SET GLOBAL max_allowed_packet = %s", before)


def test_a_request_of_several_packets_that_gets_no_database_connection_fails_and_the_session_goes_on(
    mariadb: LocalMariaDB,
) -> None:
    with (
        make_proxy(mariadb, max_database_connections=1, borrow_timeout_s=0.2) as proxy,
        clients(proxy, mariadb.password, 2, max_allowed_packet=64 << 20) as (busy, waiting),
    ):
        rows(busy, "BEGIN")
        for _ in range(2):
            with pytest.raises(pymysql.err.OperationalError, match="9501"):
                value(waiting, f"SELECT '{'x' * 17_000_000}'")
        rows(busy, "COMMIT")
        assert value(waiting, "SELECT 1") == 1


def test_unbuffered_rows_pass(connection: Any) -> None:
    with connection.cursor(pymysql.cursors.SSCursor) as cursor:
        cursor.execute("SELECT seq FROM seq_1_to_5000")
        assert sum(number for (number,) in cursor) == 5000 * 5001 // 2
    assert value(connection, "SELECT 1") == 1


def test_load_data_local_passes(proxy: LocalRdsProxy, mariadb: LocalMariaDB, tmp_path: Path) -> None:
    path = tmp_path / "rows.txt"
    path.write_text("".join(f"{number}\tx{number}\n" for number in range(1, 50_001)))
    with closing(connect(proxy, mariadb.password, local_infile=True)) as connection:
        name = table(connection, "loaded")
        rows(connection, f"LOAD DATA LOCAL INFILE '{path}' INTO TABLE {name}")
        assert value(connection, f"SELECT COUNT(*) FROM {name}") == 50_000
        with pytest.raises(pymysql.err.OperationalError, match="Can't open file"):
            rows(connection, f"LOAD DATA LOCAL INFILE '{path}x' INTO TABLE {name}")
        assert value(connection, "SELECT 1") == 1
    assert proxy.stats().pins == {}


def command(connection: Any, number: int, body: bytes = b"") -> bytes:
    """Send a command that PyMySQL has no method for, and return the first packet of the answer."""
    connection._execute_command(number, body)
    answer: bytes = connection._read_packet().get_all_data()
    return answer


def test_binary_prepared_statements_pin_and_work(proxy: LocalRdsProxy, connection: Any) -> None:
    answer = command(connection, COMMAND.COM_STMT_PREPARE, b"SELECT 40 + 2, 'x'")
    statement = answer[1:5]
    assert int.from_bytes(answer[5:7], "little") == 2
    for _ in range(3):  # the columns and their end
        connection._read_packet()
    assert command(connection, COMMAND.COM_STMT_EXECUTE, statement + struct.pack("<BI", 0, 1)) == b"\x02"
    packets = [connection._read_packet().get_all_data() for _ in range(5)]
    assert packets[3][2:] == struct.pack("<i", 42) + b"\x01x"
    # With a cursor, rows come when they are fetched.
    assert command(connection, COMMAND.COM_STMT_EXECUTE, statement + struct.pack("<BI", 1, 1)) == b"\x02"
    for _ in range(3):
        connection._read_packet()
    assert command(connection, COMMAND.COM_STMT_FETCH, statement + struct.pack("<I", 10)) == packets[3]
    connection._read_packet()
    connection._execute_command(COMMAND.COM_STMT_CLOSE, statement)
    assert value(connection, "SELECT 1") == 1
    assert proxy.stats().pins == {"Running a prepared statement.": 1}


def test_other_commands_are_answered_or_refused(proxy: LocalRdsProxy, connection: Any) -> None:
    name = table(connection, "listed")
    assert b"Uptime" in command(connection, COMMAND.COM_STATISTICS)
    assert name.encode() in command(connection, COMMAND.COM_FIELD_LIST, name.encode() + b"\0")
    for _ in range(2):  # the second column and the end
        connection._read_packet()
    for refused in (COMMAND.COM_CHANGE_USER, COMMAND.COM_BINLOG_DUMP):
        with pytest.raises(pymysql.err.OperationalError, match="1047"):
            command(connection, refused)
    rows(connection, "SET time_zone = '+01:00'")
    assert command(connection, 31)[:1] == b"\0"  # COM_RESET_CONNECTION
    assert value(connection, "SELECT @@time_zone") == "SYSTEM"
    connection.ping()
    assert proxy.stats().pins == {}


def test_answers_do_not_mix_between_clients(proxy: LocalRdsProxy, mariadb: LocalMariaDB) -> None:
    with clients(proxy, mariadb.password, 6) as connections:
        errors: list[BaseException] = []

        def work(number: int, connection: Any) -> None:
            try:
                for count in range(1, 40):
                    expected = [(f"{number}-{row}",) for row in range(1, count + 1)]
                    sql = f"SELECT CONCAT(%s, '-', seq) FROM seq_1_to_{count}"
                    assert rows(connection, sql, number) == expected
                    with pytest.raises(pymysql.err.ProgrammingError):
                        rows(connection, "SELECT FROM")
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=work, args=item) for item in enumerate(connections)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        assert proxy.stats().most_database_connections == 2


def test_the_mariadb_client_feels_at_home(proxy: LocalRdsProxy, mariadb: LocalMariaDB, tmp_path: Path) -> None:
    mariadb_client = shutil.which("mariadb")
    if mariadb_client is None:
        pytest.skip("there is no mariadb client: apt-get install --no-install-recommends mariadb-client-core")
    path = tmp_path / "rows.txt"
    path.write_text("1\tone\n2\ttwo\n")
    script = f"""
        STATUS
        CREATE OR REPLACE TABLE at_client (id INT, text TEXT);
        LOAD DATA LOCAL INFILE '{path}' INTO TABLE at_client;
        USE app
        SELECT COUNT(*), GROUP_CONCAT(text) FROM at_client;
        DELIMITER //
        SELECT 1; SELECT 2 //
        DELIMITER ;
        SHOW TABLES LIKE 'at_client';
    """
    outcome = subprocess.run(
        [
            *(mariadb_client, "--no-defaults", f"--host={proxy.host}", f"--port={proxy.port}", "--protocol=tcp"),
            *(f"--user={mariadb.user}", f"--password={mariadb.password}", f"--ssl-ca={proxy.certificates.ca_path}"),
            *("--ssl-verify-server-cert", "--local-infile", "--auto-rehash", "--default-auth=mysql_native_password"),
            mariadb.database,
        ],
        input=script,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    assert "2\tone,two" in outcome.stdout
    assert "Cipher in use is TLS" in outcome.stdout
    assert proxy.stats().pins == {}


def test_mysql_itself_stands_behind_the_proxy_as_well(mysql: LocalMySQL) -> None:
    with make_proxy(mysql, max_database_connections=2) as proxy, clients(proxy, mysql.password, 4) as connections:
        for connection in connections:
            assert value(connection, "SELECT VERSION()").startswith("9.")
            rows(connection, "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
            assert value(connection, "SELECT @@transaction_isolation") == "READ-COMMITTED"
        assert proxy.stats().pins == {}
        assert proxy.stats().most_database_connections <= 2
        assert "[ERROR]" not in proxy.log()
