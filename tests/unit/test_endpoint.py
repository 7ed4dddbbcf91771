from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambda_dbconn.errors import ConfigurationError
from lambda_dbconn.settings.endpoint import Endpoint, EndpointKind, classify

COM = "us-east-1.rds.amazonaws.com"

# What stands before the hash → kind; the forms of the RDS and Aurora user guides.
NAMES = [
    ("the-proxy.proxy-demo", EndpointKind.PROXY),
    ("reports.endpoint.proxy-demo", EndpointKind.PROXY_ADDITIONAL),
    ("mydb.cluster-c7tj4example", EndpointKind.CLUSTER_WRITER),
    ("mydb.cluster-ro-c7tj4example", EndpointKind.CLUSTER_READER),
    ("analysts.cluster-custom-c7tj4example", EndpointKind.CLUSTER_CUSTOM),
    ("mydb.shardgrp-c7tj4example", EndpointKind.LIMITLESS),
    ("mydb.c7tj4example", EndpointKind.INSTANCE),
]

# Where the region and `rds` stand in each partition.
DOMAINS = [
    ("us-east-1.rds.amazonaws.com", "us-east-1"),
    ("ap-southeast-12.rds.amazonaws.com", "ap-southeast-12"),
    ("us-gov-west-1.rds.amazonaws.com", "us-gov-west-1"),
    ("rds.us-gov-west-1.amazonaws.com", "us-gov-west-1"),
    ("cn-north-1.rds.amazonaws.com.cn", "cn-north-1"),
    ("rds.cn-northwest-1.amazonaws.com.cn", "cn-northwest-1"),
    ("rds.us-iso-east-1.c2s.ic.gov", "us-iso-east-1"),
    ("rds.us-isob-east-1.sc2s.sgov.gov", "us-isob-east-1"),
    ("eu-isoe-west-1.rds.cloud.adc-e.uk", "eu-isoe-west-1"),
    ("us-isof-south-1.rds.csp.hci.ic.gov", "us-isof-south-1"),
    ("eusc-de-east-1.rds.amazonaws.eu", "eusc-de-east-1"),
]

OTHERS_OF_RDS = [
    f"a.b.c7tj4example.{COM}",
    f"a.endpoint.c7tj4example.{COM}",
    f"a.b.proxy-demo.{COM}",
    f"mydb.global-c7tj4example.{COM}",  # global, but with a region
    "mydb.c7tj4example.global.rds.amazonaws.com",  # no region, but not global
    f"mydb.proxy-.{COM}",
    f"mydb.cluster-a-b.{COM}",
    f"the-proxy.db-proxy-123456789012.{COM}",  # a mock's
    "rds.us-east-1.amazonaws.com",  # RDS's API
]

OTHERS = [
    "localhost",
    "db",
    "db.example.com",
    "127.0.0.1",
    "10.0.0.7",
    "::1",
    "fe80::1",
    "2001:db8::7",
    "rds.amazonaws.com",
    "rds.amazonaws.com.example.org",
    f"mydb.c7tj4example.{COM}.evil.example",
    "mydb.c7tj4example.us-east-1.ec2.amazonaws.com",
    "mydb.c7tj4example.us-east-1.rds.amazonaws.com.de",
    "mydb.c7tj4example.us-east-1.rds.amazonaws.org",
    "x_y.example",
]

NO_HOSTS = [
    "",
    ".",
    "..",
    "db.",
    "db..example.com",
    " db",
    "db\n",
    "db\0",
    "db:5432",
    "postgresql://db",
    "user@db",
    "db/name",
    "a" * 64,
    ".".join(["a" * 63] * 4),
    "münchen.example",
    "\ud800",
    "1.2.3",
    "1.2.3.4.5",
    "256.1.1.1",
    "1234",
    "[::1]",
    "::1::",
    "::1 ",
    "::1%\0",
    "::1%a b",
    "::1%\n",
    "fe80::1%",
]


@pytest.mark.parametrize(("domain", "region"), DOMAINS)
@pytest.mark.parametrize(("name", "kind"), NAMES)
def test_every_form_of_every_partition_is_recognised(name: str, kind: EndpointKind, domain: str, region: str) -> None:
    host = f"{name}.{domain}"
    assert classify(host) == Endpoint(host=host, kind=kind, region=region, is_rds=True)


def test_a_global_writer_has_no_region_in_its_name() -> None:
    host = "mydb.global-c7tj4example.global.rds.amazonaws.com"
    assert classify(host) == Endpoint(host=host, kind=EndpointKind.GLOBAL_WRITER, region=None, is_rds=True)


