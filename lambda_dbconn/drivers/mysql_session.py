"""A MySQL session: put back to what it was at login, wholly or in what RDS Proxy tracks; and its isolation level.

COM_RESET_CONNECTION leaves the database, sets autocommit to the server's default, and on MySQL the character set as
well: two more commands put these back. MySQL 8 and MariaDB take all three in one write. Aurora MySQL 2 (5.7) hangs when
a command arrives before the answer to the one before, so older servers get them one after the other.
"""

from __future__ import annotations

import struct

import pymysql
from pymysql.constants import COMMAND

from lambda_dbconn._values import TYPE_CHECKING
from lambda_dbconn.drivers.mysql_result import Result, out_of_step

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from lambda_dbconn.drivers.mysql_connection import Connection

_COM_RESET_CONNECTION = 0x1F  # PyMySQL 1.2.4 does not know it
_RESET = struct.pack("<iB", 1, _COM_RESET_CONNECTION)
_OLDEST_PIPELINE = 8  # MySQL's major version
_MARIADB = ("5.5.5-", "mariadb")  # a prefix for old clients, or in the name

# What `SET NAMES` and `SET SESSION TRANSACTION` set, by either server's names.
_MEANT = {
    "names": ("character_set_client", "character_set_connection", "character_set_results", "collation_connection"),
    "transaction": ("transaction_isolation", "transaction_read_only", "tx_isolation", "tx_read_only"),
    "database": (),
}

# --- reset


def takes_pipeline(connection: Connection) -> bool:
    """Say whether the server takes a command before it has answered the one before, by its greeting."""
    version = connection.server_version.lower()
    major = version.partition(".")[0]
    if version.startswith(_MARIADB[0]) or _MARIADB[1] in version:
        return True
    return major.isdecimal() and int(major) >= _OLDEST_PIPELINE


def send_reset(connection: Connection) -> None:
    """Send the reset; a reply is owed from before the first byte.

    Raises:
        pymysql.Error: The connection is lost, or was not at rest.
    """
    _check_open(connection)
    if not connection.is_at_rest:
        raise out_of_step()
    connection.forget_rows()  # or a cursor that was kept would take the replies for its own next result
    rest = (_names(connection), _database(connection)) if takes_pipeline(connection) else ()
    connection._write_bytes(b"".join((_RESET, *rest)))  # noqa: SLF001
    connection.has_sent = False
    connection.isolation = None


def finish_reset(connection: Connection) -> None:
    """Read the answer to the reset; below MySQL 8, send the rest of it first. A reply is owed until all is done.

    Raises:
        pymysql.Error: The server refuses, or the connection is lost.
        pymysql.NotSupportedError: The login named no database and one is selected: there is no way back to none.
    """
    _check_open(connection)
    _read_ok(connection)
    is_sent = takes_pipeline(connection)
    if not is_sent:
        connection._write_bytes(_names(connection))  # noqa: SLF001
    _read_ok(connection)
    if not is_sent:
        connection._write_bytes(_database(connection))  # noqa: SLF001
    _read_database(connection)
    connection.charset, connection.collation, connection.encoding = connection.names  # type: ignore[misc] # logged in
    connection.owes = False


def _check_open(connection: Connection) -> None:
    if not connection.open:
        raise pymysql.InterfaceError(0, "the connection is closed")


def _command(command: int, body: bytes) -> bytes:
    return struct.pack("<iB", len(body) + 1, command) + body


def _names(connection: Connection) -> bytes:
    charset, collation, _ = connection.names  # type: ignore[misc] # it is logged in
    names = f"{charset} COLLATE {collation}" if collation else charset
    return _command(COMMAND.COM_QUERY, f"SET NAMES {names}, autocommit=1".encode())


def _database(connection: Connection) -> bytes:
    name = connection.db
    if not name:
        return _command(COMMAND.COM_QUERY, b"SELECT DATABASE()")
    return _command(COMMAND.COM_INIT_DB, name if isinstance(name, bytes) else name.encode())


