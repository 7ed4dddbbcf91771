"""A host's addresses, tried in turn within one time limit: what neither driver does by itself."""

from __future__ import annotations

import errno
import os
import socket
import time

from lambda_dbconn._resolver import descriptors_are_used_up, is_temporary, look_up
from lambda_dbconn._values import TYPE_CHECKING, TypeVar
from lambda_dbconn.errors import ConfigurationError, ConnectError, ConnectTimeoutError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

T = TypeVar("T")

KEEPALIVE_IDLE_S = 60  # well under the 350 s after which NAT gateways and interface endpoints forget a flow
KEEPALIVE_INTERVAL_S = 10
KEEPALIVE_COUNT = 3
UNACKNOWLEDGED_LIMIT_MS = 15_000  # TCP_USER_TIMEOUT: keepalives do not bound data in flight, this does
_OF_THE_NETWORK = (ConnectError, ConnectTimeoutError)
_MOST_HOSTS = 100  # whose silent addresses are remembered

_MISSPELT = "Check the spelling of HOST, and that the function's VPC can resolve it."
_NO_RESOLVER = "Retry. If it goes on, check that the VPC's DNS resolver can be reached (enableDnsSupport)."
_DESCRIPTORS = "Close what the function leaves open, files, sockets and SDK clients: see `ls -l /proc/self/fd`."

_silent: dict[tuple[str, int], frozenset[str]] = {}  # addresses that did not answer when they were last tried


def forget() -> None:
    """Forget which addresses did not answer: after a restore from a snapshot the network is another one."""
    _silent.clear()


os.register_at_fork(after_in_child=forget)


def resolve(host: str, port: int, timeout_s: float) -> list[str]:
    """Return the host's IP addresses, in the resolver's order. An IP address costs no look-up.

    Raises:
        ConnectTimeoutError: The resolver does not answer in time.
        ConnectError: There is none; `retryable` when a later look-up may succeed.
        ConfigurationError: The host is not a name that DNS can have.
    """
    tcp = host, port, 0, socket.SOCK_STREAM, socket.IPPROTO_TCP
    try:
        found = _as_number(tcp) or look_up(socket.getaddrinfo, *tcp, timeout_s=timeout_s)
    except TimeoutError as exc:
        raise ConnectTimeoutError(f"cannot resolve the host {host!r}: {exc}", remedy=_NO_RESOLVER) from exc
    except OSError as exc:
        raise _failure(host, exc) from exc
    except UnicodeError as exc:  # a name that IDNA refuses
        raise ConfigurationError(f"the host {host!r} is not one that can be looked up: {exc}") from exc
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def first_that_opens(host: str, port: int, timeout_s: float, open_one: Callable[[str, float], T]) -> T:
    """Resolve the host and call `open_one(address, timeout_s)` for each address until one opens.

    A silent address gets an equal share of the time that is left, so that one dead address of two (RDS Proxy's
    default endpoint has two) does not cost the whole limit. Next time it is tried last, until it answers again or
    DNS no longer names it.

    Raises:
        ConnectError: The host has no address, as in `resolve`; or the failure that says most, naming the other
            addresses that were tried: one that another try would not change, which ends the search; else what a server
            has said rather than the network; else the last.
        ConfigurationError: The host is not a name that DNS can have.
    """
    ends_at = time.monotonic() + timeout_s
    addresses = resolve(host, port, timeout_s)
    silent = _silent.get((host, port), frozenset()).intersection(addresses)
    failures: list[tuple[str, ConnectError]] = []
    try:
        for left, address in zip(range(len(addresses), 0, -1), sorted(addresses, key=silent.__contains__), strict=True):
            share_s = (ends_at - time.monotonic()) / left
            if share_s <= 0:
                break
            silent -= {address}
            try:
                return open_one(address, share_s)
            except ConnectError as failure:
                failures.append((address, failure))
                if isinstance(failure, ConnectTimeoutError):
                    silent |= {address}
                if not failure.retryable:
                    break
    finally:
        _remember((host, port), silent)
    if not failures:
        raise ConnectTimeoutError(f"no time left to connect to {', '.join(addresses)}")
    failures.sort(key=lambda failed: (not failed[1].retryable, type(failed[1]) not in _OF_THE_NETWORK))
    *others, (address, error) = failures
    if others:
        error.message += f" (at {address}; besides, " + "; ".join(f"{a}: {e.message}" for a, e in others) + ")"
    raise error


def _remember(where: tuple[str, int], silent: frozenset[str]) -> None:
    _silent.pop(where, None)
    if silent and len(_silent) < _MOST_HOSTS:
        _silent[where] = silent


def _as_number(tcp: tuple[str, int, int, int, int]) -> list[Any] | None:
    """Return what `getaddrinfo` says of an IP address; None for a name."""
    try:
        return socket.getaddrinfo(*tcp, socket.AI_NUMERICHOST)
    except socket.gaierror:
        return None


def _failure(host: str, error: OSError) -> ConnectError:
    """Return what a look-up's failure means."""
    message = f"cannot resolve the host {host!r}: {error.strerror or error}"
    if descriptors_are_used_up():
        return ConnectError(f"{message} (no file descriptor is left)", remedy=_DESCRIPTORS, retryable=True)
    remedy = _NO_RESOLVER if is_temporary(error) else _MISSPELT
    if error.errno in (errno.EBUSY, errno.EMFILE, errno.ENFILE):  # EBUSY is what Lambda's says when few are left
        remedy = _DESCRIPTORS
    return ConnectError(message, remedy=remedy, retryable=is_temporary(error))
