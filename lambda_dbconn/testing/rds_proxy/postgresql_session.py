"""A PostgreSQL client's session: login, and a database connection for each transaction."""

from __future__ import annotations

import asyncio
import secrets
import struct
import traceback
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from lambda_dbconn.testing.rds_proxy import postgresql_wire as wire
from lambda_dbconn.testing.rds_proxy.pinning import LONGEST_TEXT_BYTES, TOO_LONG, pin_reason
from lambda_dbconn.testing.rds_proxy.scram import MECHANISM, ScramError, ScramServer, md5_response
from lambda_dbconn.testing.rds_proxy.session import Session
from lambda_dbconn.testing.rds_proxy.stream import Relay, Stream, StreamEndedError
from lambda_dbconn.testing.rds_proxy.texts import RefusedError, refused

if TYPE_CHECKING:
    import socket

    from lambda_dbconn.testing.rds_proxy.core import Core
    from lambda_dbconn.testing.rds_proxy.postgresql_wire import PostgresConnection
    from lambda_dbconn.testing.rds_proxy.texts import Refusal

# A little more than the longest text that does not pin, for a statement's name and its parameters' types.
_INSPECTED_BYTES = LONGEST_TEXT_BYTES + 4096

_ACCEPTED_NAMES = (
    *("user", "database", "application_name", "client_encoding", "DateStyle", "TimeZone"),
    *("extra_float_digits", "search_path"),
)
_ACCEPTED = {name.lower(): name for name in _ACCEPTED_NAMES}
_KINDS = {
    b"Q": "Query",
    b"P": "Parse",
    b"B": "Bind",
    b"D": "Describe",
    b"E": "Execute",
    b"C": "Close",
    b"S": "Sync",
    b"H": "Flush",
    b"F": "FunctionCall",
    b"c": "CopyDone",
    b"f": "CopyFail",
}


class _Expected(NamedTuple):
    """An answer that the server owes."""

    kind: bytes  # of the request: a query, a sync, or a change to a prepared statement
    name: bytes = b""
    message: bytes = b""


