"""PostgreSQL's protocol, version 3.0: its messages, and how to log in at a server.

Source: PostgreSQL documentation, "Frontend/Backend Protocol".
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from lambda_dbconn.testing.rds_proxy.pool import DatabaseConnection, DatabaseUnavailableError
from lambda_dbconn.testing.rds_proxy.scram import MECHANISM, ScramClient, md5_response
from lambda_dbconn.testing.rds_proxy.stream import Stream, StreamEndedError, connect_socket, receive_exactly
from lambda_dbconn.testing.rds_proxy.texts import refused

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping

    from lambda_dbconn.testing.rds_proxy.core import Target
    from lambda_dbconn.testing.rds_proxy.texts import Refusal

VERSION_3_0 = 196608
CANCEL_REQUEST = 80877102
TLS_REQUEST = 80877103
GSS_REQUEST = 80877104

AUTH_OK = 0
AUTH_CLEARTEXT = 3
AUTH_MD5 = 5
AUTH_SASL = 10
AUTH_SASL_CONTINUE = 11
AUTH_SASL_FINAL = 12

HEADER_BYTES = 5
READY_BYTES = 6
_STARTUP_BYTES = range(8, 10_000)

# The server is starting, stopping or full: others may find it in a better state.
_TEMPORARY_STATES = {"57P01", "57P02", "57P03", "53300"}


class PostgresConnection(DatabaseConnection):
    """A connection to PostgreSQL.

    Attributes:
        settings: What its start-up message asked for.
        parameters: What the server reported about itself.
        statements: Its named prepared statements: the messages that made them, by name.
    """

    settings: Mapping[str, str]
    parameters: dict[bytes, bytes]
    statements: dict[bytes, bytes]


def message(kind: bytes, body: bytes = b"") -> bytes:
    """Make a message."""
    return kind + struct.pack("!I", 4 + len(body)) + body


def error_message(refusal: Refusal, severity: str) -> bytes:
    """Make an ErrorResponse."""
    fields = {"S": severity, "V": severity, "C": refusal.state, "M": refusal.text}
    return message(b"E", b"".join(f"{name}{text}\0".encode() for name, text in fields.items()) + b"\0")


def auth_request(kind: int, body: bytes = b"") -> bytes:
    """Make an AuthenticationRequest."""
    return message(b"R", struct.pack("!I", kind) + body)


def parameter_status(name: bytes, value: bytes) -> bytes:
    """Make a ParameterStatus."""
    return message(b"S", name + b"\0" + value + b"\0")


def ready(status: bytes = b"I") -> bytes:
    """Make a ReadyForQuery."""
    return message(b"Z", status)


def startup_message(parameters: Mapping[str, str]) -> bytes:
    """Make a StartupMessage."""
    body = b"".join(f"{name}\0{value}\0".encode() for name, value in parameters.items()) + b"\0"
    return struct.pack("!II", 8 + len(body), VERSION_3_0) + body


async def read_message(stream: Stream) -> tuple[bytes, bytes]:
    """Read a message, which must fit in memory: its kind and its body."""
    header = await stream.read(HEADER_BYTES)
    return header[:1], await stream.read(int.from_bytes(header[1:], "big") - 4)


async def read_startup(sock: socket.socket, stream: Stream | None) -> tuple[int, bytes]:
    """Read a message of the kind that a connection begins with: its code and its body.

    Raises:
        StreamEndedError: The client has gone, or speaks something else, such as TLS from its first byte.
    """
    head = await stream.read(8) if stream else await receive_exactly(sock, 8)
    size, code = struct.unpack("!II", head)
    if size not in _STARTUP_BYTES:
        raise StreamEndedError
    return code, await stream.read(size - 8) if stream else await receive_exactly(sock, size - 8)


def startup_parameters(body: bytes) -> dict[str, str]:
    """Read what a StartupMessage asks for."""
    words = body.decode(errors="replace").split("\0")
    return dict(zip(words[0:-2:2], words[1:-1:2], strict=False))


def error_fields(body: bytes) -> dict[str, str]:
    """Read an ErrorResponse."""
    return {field[:1]: field[1:] for field in body.decode(errors="replace").split("\0") if field}


async def connect(
    target: Target, *, number: int, user: str, password: str, database: str, settings: Mapping[str, str]
) -> PostgresConnection:
    """Log in at a server.

    Raises:
        DatabaseUnavailableError: It does not answer, or not now.
        RefusedError: It does not let the user in.
    """
    try:
        stream = await _reach(target)
    except (OSError, StreamEndedError) as error:
        raise DatabaseUnavailableError from error
    try:
        stream.write(startup_message({"user": user, "database": database, **settings}))
        connection = PostgresConnection(number=number, stream=stream, user=user, database=database)
        connection.settings, connection.parameters, connection.statements = settings, {}, {}
        await _log_in(connection, password)
    except StreamEndedError as error:
        raise DatabaseUnavailableError from error
    except BaseException:
        stream.abort()
        raise
    return connection


async def _reach(target: Target) -> Stream:
    sock = await connect_socket(target.address, target.port)
    try:
        if target.tls is not None:
            sock.send(struct.pack("!II", 8, TLS_REQUEST))
            if await receive_exactly(sock, 1) != b"S":
                raise StreamEndedError
        return await Stream.connected(sock, target.tls, target.host)
    except BaseException:
        sock.close()
        raise


async def _log_in(connection: PostgresConnection, password: str) -> None:
    stream, scram = connection.stream, ScramClient(password)
    while True:
        kind, body = await read_message(stream)
        if kind == b"R":
            answer = _auth_answer(int.from_bytes(body[:4], "big"), body[4:], connection.user, password, scram)
            if answer:
                stream.write(message(b"p", answer))
        elif kind == b"S":
            name, value, _ = body.split(b"\0")
            connection.parameters[name] = value
        elif kind == b"E":
            raise _refusal(error_fields(body))
        elif kind == b"Z":
            return


def _auth_answer(kind: int, data: bytes, user: str, password: str, scram: ScramClient) -> bytes:
    match kind:
        case 3:
            return password.encode() + b"\0"
        case 5:
            return md5_response(user, password, data) + b"\0"
        case 10:
            first = scram.first()
            return MECHANISM + b"\0" + struct.pack("!I", len(first)) + first
        case 11:
            return scram.final(data)
        case 0 | 12:
            return b""
    raise refused("postgresql", "database_error", error=f"unknown authentication request {kind}")


def _refusal(fields: Mapping[str, str]) -> Exception:
    if fields["C"] in _TEMPORARY_STATES:
        return DatabaseUnavailableError(fields["M"])
    return refused("postgresql", "database_error", error=fields["M"].rstrip("."))
