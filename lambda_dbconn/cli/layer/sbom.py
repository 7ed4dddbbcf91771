"""A layer's bill of materials, in CycloneDX's format: what it is made of, for tools that know vulnerabilities.

The same layer has the same one. What a wheel says of the libraries that were put into it (PEP 770) is in it, too. What
a wheel does not tell of, such as the OpenSSL that psycopg-binary builds for itself, cannot be.
"""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING

import click
from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import DisjunctiveLicense, LicenseExpression
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.spdx import is_expression
from packageurl import PackageURL

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from lambda_dbconn.cli.layer.archive import Archive
    from lambda_dbconn.cli.layer.contents import Contents
    from lambda_dbconn.cli.layer.resolving import Wheel
    from lambda_dbconn.cli.layer.runtime import Runtime

_OUR_NAMESPACE = uuid.UUID("5f0f9cf0-6f0c-4b83-9d55-0d6c5a2b9d3e")  # once and for all: a layer's number follows from it


def write(path: Path, *, layer: Archive, contents: Contents, wheels: Iterable[Wheel], runtime: Runtime) -> None:
    """Write what a layer is made of.

    Raises:
        click.ClickException: The file cannot be written.
    """
    about = Component(
        name=layer.path.name,
        type=ComponentType.FILE,
        bom_ref="layer",
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=layer.sha256)],
        properties=[
            Property(name="lambda-dbconn:python", value=runtime.python),
            Property(name="lambda-dbconn:architecture", value=runtime.architecture),
        ],
    )
    packages = [_package(wheel, contents) for wheel in wheels]
    bom = Bom(components=packages, serial_number=uuid.uuid5(_OUR_NAMESPACE, layer.sha256))
    bom.metadata.timestamp = None  # type: ignore[assignment]  # the library can do without, and writes none
    bom.metadata.component = about
    bom.register_dependency(about, packages)
    try:
        path.write_text(JsonV1Dot6(bom).output_as_string(indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise click.ClickException(f"{path} cannot be written: {error.strerror}") from error


def _package(wheel: Wheel, contents: Contents) -> Component:
    purl = PackageURL(type="pypi", name=wheel.name, version=wheel.version)
    return Component(
        name=wheel.name,
        version=wheel.version,
        type=ComponentType.LIBRARY,
        bom_ref=purl.to_string(),
        purl=purl,
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=wheel.sha256)],
        licenses=list(_licences(wheel)),
        properties=[Property(name="lambda-dbconn:wheel", value=wheel.path.name)],
        components=list(_bundled(wheel, contents)),
    )


def _licences(wheel: Wheel) -> Iterator[LicenseExpression | DisjunctiveLicense]:
    if wheel.licence:
        is_spdx = is_expression(wheel.licence)
        yield LicenseExpression(wheel.licence) if is_spdx else DisjunctiveLicense(name=wheel.licence)


def _bundled(wheel: Wheel, contents: Contents) -> Iterator[Component]:
    """Return the libraries that a wheel's own bill names."""
    folder = f"/{wheel.name.replace('-', '_')}-{wheel.version}.dist-info/sboms/"
    for name, content in contents.items():
        if folder not in name or not name.endswith((".cdx.json", ".cyclonedx.json")):
            continue
        for each in json.loads(content).get("components", []):
            # Neither purl nor reference must be there.
            purl = PackageURL.from_string(each["purl"]) if "purl" in each else None
            if purl is None or purl.type != "pypi":  # auditwheel lists the wheel itself as well
                about = {"name": each["name"], "version": each.get("version"), "purl": purl}
                ref = f"{wheel.name}:{each.get('bom-ref', each['name'])}"
                yield Component(type=ComponentType.LIBRARY, bom_ref=ref, **about)
