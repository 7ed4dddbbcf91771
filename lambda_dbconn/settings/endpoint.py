"""What a host name says: which kind of RDS endpoint it is, in which region, and what that implies.

Pure: no look-up, no environment. The forms are those of the RDS and Aurora user guides and of the patterns that
AWS's own client-side drivers ship (`aws-advanced-python-wrapper`, utils/rds_utils.py).
"""

from __future__ import annotations

from enum import Enum

from lambda_dbconn._values import Value
from lambda_dbconn.errors import ConfigurationError

# Where each AWS partition's names end; the last five are from botocore's endpoints.json, and no RDS name
# below them has been seen by us.
_PARTITION_SUFFIXES = (
    ("amazonaws", "com"),
    ("amazonaws", "com", "cn"),
    ("c2s", "ic", "gov"),
    ("sc2s", "sgov", "gov"),
    ("cloud", "adc-e", "uk"),
    ("csp", "hci", "ic", "gov"),
    ("amazonaws", "eu"),
)
_NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_")
_HASH_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789")
_MAX_NAME_LENGTH = 253
_MAX_LABEL_LENGTH = 63
_GREEN_SUFFIX_LENGTH = 6


class EndpointKind(Enum):
    """What stands behind a host name."""

    PROXY = "RDS Proxy endpoint"
    PROXY_ADDITIONAL = "additional RDS Proxy endpoint"
    CLUSTER_WRITER = "cluster (writer) endpoint"
    CLUSTER_READER = "cluster reader endpoint"
    CLUSTER_CUSTOM = "custom cluster endpoint"
    INSTANCE = "instance endpoint"
    GLOBAL_WRITER = "global database writer endpoint"
    LIMITLESS = "Limitless shard group endpoint"
    OTHER = "other host"


_KIND_BY_PREFIX = {  # the longer prefix first
    "proxy-": EndpointKind.PROXY,
    "cluster-custom-": EndpointKind.CLUSTER_CUSTOM,
    "cluster-ro-": EndpointKind.CLUSTER_READER,
    "cluster-": EndpointKind.CLUSTER_WRITER,
    "shardgrp-": EndpointKind.LIMITLESS,
    "global-": EndpointKind.GLOBAL_WRITER,
}


class Endpoint(Value):
    """A classified host name.

    Attributes:
        host: As it was given, case kept: what an IAM token is signed for.
        kind: `OTHER` for everything that is not an RDS name of a known form.
        region: AWS region, None where the name has none (global endpoints, other hosts).
        is_rds: Whether the name lies below RDS's part of an AWS partition's domain, of a known form or not:
            such a host cannot be had without verified TLS.
        deployment: `green` or `old` for the two sides of a blue/green switchover, else None.
    """

    host: str
    kind: EndpointKind
    region: str | None = None
    is_rds: bool = False
    deployment: str | None = None

    @property
    def is_proxy(self) -> bool:
        """Whether RDS Proxy stands there."""
        return self.kind in (EndpointKind.PROXY, EndpointKind.PROXY_ADDITIONAL)

    @property
    def is_read_only(self) -> bool:
        """Whether the name itself says that it reaches readers; an additional proxy endpoint's does not."""
        return self.kind is EndpointKind.CLUSTER_READER

    @property
    def is_loopback(self) -> bool:
        """Whether the host is this machine."""
        return self.host.lower() in ("localhost", "::1") or (
            self.host.startswith("127.") and self.host.replace(".", "").isdigit()
        )


def classify(host: str) -> Endpoint:
    """Say what a host name is. No round trip.

    Raises:
        ConfigurationError: It is neither a host name nor an IP address.
    """
    if not isinstance(host, str):
        raise ConfigurationError(f"a host must be a string, not {type(host).__name__}")
    if ":" in host:
        return Endpoint(host=_checked_ipv6(host), kind=EndpointKind.OTHER)
    labels = tuple(_checked_name(host).split("."))
    found = _split_rds_name(labels)
    if found is None:
        return Endpoint(host=host, kind=EndpointKind.OTHER)
    inner, region_label = found
    kind = _kind(inner)
    if (kind is EndpointKind.GLOBAL_WRITER) != (region_label == "global"):
        kind = EndpointKind.OTHER
    return Endpoint(
        host=host,
        kind=kind,
        region=region_label if _is_region(region_label) else None,
        is_rds=True,
        deployment=_deployment(inner[0]) if kind is not EndpointKind.OTHER else None,
    )


