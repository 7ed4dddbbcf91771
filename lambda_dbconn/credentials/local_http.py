"""One HTTP GET to this machine, within one time limit and one size: the extension's, and the container's credentials.

Written out because an HTTP client's import is half of what the library may add to a cold start.
"""

from __future__ import annotations

import time

from lambda_dbconn._values import TYPE_CHECKING
from lambda_dbconn.errors import excerpt

if TYPE_CHECKING:
    import socket

OK = 200
_LONGEST_ANSWER_BYTES = 1_000_000  # a secret has 65,536 at most
_CHUNK_BYTES = 65536
_HEAD_END = b"\r\n\r\n"


class Answer:
    """An HTTP answer. Its body may be a secret, so it has no repr that shows it.

    Attributes:
        status: 0 when what came is no HTTP.
        body: All of it.
        summary: Status, content type and size, for messages.
    """

    __slots__ = ("body", "status", "summary")

    def __init__(self, received: bytes) -> None:
        head, _, self.body = received.partition(_HEAD_END)
        words = head.split(None, 2)
        is_http = len(words) > 1 and words[0].startswith(b"HTTP/") and words[1].isdigit()
        self.status = int(words[1]) if is_http and len(words[1]) == len(str(OK)) else 0
        kind = excerpt(_header(head, b"content-type").decode("latin-1")) or "no content type"
        self.summary = f"{self.status}, {kind}, {len(self.body)} bytes" if self.status else "something that is no HTTP"


def get(host: str, port: int, path: str, headers: str, *, limit_s: float) -> Answer:
    """Ask, and return the answer: connect, head and body within the limit, whatever the server does.

    Args:
        host: A name or number that needs no DNS.
        port: TCP port.
        path: As it is sent.
        headers: Lines that each end in CR LF; no value is escaped here.
        limit_s: Of it all.

    Raises:
        TimeoutError: The limit is over.
        OSError: There is no connection, or the answer is too long or was cut off.
    """
    ends_at = time.monotonic() + limit_s
    with _connected(host, port, ends_at) as link:
        link.sendall(f"GET {path} HTTP/1.0\r\nHost: {host}:{port}\r\n{headers}\r\n".encode(errors="surrogateescape"))
        received = b""
        while not _is_complete(received):
            link.settimeout(_left_s(ends_at))
            part = link.recv(_CHUNK_BYTES)
            if not part:
                break
            received += part
            if len(received) > _LONGEST_ANSWER_BYTES:
                raise OSError(f"the answer is longer than {_LONGEST_ANSWER_BYTES} bytes")
    if _length(received) is not None and not _is_complete(received):
        raise OSError("the answer was cut off")
    return Answer(received)


def _connected(host: str, port: int, ends_at: float) -> socket.socket:
    import socket

    failure = OSError(f"{host} has no address")
    for *_, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        left_s = _left_s(ends_at)
        try:
            return socket.create_connection(address[:2], timeout=left_s)  # type: ignore[arg-type] # both are host, port
        except OSError as exc:
            failure = exc
    raise failure


def _left_s(ends_at: float) -> float:
    left_s = ends_at - time.monotonic()
    if left_s <= 0:
        raise TimeoutError("timed out")
    return left_s


def _is_complete(received: bytes) -> bool:
    """Say whether the body is as long as the head says it is."""
    length = _length(received)
    return length is not None and len(received) - received.index(_HEAD_END) - len(_HEAD_END) >= length


def _length(received: bytes) -> int | None:
    """Return the length that the head gives; None when there is none, or not yet."""
    head, end, _ = received.partition(_HEAD_END)
    digits = _header(head, b"content-length") if end else b""
    return int(digits) if digits.isdigit() and len(digits) <= len(str(_LONGEST_ANSWER_BYTES)) else None


def _header(head: bytes, name: bytes) -> bytes:
    for line in head.split(b"\r\n")[1:]:
        key, _, value = line.partition(b":")
        if key.strip().lower() == name:
            return value.strip()
    return b""
