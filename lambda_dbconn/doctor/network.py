"""The steps up to the socket: names, addresses, TCP."""

from __future__ import annotations

import errno
import socket
import time

from lambda_dbconn._values import TYPE_CHECKING
from lambda_dbconn.doctor import causes
from lambda_dbconn.doctor.report import Finding, StepFailedError
from lambda_dbconn.drivers import addresses
from lambda_dbconn.errors import ConfigurationError, ConnectError

if TYPE_CHECKING:
    from typing import Any

    from lambda_dbconn.settings import Settings

_UNREACHABLE = (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EADDRNOTAVAIL)
_OLD_SIDE = "this is the old side of a blue/green deployment, which takes no more writes: use the name without -old"


def classified(settings: Settings) -> Finding:
    """Say what the host's name says. No round trip."""
    endpoint = settings.endpoint
    behind = f", in truth {settings.signing_host}" if settings.signing_host else ""
    return Finding(
        found=f"{settings.address}: {endpoint.kind.value}{behind}",
        facts={
            "host": settings.host,
            "port": settings.port,
            "kind": endpoint.kind.name.lower(),
            "region": endpoint.region,
            "is_rds": endpoint.is_rds,
            "is_proxy_by_name": settings.is_proxy,
            "server_name": settings.server_name,
        },
        notes=(_OLD_SIDE,) if endpoint.deployment == "old" else (),
    )


def resolved(settings: Settings, timeout_s: float) -> tuple[Finding, list[str]]:
    """Look the host up; return its addresses, too.

    Raises:
        StepFailedError: It has none, or the resolver does not answer in time.
    """
    try:
        found = addresses.resolve(settings.host, settings.port, timeout_s)
    except (ConnectError, ConfigurationError) as error:
        raise StepFailedError(error.message, causes.of_dns(settings, is_temporary=error.retryable)) from error
    notes = []
    public = [address for address in found if not _is_private(address)]
    if public and settings.is_proxy:
        notes.append(
            f"{', '.join(public)} is public, but RDS Proxy never is: is another resolver asked than the VPC's?"
        )
    return Finding(found=", ".join(found), facts={"addresses": found}, notes=tuple(notes)), found


def connected(settings: Settings, found: list[str], timeout_s: float) -> tuple[Finding, socket.socket]:
    """Open a TCP connection to each address, and return the first one, too; each gets an equal share of the time.

    Raises:
        StepFailedError: None answers.
    """
    ends_at = time.monotonic() + timeout_s
    first: socket.socket | None = None
    tried: dict[str, Any] = {}
    failures: list[OSError] = []
    for left, address in zip(range(len(found), 0, -1), found, strict=True):
        began = time.monotonic()
        try:
            sock = socket.create_connection((address, settings.port), max(0.001, (ends_at - began) / left))
        except OSError as error:
            failures.append(error)
            tried[address] = _words(error)
            continue
        tried[address] = round((time.monotonic() - began) * 1000, 3)
        if first is None:
            first = sock
        else:
            sock.close()
    said = "; ".join(
        f"{address}: {outcome if isinstance(outcome, str) else f'{outcome:.1f} ms'}"
        for address, outcome in tried.items()
    )
    facts = {"port": settings.port, "addresses": tried}
    if first is None:
        raise StepFailedError(f"port {settings.port}: {said}", causes.of_tcp(settings, _kind(failures)), facts=facts)
    notes: tuple[str, ...] = ()
    if failures:
        notes = ("an address does not answer: the library waits for it once, then tries it last",)
    return Finding(found=f"port {settings.port}: {said}", facts=facts, notes=notes), first


def _is_private(address: str) -> bool:
    from ipaddress import ip_address

    return ip_address(address.partition("%")[0]).is_private


def _words(error: OSError) -> str:
    return "no answer" if isinstance(error, TimeoutError) else error.strerror or str(error)


def _kind(failures: list[OSError]) -> str:
    """Say what kind of failure it is; silence says the least, so it comes last."""
    if any(isinstance(error, ConnectionRefusedError) for error in failures):
        return "refused"
    if any(error.errno in _UNREACHABLE for error in failures):
        return "unreachable"
    if any(isinstance(error, ConnectionError) for error in failures):
        return "reset"
    return "silent"
