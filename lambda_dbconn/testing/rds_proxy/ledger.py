"""What the proxy remembers for those who ask: counters, each session's requests, and a log."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_LONGEST_TEXT = 2_000
_SESSIONS_KEPT = 1_000
_REQUESTS_KEPT = 1_000
_LOG_LINES_KEPT = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """Counts since the proxy was made, and what is open now.

    Attributes:
        logins: Clients let in.
        refused: Clients not let in, by the text that they were told.
        borrows: Database connections lent to a session.
        borrow_timeouts: Requests for one that waited in vain.
        pins: Sessions pinned, by reason.
        client_connections: Now.
        most_client_connections: At most, at the same time.
        database_connections: Now.
        most_database_connections: At most, at the same time.
        borrowed_connections: Database connections lent now, pinned ones among them.
    """

    logins: int
    refused: Mapping[str, int]
    borrows: int
    borrow_timeouts: int
    pins: Mapping[str, int]
    client_connections: int
    most_client_connections: int
    database_connections: int
    most_database_connections: int
    borrowed_connections: int


@dataclass(frozen=True, slots=True)
class Request:
    """One message from a client.

    Attributes:
        kind: Its name in the protocol: `Query`, `Parse`, `Bind`, `COM_QUERY`, `COM_PING`.
        text: Its SQL, up to 2,000 characters, or the name of the statement that it is about.
    """

    kind: str
    text: str = ""


@dataclass(slots=True, kw_only=True)
class SessionRecord:
    """A client's session.

    Attributes:
        number: As `clientConnection` in the log.
        user: Who logged in.
        database: Where.
        parameters: What a PostgreSQL client's start-up message asked for besides.
        statements: The newest thousand requests, oldest first.
        pin_reason: Why it is pinned, or None.
        is_open: Whether it goes on.
    """

    number: int
    user: str
    database: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    statements: deque[Request] = field(default_factory=lambda: deque(maxlen=_REQUESTS_KEPT))
    pin_reason: str | None = None
    is_open: bool = True

    def note(self, kind: str, text: bytes = b"") -> None:
        """Remember a request."""
        self.statements.append(Request(kind, text[:_LONGEST_TEXT].decode(errors="replace")))


class Ledger:
    """Counts and keeps; used by the proxy's own thread only.

    Args:
        on_line: Called with each line that is added to the log.
    """

    def __init__(self, *, on_line: Callable[[str], None] | None = None) -> None:
        self._on_line = on_line
        self.logins = self.borrows = self.borrow_timeouts = 0
        self.clients = self.most_clients = self.most_database_connections = 0
        self.refused: Counter[str] = Counter()
        self.pins: Counter[str] = Counter()
        self.sessions: deque[SessionRecord] = deque(maxlen=_SESSIONS_KEPT)
        self.log: deque[str] = deque(maxlen=_LOG_LINES_KEPT)
        self._next_number = 1

    def new_number(self) -> int:
        """Number a connection, of a client or to the database."""
        self._next_number += 1
        return self._next_number - 1

    def client_came(self) -> None:
        """Count a client's connection."""
        self.clients += 1
        self.most_clients = max(self.most_clients, self.clients)

    def client_left(self) -> None:
        """Stop counting it."""
        self.clients -= 1

    def write(self, level: str, client: int, text: str) -> None:
        """Add a line to the log, in the form of RDS Proxy's own."""
        line = f"[{level}] [proxyEndpoint=default] [clientConnection={client}] {text}"
        self.log.append(line)
        if self._on_line is not None:
            self._on_line(line)

    def stats(self, *, open_count: int, borrowed_count: int) -> Stats:
        """Take a snapshot."""
        return Stats(
            logins=self.logins,
            refused=dict(self.refused),
            borrows=self.borrows,
            borrow_timeouts=self.borrow_timeouts,
            pins=dict(self.pins),
            client_connections=self.clients,
            most_client_connections=self.most_clients,
            database_connections=open_count,
            most_database_connections=self.most_database_connections,
            borrowed_connections=borrowed_count,
        )
