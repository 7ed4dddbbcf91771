"""The bill of materials of a layer."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click
import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from lambda_dbconn.cli.layer import sbom
from lambda_dbconn.cli.layer.archive import Archive
from lambda_dbconn.cli.layer.contents import unpack
from lambda_dbconn.cli.layer.resolving import Wheel
from lambda_dbconn.cli.layer.runtime import Runtime
from tests.support.wheels import make_wheel

if TYPE_CHECKING:
    from pathlib import Path

# As auditwheel writes it: the wheel itself, and what was put into it.
BUNDLED = {
    "bomFormat": "CycloneDX",
    "specVersion": "1.4",
    "components": [
        {"bom-ref": "it", "name": "driver_binary", "version": "2", "purl": "pkg:pypi/driver_binary@2?file_name=x.whl"},
        {"bom-ref": "lib#1", "name": "openssl", "version": "3.0.1-4.el9", "purl": "pkg:rpm/rhel/openssl@3.0.1-4.el9"},
    ],
}


def written(folder: Path, *, sha256: str = "5a" * 32) -> str:
    """Write the bill of a layer of two wheels; one of them has a bill of its own."""
    plain = make_wheel(folder, "app", "1")
    files = {"driver.py": "", "driver_binary-2.dist-info/sboms/auditwheel.cdx.json": json.dumps(BUNDLED)}
    wheels = [Wheel.read(path) for path in (plain, make_wheel(folder, "driver-binary", "2", files=files))]
    layer = Archive(path=folder / "layer.zip", sha256=sha256, zipped_bytes=0, unpacked_bytes=0)
    contents = unpack([wheel.path for wheel in wheels], site_packages="python/lib/python3.13/site-packages")
    path = folder / "layer.cdx.json"
    runtime = Runtime(python="3.13", architecture="arm64")
    sbom.write(path, layer=layer, contents=contents, wheels=wheels, runtime=runtime)
    return path.read_text()


@pytest.fixture
def bill(tmp_path: Path) -> dict[str, Any]:
    """What is written of that layer."""
    found: dict[str, Any] = json.loads(written(tmp_path))
    return found


def test_it_is_what_the_schema_of_cyclonedx_says(tmp_path: Path) -> None:
    validator = JsonStrictValidator(SchemaVersion.V1_6)
    text = written(tmp_path)
    assert validator.validate_str(text) is None
    assert validator.validate_str(text.replace('"library"', '"book"')) is not None


def test_it_is_about_the_layer_and_what_that_is_for(bill: dict[str, Any]) -> None:
    layer = bill["metadata"]["component"]
    assert (layer["type"], layer["name"], layer["hashes"][0]["content"]) == ("file", "layer.zip", "5a" * 32)
    assert [each["value"] for each in layer["properties"]] == ["arm64", "3.13"]


def test_every_wheel_is_in_it_with_version_licence_and_hash(bill: dict[str, Any], tmp_path: Path) -> None:
    app, driver = bill["components"]
    assert (app["purl"], driver["purl"]) == ("pkg:pypi/app@1", "pkg:pypi/driver-binary@2")
    assert app["licenses"] == [{"expression": "MIT"}]
    assert app["hashes"][0]["content"] == Wheel.read(tmp_path / "app-1-py3-none-any.whl").sha256
    assert app["properties"] == [{"name": "lambda-dbconn:wheel", "value": "app-1-py3-none-any.whl"}]
    (needs,) = [each["dependsOn"] for each in bill["dependencies"] if each["ref"] == "layer"]
    assert needs == [app["bom-ref"], driver["bom-ref"]]


def test_what_a_wheel_says_of_the_libraries_in_it_is_passed_on(bill: dict[str, Any]) -> None:
    app, driver = bill["components"]
    assert "components" not in app
    (library,) = driver["components"]
    assert (library["name"], library["purl"]) == ("openssl", "pkg:rpm/rhel/openssl@3.0.1-4.el9")


def test_the_same_layer_has_the_same_bill_and_another_one_another_number(tmp_path: Path) -> None:
    first = written(tmp_path)
    assert written(tmp_path) == first
    assert "timestamp" not in first
    assert str(tmp_path) not in first
    assert json.loads(written(tmp_path, sha256="5b" * 32))["serialNumber"] != json.loads(first)["serialNumber"]


def test_a_text_that_is_no_spdx_expression_is_a_licences_name(tmp_path: Path) -> None:
    wheel = Wheel.read(make_wheel(tmp_path, "app", "1"))
    found = {}
    for licence in ("MIT OR Apache-2.0", "Dual License", "", None):
        found[licence] = [type(each).__name__ for each in sbom._licences(replace(wheel, licence=licence))]
    assert found == {
        "MIT OR Apache-2.0": ["LicenseExpression"],
        "Dual License": ["DisjunctiveLicense"],
        "": [],
        None: [],
    }


def test_a_file_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "layer.cdx.json").mkdir()
    with pytest.raises(click.ClickException, match=r"layer\.cdx\.json cannot be written: Is a directory"):
        written(tmp_path)
