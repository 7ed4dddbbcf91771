"""MySQL's protocol: its packets, and how to log in at a server.

Source: MySQL source documentation, "Client/Server Protocol"; MariaDB knowledge base, the same. The newer form of
result sets without EOF packets is not offered to clients nor asked of servers, so there is one form to understand.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lambda_dbconn.testing.rds_proxy.pool import DatabaseConnection, DatabaseUnavailableError
from lambda_dbconn.testing.rds_proxy.stream import Stream, StreamEndedError, connect_socket, receive_exactly
from lambda_dbconn.testing.rds_proxy.texts import Refusal, RefusedError, refused

if TYPE_CHECKING:
    import socket

    from lambda_dbconn.testing.rds_proxy.core import Target

NATIVE = "mysql_native_password"
CACHING_SHA2 = "caching_sha2_password"
CLEAR = "mysql_clear_password"

CONNECT_WITH_DB = 0x8
TLS = 0x800
PLUGIN_LENENC = 0x200000
_ATTRIBUTES = 0x100000
_PROTOCOL = 0x200 | 0x8000 | 0x80000  # the protocol of 4.1, with its authentication by plugins
# What is passed on to the server as the client asked for it: long passwords and flags, found rows, local files,
# ignored spaces, interactive, transactions, and several statements and results.
PASSED_ON = 0x1 | 0x2 | 0x4 | 0x80 | 0x100 | 0x400 | 0x2000 | 0x10000 | 0x20000 | 0x40000
OFFERED = PASSED_ON | _PROTOCOL | CONNECT_WITH_DB | TLS | PLUGIN_LENENC | _ATTRIBUTES

OK, LOCAL_FILE, EOF, ERROR = 0x00, 0xFB, 0xFE, 0xFF
IN_TRANSACTION, AUTOCOMMIT, MORE_RESULTS, CURSOR_EXISTS = 0x1, 0x2, 0x8, 0x40

HEADER_BYTES = 4
LONGEST_PACKET_BYTES = 0xFFFFFF  # as long as this means that the next packet continues it
_MAX_PACKET = 1 << 30
_EOF_BYTES = 9  # shorter than this, or it is a row

_TEMPORARY_NUMBERS = {1040, 1053, 1203}  # the server is full or stopping


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientHello:
    """What a client says of itself.

    Attributes:
        capabilities: Its flags.
        charset: The number of its character set and collation.
    """

    capabilities: int
    charset: int
    user: str = ""
    answer: bytes = b""
    database: str = ""
    plugin: str = ""


class MySqlConnection(DatabaseConnection):
    """A connection to MySQL or MariaDB.

    Attributes:
        flags: The capabilities and the character set that it was opened with.
        fresh: The tracked variables as they were then.
        variables: As they are now.
    """

    flags: tuple[int, int]
    fresh: dict[str, str]
    variables: dict[str, str]
    is_mariadb: bool


def packet(sequence: int, body: bytes) -> bytes:
    """Make a packet."""
    return struct.pack("<I", len(body) | (sequence & 0xFF) << 24) + body


def error_packet(sequence: int, refusal: Refusal) -> bytes:
    """Make an ERR packet."""
    body = b"\xff" + struct.pack("<H", refusal.number) + f"#{refusal.state}{refusal.text}".encode()
    return packet(sequence, body)


def ok_packet(sequence: int) -> bytes:
    """Make the OK packet that ends a login."""
    return packet(sequence, struct.pack("<BBBHH", 0, 0, 0, AUTOCOMMIT, 0))


def greeting(number: int, version: str, plugin: str, salt: bytes, capabilities: int) -> bytes:
    """Make the packet with which a server begins."""
    low, high = capabilities & 0xFFFF, capabilities >> 16
    body = b"\x0a" + version.encode() + b"\0" + struct.pack("<I", number) + salt[:8] + b"\0"
    body += struct.pack("<HBHHB", low, 45, AUTOCOMMIT, high, len(salt) + 1) + bytes(10)  # 45: utf8mb4
    return packet(0, body + salt[8:] + b"\0" + plugin.encode() + b"\0")


async def read_packet(stream: Stream) -> tuple[int, bytes]:
    """Read a packet, which must fit in memory: its sequence number and its body."""
    header = await stream.read(HEADER_BYTES)
    return header[3], await stream.read(int.from_bytes(header[:3], "little"))


async def receive_packet(sock: socket.socket) -> tuple[int, bytes]:
    """Read a packet from a socket, and not a byte more."""
    header = await receive_exactly(sock, HEADER_BYTES)
    return header[3], await receive_exactly(sock, int.from_bytes(header[:3], "little"))


def length_encoded(body: bytes, at: int) -> tuple[int, int]:
    """Read a length-encoded number: it, and where it ends."""
    first = body[at]
    size = {0xFC: 2, 0xFD: 3, 0xFE: 8}.get(first, 0)
    return (int.from_bytes(body[at + 1 : at + 1 + size], "little"), at + 1 + size) if size else (first, at + 1)


def ok_status(body: bytes) -> int:
    """Read the server's status from an OK packet."""
    _, at = length_encoded(body, 1)
    _, at = length_encoded(body, at)
    return int.from_bytes(body[at : at + 2], "little")


def eof_status(body: bytes) -> int:
    """Read the server's status from an EOF packet."""
    return int.from_bytes(body[3:5], "little")


def is_eof(body: bytes, size: int) -> bool:
    """Say whether a packet of this size is an EOF packet rather than a row."""
    return body[:1] == b"\xfe" and size < _EOF_BYTES


