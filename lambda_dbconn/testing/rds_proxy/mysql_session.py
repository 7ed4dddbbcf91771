"""A MySQL client's session: login, and a database connection for each transaction."""

from __future__ import annotations

import re
import secrets
from typing import TYPE_CHECKING

from lambda_dbconn.testing.rds_proxy import mysql_wire as wire
from lambda_dbconn.testing.rds_proxy.mysql_answers import Answers
from lambda_dbconn.testing.rds_proxy.pinning import (
    LONGEST_TEXT_BYTES,
    PREPARED,
    SETTINGS,
    TOO_LONG,
    changes_tracked_state,
    pin_reason,
)
from lambda_dbconn.testing.rds_proxy.session import Session
from lambda_dbconn.testing.rds_proxy.stream import Relay, Stream
from lambda_dbconn.testing.rds_proxy.texts import RefusedError, refused

if TYPE_CHECKING:
    import socket

    from lambda_dbconn.testing.rds_proxy.core import Core
    from lambda_dbconn.testing.rds_proxy.mysql_wire import MySqlConnection
    from lambda_dbconn.testing.rds_proxy.texts import Refusal

_VERSION = "8.0.40"  # of the greeting, whatever the database is; SELECT VERSION() asks the database
_INSPECTED_BYTES = LONGEST_TEXT_BYTES + 16

QUIT, INIT_DB, QUERY, FIELD_LIST, STATISTICS, PROCESS_KILL, PING = 1, 2, 3, 4, 9, 12, 14
PREPARE, EXECUTE, SEND_LONG_DATA, STMT_CLOSE, RESET, SET_OPTION, FETCH, RESET_CONNECTION = *range(22, 29), 31
_NAMES = {
    INIT_DB: "COM_INIT_DB",
    QUERY: "COM_QUERY",
    FIELD_LIST: "COM_FIELD_LIST",
    STATISTICS: "COM_STATISTICS",
    PROCESS_KILL: "COM_PROCESS_KILL",
    PING: "COM_PING",
    PREPARE: "COM_STMT_PREPARE",
    EXECUTE: "COM_STMT_EXECUTE",
    SEND_LONG_DATA: "COM_STMT_SEND_LONG_DATA",
    STMT_CLOSE: "COM_STMT_CLOSE",
    RESET: "COM_STMT_RESET",
    SET_OPTION: "COM_SET_OPTION",
    FETCH: "COM_STMT_FETCH",
    RESET_CONNECTION: "COM_RESET_CONNECTION",
}
_WITHOUT_ANSWER = (SEND_LONG_DATA, STMT_CLOSE)

# Tracked variables that can be read and set; those of the current database follow it.
_VARIABLES = (
    *("autocommit", "auto_increment_increment", "character_set_client", "character_set_connection"),
    *("character_set_filesystem", "character_set_results", "character_set_server", "collation_connection"),
    *("collation_server", "interactive_timeout", "net_write_timeout", "session_track_schema", "sql_mode"),
    *("time_zone", "wait_timeout"),
)
_MYSQL_VARIABLES = ("transaction_isolation", "transaction_read_only")
_MARIADB_VARIABLES = ("tx_isolation", "tx_read_only")

_ENDS_TRANSACTION = re.compile(rb"\s*(?:commit|rollback(?!\s+(?:work\s+)?to\b))", re.IGNORECASE)
_BEGINS_NOTHING = re.compile(rb"\s*(?:set|use)\b", re.IGNORECASE)