def _checked_ipv6(host: str) -> str:
    from ipaddress import AddressValueError, IPv6Address

    try:
        IPv6Address(host)
    except AddressValueError:
        raise _bad_host(host) from None
    if not _NAME_CHARACTERS.issuperset(host.lower().partition("%")[2].replace(".", "")):  # any text is a zone there
        raise _bad_host(host)
    return host


def _checked_name(host: str) -> str:
    """Return the name in lower case, if its length, labels and characters are a host name's."""
    name = host.lower() if host.isascii() else ""
    labels = name.split(".")
    if len(name) > _MAX_NAME_LENGTH or not all(
        0 < len(label) <= _MAX_LABEL_LENGTH and _NAME_CHARACTERS.issuperset(label) for label in labels
    ):
        raise _bad_host(host)
    if all(label.isdigit() for label in labels) and not _is_ipv4(labels):
        raise _bad_host(host)
    return name


def _is_ipv4(labels: list[str]) -> bool:
    parts = 4
    largest = 255
    return len(labels) == parts and all(len(label) < parts and int(label) <= largest for label in labels)


def _bad_host(host: str) -> ConfigurationError:
    shown = host if len(host) <= _MAX_LABEL_LENGTH else f"{host[:_MAX_LABEL_LENGTH]}…"
    return ConfigurationError(
        f"{shown!r} is not a host; accepted are a host name (letters, digits, '-', '_', '.') or an IP address, "
        "without scheme, port, user or path"
    )


def _split_rds_name(labels: tuple[str, ...]) -> tuple[tuple[str, ...], str] | None:
    """Return the labels before RDS's domain and the region's label; None when this is no RDS name.

    `rds` stands after the region, or before it in the newer Chinese names and the isolated regions.
    """
    for suffix in _PARTITION_SUFFIXES:
        inner = labels[: -len(suffix)]
        if labels[len(inner) :] != suffix or len(inner) < 3:  # noqa: PLR2004 - a name, `rds` and a region
            continue
        if inner[-1] == "rds":
            return inner[:-2], inner[-2]
        if inner[-2] == "rds":
            return inner[:-2], inner[-1]
    return None


def _kind(inner: tuple[str, ...]) -> EndpointKind:
    """Classify what stands before the region: `name.hash`, `name.prefix-hash` or `name.endpoint.proxy-hash`."""
    *names, last = inner
    if len(names) == 2 and names[1] == "endpoint" and _has_hash(last, "proxy-"):  # noqa: PLR2004
        return EndpointKind.PROXY_ADDITIONAL
    if len(names) != 1:
        return EndpointKind.OTHER
    for prefix, kind in _KIND_BY_PREFIX.items():
        if _has_hash(last, prefix):
            return kind
    return EndpointKind.INSTANCE if _has_hash(last, "") else EndpointKind.OTHER


def _has_hash(label: str, prefix: str) -> bool:
    return label.startswith(prefix) and len(label) > len(prefix) and _HASH_CHARACTERS.issuperset(label[len(prefix) :])


def _is_region(label: str) -> bool:
    return "-" in label and label[-1].isdigit()


def _deployment(name: str) -> str | None:
    """Recognise the names that a blue/green deployment gives: `…-green-abc123` and, after the switch, `…-old1`."""
    _, green, suffix = name.rpartition("-green-")
    if green and len(suffix) == _GREEN_SUFFIX_LENGTH and _HASH_CHARACTERS.issuperset(suffix):
        return "green"
    _, old, number = name.rpartition("-old")
    return "old" if old and number.isdigit() else None