def _read_ok(connection: Connection) -> None:
    """Read an OK packet by PyMySQL's method, not by ours: after it the session owes replies still."""
    connection._next_seq_id = 1  # noqa: SLF001
    ok = pymysql.Connection._read_ok_packet(connection)  # type: ignore[attr-defined] # noqa: SLF001
    connection.note_status(ok.server_status)


def _read_database(connection: Connection) -> None:
    if connection.db:
        _read_ok(connection)
        return
    connection._next_seq_id = 1  # noqa: SLF001
    result = Result(connection)
    result.read()
    if result.rows != ((None,),):
        raise pymysql.NotSupportedError("the login named no database, and one is selected")


# --- variables that RDS Proxy tracks


def remember(connection: Connection, names: Iterable[str]) -> None:
    """Ask for the values of variables that the next statement changes, once for each: at most one round trip.

    Raises:
        Exception: As for a statement of the caller's.
    """
    known = connection.tracked
    connection.changed.update(names)
    wanted = [variable for variable in _variables(names) if variable not in known]
    if wanted:
        listed = ", ".join(connection.escape(variable) for variable in wanted)
        rows = ask(connection, f"SHOW SESSION VARIABLES WHERE Variable_name IN ({listed})")
        known.update(dict.fromkeys(wanted), **{name.decode(): value.decode() for name, value in rows})


def put_back(connection: Connection) -> None:
    """Set what was changed to the remembered values, and select the login's database if another may be selected.

    Raises:
        pymysql.Error: The server refuses, or the connection is lost.
        pymysql.NotSupportedError: The login named no database and one is selected: there is no way back to none.
    """
    from lambda_dbconn.proxy.rules import MYSQL_TRACKED

    assignments: dict[str, list[str]] = {"SESSION": [], "LOCAL": []}  # LOCAL means the same, and does not pin
    for variable in _variables(connection.changed):
        value = connection.tracked.get(variable)
        if value is not None:
            scope = "SESSION" if variable in MYSQL_TRACKED else "LOCAL"
            assignments[scope].append(f"{scope} {variable} = {_literal(connection, variable, value)}")
    for several in assignments.values():
        if several:
            pymysql.Connection.query(connection, f"SET {', '.join(several)}")  # unseen
    if "database" in connection.changed:
        if connection.db:
            pymysql.Connection.select_db(connection, connection.db)
        elif ask(connection, "SELECT DATABASE()") != ((None,),):
            raise pymysql.NotSupportedError("the login named no database, and one is selected")
    connection.charset, connection.collation, connection.encoding = connection.names  # type: ignore[misc] # logged in
    connection.changed.clear()


def _variables(names: Iterable[str]) -> list[str]:
    return [variable for name in sorted(names) for variable in _MEANT.get(name, (name,))]


def _literal(connection: Connection, name: str, value: str) -> str:
    if not value and name == "character_set_results":
        return "NULL"
    return value if value.isdecimal() else str(connection.escape(value))


# --- transactions


def switch_autocommit_on(connection: Connection) -> None:
    """Say `autocommit=1`, whatever PyMySQL takes it to be."""
    pymysql.Connection.query(connection, "SET autocommit = 1")  # unseen


def level(connection: Connection) -> str:
    """Ask for the session's isolation level, in the words of `transaction(isolation=…)`: one round trip."""
    rows = ask(connection, "SHOW SESSION VARIABLES WHERE Variable_name IN ('transaction_isolation', 'tx_isolation')")
    return str(rows[0][1].decode()).replace("-", " ").lower()


def set_level(connection: Connection, wanted: str) -> None:
    """Set the session's level, unseen: it is put back without a reset."""
    pymysql.Connection.query(connection, f"SET SESSION TRANSACTION ISOLATION LEVEL {wanted}")


def ask(connection: Connection, statement: str) -> Any:
    """Return the rows of a query as the server sent them, whatever cursors and decoders the caller has set."""
    attributes = connection.use_unicode, connection.decoders
    connection.use_unicode, connection.decoders = False, {}
    try:
        pymysql.Connection.query(connection, statement)  # unseen
        return connection._result.rows  # noqa: SLF001
    finally:
        connection.use_unicode, connection.decoders = attributes
