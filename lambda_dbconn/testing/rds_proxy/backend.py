"""What a proxy needs to know of the server behind it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pathlib import Path


class Backend(Protocol):
    """A server that a proxy can stand before: a `LocalServer` of one's own, or a `RunningServer`."""

    @property
    def engine(self) -> str:
        """`postgresql` or `mysql`."""

    @property
    def host(self) -> str:
        """Its name, which its certificate must be for."""

    @property
    def port(self) -> int:
        """Its TCP port."""

    @property
    def user(self) -> str:
        """Whom the proxy logs in as, unless it is given other secrets."""

    @property
    def password(self) -> str:
        """That user's password."""

    @property
    def ca_path(self) -> Path | None:
        """The authorities to trust for its certificate; None: the proxy speaks to it without TLS."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningServer:
    """A server that somebody else starts and stops; the attributes are those of `Backend`."""

    engine: str
    host: str
    port: int
    user: str
    password: str = field(repr=False)
    ca_path: Path | None = None
