from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import ssl
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import certifi
import pytest

from lambda_dbconn import ConfigurationError, tls
from lambda_dbconn.tls import AMAZON_ROOTS, LAYER_RDS_BUNDLE, Trust, trust_for
from tests.unit.conftest import INSTANCE, PROXY, READER, local

if TYPE_CHECKING:
    from collections.abc import Callable

    Bundles = Callable[..., None]

GLOBAL = "mydb.global-c7tj4example.global.rds.amazonaws.com"
CHINESE_PROXY = "mydb.proxy-c7tj4example.rds.cn-north-1.amazonaws.com.cn"
UNKNOWN = "x.unknown.form.us-east-1.rds.amazonaws.com"
NAMED = {"prefix": "DB_", "auth": "iam", "sslmode": "verify-full"}


def verified(host: str = "db.example.com", **changes: Any) -> Trust:
    return trust_for(local(**{**NAMED, "host": host, **changes}))


@pytest.fixture
def bundles(monkeypatch: pytest.MonkeyPatch) -> Bundles:
    """Let these packages and files be all there is."""

    def there_are(*paths: str, packages: tuple[str, ...] = ()) -> None:
        specs = {name: ModuleSpec(name, None, origin=f"/packages/{name}/__init__.py") for name in packages}
        monkeypatch.setattr(importlib.util, "find_spec", specs.get)
        monkeypatch.setattr(os, "access", lambda path, _mode: path in paths)

    return there_are


def test_without_tls_nobody_needs_to_be_trusted() -> None:
    trust = trust_for(local(sslmode="disable", sslrootcert="/nowhere.pem"))
    assert trust == Trust(cafile=None)
    assert not trust.is_verified


@pytest.mark.parametrize("host", [PROXY, INSTANCE, "db.example.com"])
def test_the_file_that_is_named_wins_for_every_host(tmp_path: Path, host: str) -> None:
    path = tmp_path / "ca.pem"
    path.write_text("pem")
    trust = verified(host, sslrootcert=str(path))
    assert trust == Trust(cafile=str(path))
    assert trust.is_verified


@pytest.mark.parametrize("host", [INSTANCE, READER, GLOBAL, UNKNOWN])
def test_a_host_of_rds_itself_is_verified_with_the_bundle_of_the_layer(bundles: Bundles, host: str) -> None:
    bundles(LAYER_RDS_BUNDLE, "/packages/certifi/cacert.pem", packages=("certifi",))
    assert verified(host).cafile == LAYER_RDS_BUNDLE


@pytest.mark.parametrize("host", [INSTANCE, READER, GLOBAL, UNKNOWN])
def test_a_host_of_rds_itself_is_never_verified_with_a_public_bundle(bundles: Bundles, host: str) -> None:
    bundles("/packages/certifi/cacert.pem", *tls._SYSTEM_BUNDLES, packages=("certifi",))
    with pytest.raises(ConfigurationError, match=r"DB_SSLROOTCERT is not set.*global-bundle\.pem"):
        verified(host)


@pytest.mark.parametrize(
    "host", [PROXY, PROXY.upper(), "x.endpoint.proxy-demo.us-gov-west-1.rds.amazonaws.com", "alias.example.com"]
)
def test_a_proxy_is_verified_with_the_roots_of_amazon_alone(bundles: Bundles, host: str) -> None:
    bundles(AMAZON_ROOTS, "/packages/certifi/cacert.pem", LAYER_RDS_BUNDLE, packages=("certifi",))
    assert verified(host, signing_host=PROXY if "example" in host else None).cafile == AMAZON_ROOTS


def test_a_package_without_the_roots_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls, "AMAZON_ROOTS", "/nowhere/amazon-roots.pem")
    with pytest.raises(ConfigurationError, match=r"Amazon's roots, a part of this package, is '/nowhere/.* no file"):
        verified(PROXY)


def test_the_roots_of_amazon_are_those_of_the_public_bundle() -> None:
    """Of certifi's newest: a root that Amazon adds, or gives up, is to be seen here."""
    public = authorities(certifi.where())
    of_amazon = {mark: name for mark, name in public.items() if name.startswith(("Amazon ", "Starfield Services Root"))}
    assert len(of_amazon) == 5
    assert authorities(AMAZON_ROOTS) == of_amazon


