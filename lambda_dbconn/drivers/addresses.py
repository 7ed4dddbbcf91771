"""A host's addresses, tried in turn within one time limit: what neither driver does by itself."""

from __future__ import annotations

import socket
import time

from lambda_dbconn.errors import ConfigurationError, ConnectError, ConnectTimeoutError
from lambda_dbconn.light import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

KEEPALIVE_IDLE_S = 60  # well under the 350 s after which NAT gateways and interface endpoints forget a flow
KEEPALIVE_INTERVAL_S = 10
KEEPALIVE_COUNT = 3
UNACKNOWLEDGED_LIMIT_MS = 15_000  # TCP_USER_TIMEOUT: keepalives do not bound data in flight, this does
_OF_THE_NETWORK = (ConnectError, ConnectTimeoutError)


def resolve(host: str, port: int) -> list[str]:
    """Return the host's IP addresses, in the resolver's order. The resolver's own time limits apply.

    Raises:
        ConnectError: It has none; `retryable` when the resolver says that a later try may do.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    except socket.gaierror as exc:
        raise ConnectError(
            f"cannot resolve the host {host!r}: {exc.strerror}",
            remedy="Check the spelling of HOST, and that the function's VPC can resolve it.",
            retryable=exc.errno == socket.EAI_AGAIN,
        ) from exc
    except (OSError, UnicodeError) as exc:  # a name that IDNA refuses is a UnicodeError
        raise ConfigurationError(f"the host {host!r} is not one that can be looked up: {exc}") from exc
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def first_that_opens(addresses: list[str], timeout_s: float, open_one: Callable[[str, float], T]) -> T:
    """Call `open_one(address, timeout_s)` for each address until one opens.

    A silent address gets an equal share of the time that is left, so that one dead address of two (RDS Proxy's
    default endpoint has two) does not cost the whole limit.

    Raises:
        ConnectError: The failure that says most, naming the other addresses that were tried: one that another try would
            not change, which ends the search; else what a server has said rather than the network; else the last.
    """
    ends_at = time.monotonic() + timeout_s
    failures: list[tuple[str, ConnectError]] = []
    for left, address in zip(range(len(addresses), 0, -1), addresses, strict=True):
        share_s = (ends_at - time.monotonic()) / left
        if share_s <= 0:
            break
        try:
            return open_one(address, share_s)
        except ConnectError as failure:
            failures.append((address, failure))
            if not failure.retryable:
                break
    if not failures:
        raise ConnectTimeoutError(f"no time left to connect to {', '.join(addresses)}")
    failures.sort(key=lambda failed: (not failed[1].retryable, type(failed[1]) not in _OF_THE_NETWORK))
    *others, (address, error) = failures
    if others:
        error.message += f" (at {address}; besides, " + "; ".join(f"{a}: {e.message}" for a, e in others) + ")"
    raise error
