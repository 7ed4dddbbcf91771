from __future__ import annotations

import importlib.util
import os
import sys
from importlib.machinery import ModuleSpec
from typing import TYPE_CHECKING, Any

import pytest

from lambda_dbconn import ConfigurationError, tls
from lambda_dbconn.tls import LAYER_RDS_BUNDLE, Trust, trust_for
from tests.unit.conftest import INSTANCE, PROXY, READER, local

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Bundles = Callable[..., None]

GLOBAL = "mydb.global-c7tj4example.global.rds.amazonaws.com"
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


@pytest.mark.parametrize("host", [PROXY, "x.endpoint.proxy-demo.us-east-1.rds.amazonaws.com", "db.example.com"])
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
def test_a_proxy_and_any_other_host_are_verified_with_the_first_public_bundle(
    bundles: Bundles, host: str, packages: tuple[str, ...], paths: tuple[str, ...], found: str
) -> None:
    bundles(*paths, packages=packages)
    assert verified(host).cafile == found


def test_where_there_is_no_bundle_at_all_the_error_says_what_to_install(bundles: Bundles) -> None:
    bundles()
    with pytest.raises(ConfigurationError, match=r"DB_SSLROOTCERT is not set.*neither certifi.*Install certifi"):
        verified(PROXY)


def test_a_package_without_files_is_passed_over(bundles: Bundles, monkeypatch: pytest.MonkeyPatch) -> None:
    bundles(tls._SYSTEM_BUNDLES[1])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: ModuleSpec(name, None, origin=None))
    assert verified(PROXY).cafile == tls._SYSTEM_BUNDLES[1]


def test_the_bundle_is_found_without_importing_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("certifi", "botocore"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    assert verified(PROXY).is_verified
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