@pytest.mark.parametrize("host", OTHERS_OF_RDS)
def test_an_rds_name_of_unknown_form_is_other_and_still_rds(host: str) -> None:
    endpoint = classify(host)
    assert endpoint.is_rds or host == "rds.us-east-1.amazonaws.com"
    assert endpoint.kind is EndpointKind.OTHER
    assert not endpoint.is_proxy


@pytest.mark.parametrize("host", OTHERS)
def test_any_other_host_is_other(host: str) -> None:
    assert classify(host) == Endpoint(host=host, kind=EndpointKind.OTHER)


@pytest.mark.parametrize("host", NO_HOSTS, ids=ascii)
def test_what_is_no_host_is_a_configuration_error_of_one_short_line(host: str) -> None:
    with pytest.raises(ConfigurationError, match="is not a host; accepted are") as caught:
        classify(host)
    assert len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("host", [None, 5432, b"db", ["db"]])
def test_what_is_no_text_is_a_configuration_error(host: object) -> None:
    with pytest.raises(ConfigurationError, match="must be a string"):
        classify(host)  # type: ignore[arg-type] # on purpose


@pytest.mark.parametrize(
    ("name", "deployment"),
    [
        ("mydb-green-a1b2c3", "green"),
        ("mydb-old1", "old"),
        ("mydb-old12", "old"),
        ("mydb-green-a1b2c", None),
        ("mydb-green-a1b2c34", None),
        ("mydb-green-", None),
        ("evergreen-abcdef", None),
        ("mydb-old", None),
        ("mydb-bold1", None),
    ],
)
@pytest.mark.parametrize("hash_", ["c7tj4example", "cluster-c7tj4example"])
def test_the_sides_of_a_blue_green_deployment_are_recognised(name: str, hash_: str, deployment: str | None) -> None:
    assert classify(f"{name}.{hash_}.{COM}").deployment == deployment


def test_the_case_of_the_host_is_kept_and_does_not_matter() -> None:
    host = "The-Proxy.Proxy-Demo.US-EAST-1.RDS.AmazonAWS.com"
    assert classify(host) == Endpoint(host=host, kind=EndpointKind.PROXY, region="us-east-1", is_rds=True)


@pytest.mark.parametrize(
    ("name", "is_proxy", "is_read_only"),
    [
        ("the-proxy.proxy-demo", True, False),
        ("reports.endpoint.proxy-demo", True, False),  # its role cannot be seen
        ("mydb.cluster-ro-c7tj4example", False, True),
        ("mydb.cluster-c7tj4example", False, False),
        ("mydb.c7tj4example", False, False),
    ],
)
def test_the_kind_says_what_stands_there(name: str, *, is_proxy: bool, is_read_only: bool) -> None:
    endpoint = classify(f"{name}.{COM}")
    assert (endpoint.is_proxy, endpoint.is_read_only) == (is_proxy, is_read_only)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "127.0.0.1", "127.1.2.3", "::1"])
def test_this_machine_is_loopback(host: str) -> None:
    assert classify(host).is_loopback


@pytest.mark.parametrize("host", ["127.evil.example", "localhost.example", "10.0.0.1", "128.0.0.1", "::2"])
def test_no_other_machine_is_loopback(host: str) -> None:
    assert not classify(host).is_loopback


@given(st.text() | st.from_regex(r"[0-9a-f:%.\x00-\x20]{1,20}", fullmatch=True))
def test_any_text_at_all_is_an_endpoint_or_a_configuration_error(text: str) -> None:
    try:
        endpoint = classify(text)
    except ConfigurationError:
        return
    assert endpoint.host == text
    assert text.isascii()
    assert text.isprintable()
    assert not set(text) & set(" /@\\'\"")


labels = st.from_regex(r"[a-z0-9_-]{1,20}", fullmatch=True)


@given(
    inner=st.lists(labels | st.sampled_from(["endpoint", "rds", "proxy-a", "cluster-b", "global"]), max_size=5),
    domain=st.sampled_from([domain for domain, _ in DOMAINS] + ["example.com"]),
)
def test_a_name_below_rds_is_rds_and_never_raises(inner: list[str], domain: str) -> None:
    endpoint = classify(".".join([*inner, domain]))
    if domain != "example.com" and inner:
        assert endpoint.is_rds
        assert endpoint.region in (None, dict(DOMAINS)[domain])


@given(st.text(alphabet="abc.-", max_size=40).map(lambda text: text + ".evil.example"))
def test_nothing_outside_aws_is_taken_for_rds(host: str) -> None:
    try:
        endpoint = classify(host)
    except ConfigurationError:
        return
    assert not endpoint.is_rds
    assert endpoint.region is None
