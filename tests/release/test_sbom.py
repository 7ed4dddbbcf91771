"""The SBOM of a release: CycloneDX, complete, and without a word about the machine that wrote it."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.release.conftest import Built

DRIVERS = {"psycopg", "psycopg-binary", "PyMySQL", "tenacity"}


@pytest.fixture
def sbom(built: Built) -> dict[str, Any]:
    """What was written."""
    found: dict[str, Any] = json.loads(built.sbom.read_text())
    return found


def test_it_is_what_the_schema_of_cyclonedx_says(sbom: dict[str, Any]) -> None:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    validator = JsonStrictValidator(SchemaVersion.from_version(sbom["specVersion"]))
    assert validator.validate_str(json.dumps(sbom)) is None
    assert validator.validate_str(json.dumps({**sbom, "components": [{"name": "no type"}]})) is not None


def test_it_is_about_this_version_and_the_wheel_that_was_built(built: Built, sbom: dict[str, Any]) -> None:
    about = sbom["metadata"]["component"]
    assert (about["name"], about["type"]) == ("lambda-dbconn", "library")
    assert about["purl"] == f"pkg:pypi/lambda-dbconn@{about['version']}"
    assert built.wheel.name.startswith(f"lambda_dbconn-{about['version']}-")
    assert about["hashes"] == [{"alg": "SHA-256", "content": hashlib.sha256(built.wheel.read_bytes()).hexdigest()}]


def test_every_package_that_an_installation_brings_is_in_it_with_version_and_licence(sbom: dict[str, Any]) -> None:
    components = {each["name"]: each for each in sbom["components"]}
    assert set(components) >= DRIVERS
    assert set(components).isdisjoint({"lambda-dbconn", "pip", "twine", "pytest"})
    assert [name for name, each in components.items() if not each.get("licenses") or not each["version"]] == []
    assert all(each["purl"].startswith("pkg:pypi/") for each in components.values())


def test_it_says_what_needs_what(sbom: dict[str, Any]) -> None:
    needs = {each["ref"]: each.get("dependsOn", []) for each in sbom["dependencies"]}
    root = sbom["metadata"]["component"]["bom-ref"]
    assert {reference.partition("==")[0] for reference in needs[root]} >= {"psycopg", "PyMySQL", "tenacity"}


def test_no_index_and_no_folder_is_named(sbom: dict[str, Any]) -> None:
    references = [each for component in sbom["components"] for each in component.get("externalReferences", [])]
    assert references
    assert [each for each in references if each["type"] == "distribution" or not each["url"].startswith("http")] == []