class MySqlSession(Session):
    """Sits between a client and whichever database connection it has.

    The database connection goes back after an answer that leaves no transaction open. A client gets one whose
    tracked variables and current database are its own: those are read back whenever a statement may have changed
    them, and set on connections that are opened for it.
    """

    def __init__(self, core: Core, sock: socket.socket) -> None:
        super().__init__(core, sock)
        self.connection: MySqlConnection | None = None
        self._hello = wire.ClientHello(capabilities=0, charset=0)
        self._sequence = 0
        self._salt = bytes(secrets.choice(range(1, 128)) for _ in range(20))
        self._is_tls = False
        self._variables: dict[str, str] | None = None  # None: as a connection begins
        self._is_in_transaction = False
        self._is_busy = False

    @property
    def is_busy(self) -> bool:
        """Whether the client waits for an answer."""
        return self._is_busy

    # Login.

    @property
    def _plugin(self) -> str:
        return self.core.options.password_auth or wire.CACHING_SHA2

    async def _greet(self) -> bool:
        hello = wire.greeting(self.record.number, _VERSION, self._plugin, self._salt, wire.OFFERED)
        self._sock.send(hello)
        self._sequence, body = await wire.receive_packet(self._sock)
        self._is_tls = bool(wire.parse_hello(body).capabilities & wire.TLS)
        self._stream = await Stream.accepted(self._sock, self.core.client_tls if self._is_tls else None)
        if self._is_tls:
            self._sequence, body = await wire.read_packet(self.stream)
        self._hello = wire.parse_hello(body)
        self.record.user, self.record.database = self._hello.user, self._hello.database
        self.stream.on_end = self._drop_connection
        return True

    async def _log_in(self) -> None:
        options, user = self.core.options, self._hello.user
        if not self._is_tls and (options.is_tls_required or options.auth == "iam" or self._plugin != wire.NATIVE):
            raise refused("mysql", "tls_required")
        await self._begin_request()
        password = self.core.password_of(user)
        if options.auth == "iam":
            token = await self._ask(b"\xfe" + wire.CLEAR.encode() + b"\0")
            self.core.verify_token(self.record.number, user, token.rstrip(b"\0").decode(errors="replace"))
        else:
            await self._check_password(user, password)
        if (user, self.record.database) not in self.core.known:
            await self._borrow()
            self.core.known[user, self.record.database] = True
            self._give_back()
        self._write(wire.ok_packet(self._sequence + 1))

    async def _check_password(self, user: str, password: str) -> None:
        answer = self._hello.answer
        if self._hello.plugin != self._plugin:
            answer = await self._ask(b"\xfe" + self._plugin.encode() + b"\0" + self._salt + b"\0")
        if not secrets.compare_digest(answer, wire.scramble(self._plugin, password, self._salt)):
            raise refused("mysql", "wrong_password", user=user)
        if self._plugin == wire.CACHING_SHA2:
            self._sequence += 1
            self._write(wire.packet(self._sequence, b"\x01\x03"))  # the short way: the proxy has the password

    async def _ask(self, request: bytes) -> bytes:
        self._write(wire.packet(self._sequence + 1, request))
        self._sequence, body = await self._hear(wire.read_packet(self.stream))
        return body

    # Requests.

    async def _serve(self) -> None:
        requests = Relay(self.stream)
        while True:
            header = await requests.peek(wire.HEADER_BYTES + 1)
            size, self._sequence, command = int.from_bytes(header[:3], "little"), header[3], header[4]
            if command == QUIT:
                return
            text = (await requests.peek(wire.HEADER_BYTES + min(size, _INSPECTED_BYTES)))[wire.HEADER_BYTES + 1 :]
            self.record.note(
                _NAMES.get(command, f"command {command}"), text if command in (INIT_DB, QUERY, PREPARE) else b""
            )
            await self._begin_request()
            try:
                await self._get_ready(command, text, size)
            except RefusedError as error:  # the client may ask again
                await self._drop_packets(requests)
                self._write(wire.error_packet(self._sequence + 1, error.refusal))
            else:
                await self._pass_packets_on(requests)
                if command not in _WITHOUT_ANSWER:
                    await self._answer(requests, command, text)
            self._is_busy = False
            self._end_request()

    async def _get_ready(self, command: int, text: bytes, size: int) -> None:
        if command not in _NAMES:
            raise refused("mysql", "unsupported_command")
        if self.connection is None:
            await self._borrow()
        self._is_busy = True
        reason = self._pin_reason(command, text, size)
        if reason is not None:
            self._pin(reason)

    async def _answer(self, requests: Relay, command: int, text: bytes) -> None:
        assert self.connection is not None
        connection = self.connection
        answers = Answers(requests, Relay(connection.stream, self.stream))
        status = await answers.hand_on(command, is_read_only=self.core.options.is_read_only)
        try:
            if status is None:
                status = await wire.ping(connection.stream)  # an error says nothing of the transaction
            self._follow_transaction(status, command, text)
            if self.record.pin_reason is None:
                if command in (INIT_DB, RESET_CONNECTION) or (command == QUERY and changes_tracked_state(text)):
                    self._variables = await self._read_variables(connection)
                    self.record.database = connection.database
                if not self._is_in_transaction:
                    self._give_back()
        finally:
            self._write(answers.rest)

    async def _pass_packets_on(self, requests: Relay) -> None:
        requests.destination = self.connection.stream if self.connection else None
        size = wire.LONGEST_PACKET_BYTES
        while size == wire.LONGEST_PACKET_BYTES:
            size = int.from_bytes(await requests.peek(3), "little")
            await requests.pass_on(wire.HEADER_BYTES + size)
        await requests.flush()

    async def _drop_packets(self, requests: Relay) -> None:
        size = wire.LONGEST_PACKET_BYTES
        while size == wire.LONGEST_PACKET_BYTES:
            header = await requests.peek(wire.HEADER_BYTES)
            size, self._sequence = int.from_bytes(header[:3], "little"), header[3]
            await requests.drop(wire.HEADER_BYTES + size)

    def _pin_reason(self, command: int, text: bytes, size: int) -> str | None:
        if self.record.pin_reason is not None:
            return None
        if command == SET_OPTION:
            return SETTINGS
        if command == PREPARE:
            return PREPARED
        if command != QUERY:
            return None
        return TOO_LONG if size > _INSPECTED_BYTES else pin_reason("mysql", text)

    def _follow_transaction(self, status: int, command: int, text: bytes) -> None:
        """Without autocommit, a transaction lasts from any query to its end, whatever the server thinks."""
        if status & wire.IN_TRANSACTION:
            self._is_in_transaction = True
        elif status & wire.AUTOCOMMIT or _ENDS_TRANSACTION.match(text):
            self._is_in_transaction = False
        elif command == QUERY and not _BEGINS_NOTHING.match(text):
            self._is_in_transaction = True

    # Database connections.

    @property
    def _flags(self) -> tuple[int, int]:
        return self._hello.capabilities & wire.PASSED_ON, self._hello.charset

    def _fits(self, connection: MySqlConnection) -> bool:
        variables = connection.fresh if self._variables is None else self._variables
        return (connection.user, connection.database, connection.flags, connection.variables) == (
            self.record.user,
            self.record.database,
            self._flags,
            variables,
        )

    async def _connect(self) -> MySqlConnection:
        user = self.record.user
        connection = await wire.connect(
            self.core.target,
            number=self.core.ledger.new_number(),
            user=user,
            password=self.core.password_of(user),
            database=self.record.database,
            flags=self._flags,
        )
        try:
            if self.core.options.is_read_only:
                await wire.query(connection.stream, "SET SESSION TRANSACTION READ ONLY")
            connection.fresh = await self._read_variables(connection)
            for name, value in (self._variables or {}).items():
                if connection.fresh.get(name) != value:
                    await wire.query(connection.stream, f"SET SESSION {name} = {_literal(value)}")
            if self._variables is not None:
                connection.variables = self._variables
        except BaseException:
            connection.stream.abort()
            raise
        return connection

    async def _read_variables(self, connection: MySqlConnection) -> dict[str, str]:
        names = (*_VARIABLES, *(_MARIADB_VARIABLES if connection.is_mariadb else _MYSQL_VARIABLES))
        database, *values = await wire.query(
            connection.stream, f"SELECT DATABASE(), {', '.join(f'@@SESSION.{name}' for name in names)}"
        )
        connection.database = database or ""
        connection.variables = {
            name: "NULL" if value is None else value for name, value in zip(names, values, strict=True)
        }
        return connection.variables

    def _drop_connection(self) -> None:
        if self.connection is not None and self._is_busy:
            self.connection.stream.abort()  # its client has left and waits for no answer

    def _write(self, data: bytes) -> None:
        self.stream.write(data)

    def _tell(self, refusal: Refusal) -> None:
        self._write(wire.error_packet(self._sequence + 1, refusal))


def _literal(value: str) -> str:
    return value if value.isdecimal() or value == "NULL" else "'" + value.replace("'", "''") + "'"