def parse_hello(body: bytes) -> ClientHello:
    """Read a HandshakeResponse, or the request for TLS that is its beginning."""
    capabilities, _, charset = struct.unpack_from("<IIB", body)
    if len(body) <= 32:  # noqa: PLR2004 - all that the request for TLS has
        return ClientHello(capabilities=capabilities, charset=charset)
    user, _, rest = body[32:].partition(b"\0")
    size, at = length_encoded(rest, 0) if capabilities & PLUGIN_LENENC else (rest[0], 1)
    answer, rest = rest[at : at + size], rest[at + size :]
    database = b""
    if capabilities & CONNECT_WITH_DB:
        database, _, rest = rest.partition(b"\0")
    return ClientHello(
        capabilities=capabilities,
        charset=charset,
        user=user.decode(errors="replace"),
        answer=answer,
        database=database.decode(errors="replace"),
        plugin=rest.partition(b"\0")[0].decode(errors="replace"),
    )


def scramble(plugin: str, password: str, salt: bytes) -> bytes:
    """Return what a client answers to a salt; empty for a plugin that is not known here."""
    if not password or plugin not in (NATIVE, CACHING_SHA2):
        return b""
    name = "sha1" if plugin == NATIVE else "sha256"

    def digest(data: bytes) -> bytes:
        return hashlib.new(name, data, usedforsecurity=False).digest()

    once = digest(password.encode())
    twice = digest(once)
    mask = digest(salt + twice) if plugin == NATIVE else digest(twice + salt)
    return bytes(a ^ b for a, b in zip(once, mask, strict=True))


async def connect(
    target: Target, *, number: int, user: str, password: str, database: str, flags: tuple[int, int]
) -> MySqlConnection:
    """Log in at a server.

    Raises:
        DatabaseUnavailableError: It does not answer, or not now.
        RefusedError: It does not let the user in.
    """
    try:
        sock = await connect_socket(target.address, target.port)
    except OSError as error:
        raise DatabaseUnavailableError from error
    stream = None
    try:
        _, hello = await receive_packet(sock)
        if hello[:1] == b"\xff":
            raise _refusal(hello)
        version, _, rest = hello[1:].partition(b"\0")
        salt, plugin = rest[4:12] + rest[31:43], rest[44:].partition(b"\0")[0]
        # A server believes the flags of the request for TLS, so they are the same in both packets.
        capabilities = flags[0] & PASSED_ON | _PROTOCOL | (CONNECT_WITH_DB if database else 0)
        capabilities |= TLS if target.tls is not None else 0
        start = struct.pack("<IIB23x", capabilities, _MAX_PACKET, flags[1])
        if target.tls is not None:
            sock.send(packet(1, start))
        stream = await Stream.connected(sock, target.tls, target.host)
        answer = scramble(plugin.decode(), password, salt)
        names = [user.encode() + b"\0", bytes([len(answer)]) + answer, database.encode() + b"\0" if database else b""]
        stream.write(packet(1 if target.tls is None else 2, start + b"".join([*names, plugin, b"\0"])))
        await _log_in(stream, password, is_tls=target.tls is not None)
    except BaseException as error:
        (stream.abort if stream else sock.close)()
        if isinstance(error, (OSError, StreamEndedError)):
            raise DatabaseUnavailableError from error
        raise
    connection = MySqlConnection(number=number, stream=stream, user=user, database=database)
    connection.flags, connection.is_mariadb = flags, b"MariaDB" in version
    return connection


async def _log_in(stream: Stream, password: str, *, is_tls: bool) -> None:
    while True:
        sequence, body = await read_packet(stream)
        if body[0] == OK:
            return
        if body[0] == ERROR:
            raise _refusal(body)
        answer = None
        if body[0] == EOF:  # another plugin
            plugin, _, salt = body[1:].partition(b"\0")
            answer = scramble(plugin.decode(), password, salt[:20])
        elif body[1:2] == b"\x04":  # caching_sha2_password does not know this password yet
            if not is_tls:
                raise refused("mysql", "database_error", error="the database wants the password in clear, without TLS")
            answer = password.encode() + b"\0"
        if answer is not None:
            stream.write(packet(sequence + 1, answer))


def _refusal(body: bytes) -> Exception:
    refusal = parse_error(body)
    if refusal.number in _TEMPORARY_NUMBERS:
        return DatabaseUnavailableError(refusal.text)
    return RefusedError(refusal)


def parse_error(body: bytes) -> Refusal:
    """Read an ERR packet."""
    number = int.from_bytes(body[1:3], "little")
    state, text = (body[4:9], body[9:]) if body[3:4] == b"#" else (b"HY000", body[3:])
    return Refusal(number=number, state=state.decode(), text=text.decode(errors="replace"))


async def query(stream: Stream, sql: str) -> list[str | None]:
    """Run a statement of the proxy's own, and return its row, if it has one.

    Raises:
        RefusedError: The server does not like it.
    """
    stream.write(packet(0, b"\x03" + sql.encode()))
    _, body = await read_packet(stream)
    if body[0] == ERROR:
        raise RefusedError(parse_error(body))
    if body[0] == OK:
        return []
    bodies: list[bytes] = []
    ends = 0
    while ends < 2:  # noqa: PLR2004 - after the columns and after the rows
        _, body = await read_packet(stream)
        if is_eof(body, len(body)):
            ends += 1
        elif ends:
            bodies.append(body)
    return _values(bodies[0])


async def ping(stream: Stream) -> int:
    """Ask a server for its status."""
    stream.write(packet(0, b"\x0e"))
    _, body = await read_packet(stream)
    return ok_status(body)


def _values(row: bytes) -> list[str | None]:
    values: list[str | None] = []
    at = 0
    while at < len(row):
        if row[at] == LOCAL_FILE:  # in a row, NULL
            values.append(None)
            at += 1
            continue
        size, at = length_encoded(row, at)
        values.append(row[at : at + size].decode(errors="replace"))
        at += size
    return values