class PostgresSession(Session):
    """Sits between a client and whichever database connection it has.

    The database connection goes back when the server says that it is ready, in no transaction, and has answered
    all that was asked. Named prepared statements are made again on the next one.
    """

    def __init__(self, core: Core, sock: socket.socket) -> None:
        super().__init__(core, sock)
        self.connection: PostgresConnection | None = None
        self._settings: dict[str, str] = {}
        self._told: dict[bytes, bytes] = {}
        self._statements: dict[bytes, bytes] = {}
        self._expected: deque[_Expected] = deque()
        self._is_unsynced = False
        self._is_broken = False
        self._answering: asyncio.Task[None] | None = None
        self._is_whole = asyncio.Event()  # whether what was passed on ends with the end of a message
        self._is_whole.set()

    @property
    def is_busy(self) -> bool:
        """Whether the client waits for an answer, or has not yet asked for one."""
        return bool(self._expected) or self._is_unsynced

    # Login.

    async def _greet(self) -> bool:
        is_tls = False
        while True:
            code, body = await wire.read_startup(self._sock, self._stream)
            if code == wire.CANCEL_REQUEST:
                return False  # not supported, and not answered in any case
            if code == wire.TLS_REQUEST and not is_tls:
                self._sock.send(b"S")
                self._stream = await Stream.accepted(self._sock, self.core.client_tls)
                is_tls = True
            elif code == wire.GSS_REQUEST and not is_tls:
                self._sock.send(b"N")
            else:
                break
        if self._stream is None:
            self._stream = await Stream.accepted(self._sock, None)
        parameters = wire.startup_parameters(body)
        self._startup = (code, parameters, is_tls)
        self.record.user = parameters.get("user", "")
        return True

    async def _log_in(self) -> None:
        code, parameters, is_tls = self._startup
        self._check_startup(code, parameters, is_tls=is_tls)
        user = parameters.pop("user")
        self.record.database = parameters.pop("database", user)
        self.record.parameters = self._settings = {_ACCEPTED[name.lower()]: parameters[name] for name in parameters}
        if self.core.options.is_read_only:
            self._settings = {**self._settings, "default_transaction_read_only": "on"}
        await self._begin_request()
        await self._authenticate(user, self.core.password_of(user))
        # Of all settings only the name differs from client to client, and is what the client says.
        name = self._settings.get("application_name", "")
        others = frozenset(self._settings.items() - {("application_name", name)})
        known, key = self.core.known, (user, self.record.database, others)
        if key not in known:
            await self._borrow()
            assert self.connection is not None
            known[key] = self.connection.parameters
            self._give_back()
        self._told = {**known[key], b"application_name": name.encode()}
        status = b"".join(wire.parameter_status(name, value) for name, value in self._told.items())
        cancel_key = struct.pack("!I", self.record.number) + secrets.token_bytes(4)
        self.stream.write(wire.auth_request(wire.AUTH_OK) + status + wire.message(b"K", cancel_key) + wire.ready())

    def _check_startup(self, code: int, parameters: dict[str, str], *, is_tls: bool) -> None:
        if not is_tls and self.core.options.is_tls_required:
            raise refused("postgresql", "tls_required")
        if not is_tls and self.core.options.auth == "iam":
            raise refused("postgresql", "iam_needs_tls")
        if code != wire.VERSION_3_0:
            raise refused("postgresql", "protocol_version")
        for name in parameters:
            if name == "options":
                raise refused("postgresql", "command_line_options")
            if name == "replication":
                raise refused("postgresql", "replication")
            if name.lower() not in _ACCEPTED:
                raise refused("postgresql", "startup_option", option=name)
        if not parameters.get("user"):
            raise refused("postgresql", "user_missing")

    async def _authenticate(self, user: str, password: str) -> None:
        if self.core.options.auth == "iam":
            token = await self._ask(wire.auth_request(wire.AUTH_CLEARTEXT))
            self.core.verify_token(self.record.number, user, token.rstrip(b"\0").decode(errors="replace"))
            return
        try:
            if self.core.options.password_auth == "md5":
                salt = secrets.token_bytes(4)
                answer = await self._ask(wire.auth_request(wire.AUTH_MD5, salt))
                is_right = secrets.compare_digest(answer.rstrip(b"\0"), md5_response(user, password, salt))
            else:
                is_right = await self._authenticate_by_scram(ScramServer(password))
        except (ScramError, ValueError, KeyError):
            is_right = False
        if not is_right:
            raise refused("postgresql", "wrong_password", user=user)

    async def _authenticate_by_scram(self, scram: ScramServer) -> bool:
        answer = await self._ask(wire.auth_request(wire.AUTH_SASL, MECHANISM + b"\0\0"))
        mechanism, _, rest = answer.partition(b"\0")
        if mechanism != MECHANISM:
            return False
        challenge = scram.challenge(rest[4:])
        answer = await self._ask(wire.auth_request(wire.AUTH_SASL_CONTINUE, challenge))
        self.stream.write(wire.auth_request(wire.AUTH_SASL_FINAL, scram.verify(answer)))
        return True

    async def _ask(self, request: bytes) -> bytes:
        self.stream.write(request)
        kind, body = await self._hear(wire.read_message(self.stream))
        if kind != b"p":
            raise StreamEndedError
        return body

    # Requests.

    async def _serve(self) -> None:
        requests = Relay(self.stream)
        try:
            while True:
                header = await requests.peek(wire.HEADER_BYTES)
                kind, size = header[:1], 1 + int.from_bytes(header[1:], "big")
                if kind == b"X":
                    await requests.flush()
                    return
                head = await requests.peek(min(size, _INSPECTED_BYTES)) if kind in _KINDS else header
                if await self._prepare(requests, kind, head, size):
                    self._is_whole.clear()
                    await requests.pass_on(size)
                    self._is_whole.set()
        finally:
            if self._answering is not None:
                self._answering.cancel()
                await asyncio.wait([self._answering])

    async def _prepare(self, requests: Relay, kind: bytes, head: bytes, size: int) -> bool:
        """Make everything ready for a message to be passed on; False if it has been dealt with."""
        if not self.is_busy:
            await self._begin_request()
        self._note(kind, head)
        if self._is_broken:
            raise refused("postgresql", "terminated")
        if self.connection is None:
            # Nothing to synchronise, or the rest of a COPY that has failed, which a server ignores: nobody to ask.
            if kind in b"SHdcf" and not self.is_busy:
                await requests.drop(size)
                self._write(wire.ready() if kind == b"S" else b"")
                return False
            try:
                await self._borrow_for(requests, kind, head)
            except RefusedError as error:
                await self._answer_without_database(requests, error.refusal)
                return False
        assert self.connection is not None
        requests.destination = self.connection.stream
        self._expect(kind, head, size)
        return True

    async def _borrow_for(self, requests: Relay, kind: bytes, head: bytes) -> None:
        await self._borrow()
        assert self.connection is not None
        is_bind, is_describe = kind == b"B", kind == b"D"
        needs_unnamed = (is_bind and _strings(head, 2)[1] == b"") or (is_describe and head[5:7] == b"S\0")
        await self._bring_statements(self.connection, needs_unnamed=needs_unnamed)
        for name, value in self.connection.parameters.items():
            if self._told.get(name) != value:
                self._told[name] = value
                self._write(wire.parameter_status(name, value))
        self._answering = asyncio.create_task(self._answer(self.connection, requests))

    def _fits(self, connection: PostgresConnection) -> bool:
        return (connection.user, connection.database, connection.settings) == (
            self.record.user,
            self.record.database,
            self._settings,
        )

    async def _connect(self) -> PostgresConnection:
        return await wire.connect(
            self.core.target,
            number=self.core.ledger.new_number(),
            user=self.record.user,
            password=self.core.password_of(self.record.user),
            database=self.record.database,
            settings=self._settings,
        )

    async def _bring_statements(self, connection: PostgresConnection, *, needs_unnamed: bool) -> None:
        """Make the connection's prepared statements this session's."""
        wanted = {name: made for name, made in self._statements.items() if name or needs_unnamed}
        surplus = [name for name, made in connection.statements.items() if wanted.get(name) != made]
        missing = [name for name, made in wanted.items() if connection.statements.get(name) != made]
        sync = wire.message(b"S")
        changes = [wire.message(b"C", b"S" + name + b"\0") + sync for name in surplus]
        connection.stream.write(b"".join(changes + [wanted[name] + sync for name in missing]))
        for name in surplus:
            await self._is_done(connection)
            del connection.statements[name]
        for name in missing:
            # One that fails now, its table being gone, is missing when it is used; the server then says so.
            if await self._is_done(connection) and name:
                connection.statements[name] = wanted[name]

    async def _is_done(self, connection: PostgresConnection) -> bool:
        is_valid = True
        while True:
            kind, _ = await wire.read_message(connection.stream)
            is_valid &= kind != b"E"
            if kind == b"Z":
                return is_valid

    async def _answer_without_database(self, requests: Relay, refusal: Refusal) -> None:
        """Let a request fail as the server would: an error, and nothing else up to the next point of safety."""
        self._write(wire.error_message(refusal, "ERROR"))
        while True:
            header = await requests.peek(wire.HEADER_BYTES)
            await requests.drop(1 + int.from_bytes(header[1:], "big"))
            if header[:1] in b"QFS":
                self._write(wire.ready())
                return
            if header[:1] == b"X":
                raise StreamEndedError

    def _note(self, kind: bytes, head: bytes) -> None:
        if kind not in _KINDS:
            return
        match kind:
            case b"Q":
                text = head[5:].rstrip(b"\0")
            case b"P":
                text = _strings(head, 2)[1]
            case b"B":
                text = _strings(head, 2)[1]
            case b"D" | b"C":
                text = head[6:].rstrip(b"\0")
            case _:
                text = b""
        self.record.note(_KINDS[kind], text)

    def _expect(self, kind: bytes, head: bytes, size: int) -> None:
        """Take note of what the server will answer, and of what pins, before it can."""
        match kind:
            case b"Q" | b"F":
                self._expected.append(_Expected(kind))
            case b"S":
                self._expected.append(_Expected(kind))
                self._is_unsynced = False
            case b"P" | b"C":
                is_statement = kind == b"P" or head[5:6] == b"S"
                name = _strings(head, 1)[0] if kind == b"P" else head[6:].rstrip(b"\0")
                self._expected.append(_Expected(kind if is_statement else b"-", name, head if kind == b"P" else b""))
                self._is_unsynced = True
            case b"B" | b"D" | b"E":  # a flush needs no sync after it
                self._is_unsynced = True
        if kind in b"QP" and self.record.pin_reason is None:
            text = head[5:].rstrip(b"\0") if kind == b"Q" else _strings(head, 2)[1]
            reason = TOO_LONG if size > _INSPECTED_BYTES else pin_reason("postgresql", text)
            if reason is not None:
                self._pin(reason)

    # Answers.

    async def _answer(self, connection: PostgresConnection, requests: Relay) -> None:
        """Hand on what the server says until the connection can go back."""
        answers = Relay(connection.stream, self.stream)
        kind = b""
        try:
            while True:
                header = await answers.peek(wire.HEADER_BYTES)
                kind, size = header[:1], 1 + int.from_bytes(header[1:], "big")
                if kind == b"E" and not self.is_busy:
                    raise StreamEndedError  # the server ends an idle session; the client hears of it when it asks
                ready = await answers.peek(size) if kind == b"Z" else b""
                await answers.pass_on(size)
                self._take_note(connection, kind)
                if ready and not self.is_busy:
                    self._end_request()
                    if ready[5:] == b"I" and self.record.pin_reason is None:
                        await self._finish_request(requests, answers)
                        if not self.is_busy:
                            self._give_back()
                            self._write(answers.unsent())
                            return
        except StreamEndedError:
            await answers.flush()
            self._lose_connection(has_been_told=kind == b"E")
        except Exception:  # noqa: BLE001 - nobody else would see it
            self._log("ERROR", traceback.format_exc())
            self.stream.abort()

    async def _finish_request(self, requests: Relay, answers: Relay) -> None:
        """Let the rest of a COPY that has failed go where it belongs, rather than to the connection's next user."""
        if not self._is_whole.is_set():
            await answers.flush()
            await self._is_whole.wait()
        await requests.flush()

    def _take_note(self, connection: PostgresConnection, kind: bytes) -> None:
        expected = self._expected
        match kind:
            case b"1" | b"3":
                change = expected.popleft()
                if change.kind == b"P":
                    self._statements[change.name] = change.message
                    if change.name:
                        connection.statements[change.name] = change.message
                elif change.kind == b"C":
                    self._statements.pop(change.name, None)
                    connection.statements.pop(change.name, None)
            case b"Z":
                while expected.popleft().kind not in b"QFS":  # after an error, what it has skipped
                    pass
            case b"G" if expected and expected[0].kind == b"S":
                # COPY by the extended protocol: the server ignores this one, the client sends another at the end.
                expected.popleft()
                self._is_unsynced = True

    def _lose_connection(self, *, has_been_told: bool) -> None:
        self._is_broken = True
        self._log("WARN", "The database connection closed.")
        if self.is_busy:
            if not has_been_told:
                self._tell(refused("postgresql", "terminated").refusal)
            self.stream.close()

    def _write(self, data: bytes) -> None:
        self.stream.write(data)

    def _tell(self, refusal: Refusal) -> None:
        self._write(wire.error_message(refusal, "FATAL"))


def _strings(head: bytes, count: int) -> list[bytes]:
    """Read the zero-terminated strings that a message begins with."""
    return head[5:].split(b"\0", count)[:count]