def test_each_root_is_headed_by_its_name_and_fingerprint() -> None:
    said = re.findall(r"^# (.+), SHA-256 (\w{64})$", Path(AMAZON_ROOTS).read_text(), re.MULTILINE)
    assert {mark: name for name, mark in said} == authorities(AMAZON_ROOTS)


def authorities(path: str) -> dict[str, str]:
    """Return the common names of the authorities in a file, by fingerprint."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(path)
    marks = (hashlib.sha256(der).hexdigest() for der in context.get_ca_certs(binary_form=True))
    listed: list[dict[str, Any]] = context.get_ca_certs()
    subjects = (dict(pair for (pair,) in authority["subject"]) for authority in listed)
    return {mark: subject.get("commonName", "") for mark, subject in zip(marks, subjects, strict=True)}


@pytest.mark.parametrize("host", [CHINESE_PROXY, "db.example.com"])
@pytest.mark.parametrize(
    ("packages", "paths", "found"),
    [
        (
            ("certifi", "botocore"),
            ("/packages/certifi/cacert.pem", "/packages/botocore/cacert.pem"),
            "/packages/certifi/cacert.pem",
        ),
        (("botocore",), ("/packages/botocore/cacert.pem",), "/packages/botocore/cacert.pem"),
        (("certifi", "botocore"), ("/packages/botocore/cacert.pem",), "/packages/botocore/cacert.pem"),
        ((), tuple(reversed(tls._SYSTEM_BUNDLES)), tls._SYSTEM_BUNDLES[0]),
        (("certifi",), (tls._SYSTEM_BUNDLES[-1],), tls._SYSTEM_BUNDLES[-1]),
    ],
)
def test_a_proxy_elsewhere_and_any_other_host_are_verified_with_the_first_public_bundle(
    bundles: Bundles, host: str, packages: tuple[str, ...], paths: tuple[str, ...], found: str
) -> None:
    bundles(*paths, packages=packages)
    assert verified(host).cafile == found


def test_where_there_is_no_bundle_at_all_the_error_says_what_to_install(bundles: Bundles) -> None:
    bundles()
    with pytest.raises(ConfigurationError, match=r"DB_SSLROOTCERT is not set.*neither certifi.*Install certifi"):
        verified()


def test_a_package_without_files_is_passed_over(bundles: Bundles, monkeypatch: pytest.MonkeyPatch) -> None:
    bundles(tls._SYSTEM_BUNDLES[1])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: ModuleSpec(name, None, origin=None))
    assert verified().cafile == tls._SYSTEM_BUNDLES[1]


def test_the_bundle_is_found_without_importing_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("certifi", "botocore"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    assert verified().is_verified
    assert not {"certifi", "botocore"} & set(sys.modules)


@pytest.mark.parametrize("path", ["/nowhere/ca.pem", "/"])
def test_a_file_that_is_not_there_is_named_with_its_variable(path: str) -> None:
    with pytest.raises(ConfigurationError, match=f"DB_SSLROOTCERT is '{path}', where there is no file"):
        verified(sslrootcert=path)


def test_a_file_that_may_not_be_read_is_named_with_its_variable(tmp_path: Path, bundles: Bundles) -> None:
    path = tmp_path / "ca.pem"
    path.write_text("pem")
    bundles()
    with pytest.raises(ConfigurationError, match=f"DB_SSLROOTCERT is '{path}', which this process may not read"):
        verified(sslrootcert=str(path))


# A client's context


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (ssl.TLSVersion.MINIMUM_SUPPORTED, ssl.TLSVersion.TLSv1_2),
        (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2),
        (ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_3),
    ],
)
def test_tls_1_2_is_the_oldest_whatever_python_and_openssl_were_built_for(
    before: ssl.TLSVersion, after: ssl.TLSVersion
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = before
    tls.configure_client(context, AMAZON_ROOTS)
    assert context.minimum_version == after
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)


def test_a_pem_file_without_a_certificate_is_named(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_text("pem")
    with pytest.raises(ConfigurationError, match=f"'{path}' cannot be read"):
        tls.configure_client(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), str(path))
