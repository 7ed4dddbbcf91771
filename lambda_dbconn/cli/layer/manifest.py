"""What a layer says about itself, in a file beside the RDS authorities: what it is for, and what it is made of."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile, ZipFile

import click

from lambda_dbconn.cli.layer.own_wheel import NAME
from lambda_dbconn.cli.layer.runtime import ROOT
from lambda_dbconn.tls import LAYER_RDS_BUNDLE

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from lambda_dbconn.cli.layer.bytecode import Interpreter
    from lambda_dbconn.cli.layer.resolving import Wheel
    from lambda_dbconn.cli.layer.runtime import Runtime
    from lambda_dbconn.cli.layer.trust_bundle import TrustBundle

RDS_BUNDLE = LAYER_RDS_BUNDLE.removeprefix(f"{ROOT}/")
MANIFEST = f"{RDS_BUNDLE.rpartition('/')[0]}/layer.json"


def describe(
    *,
    runtime: Runtime,
    engines: Sequence[str],
    wheels: Iterable[Wheel],
    interpreter: Interpreter | None,
    bundle: TrustBundle | None,
) -> bytes:
    """Return the manifest; nothing in it depends on when or where it was made, but for the Python that compiled."""
    manifest: dict[str, Any] = {
        "python": runtime.python,
        "architecture": runtime.architecture,
        "glibc": runtime.glibc,
        "engines": list(engines),
        "bytecode": None if interpreter is None else {"compiled_by": interpreter.version, "invalidation": "unchecked"},
        "rds_ca_bundle": None,
        "distributions": [
            {
                "name": wheel.name,
                "version": wheel.version,
                "licence": wheel.licence,
                "wheel": wheel.path.name,
                "sha256": wheel.sha256,
            }
            for wheel in wheels
        ],
    }
    if bundle is not None:
        manifest["rds_ca_bundle"] = {
            "sha256": hashlib.sha256(bundle.content).hexdigest(),
            "certificates": len(bundle.expiries),
            "first_expires": f"{bundle.expiries[0]:%Y-%m-%d}",
            "last_expires": f"{bundle.expiries[-1]:%Y-%m-%d}",
        }
    return json.dumps(manifest, indent=2).encode() + b"\n"


@dataclass(frozen=True, kw_only=True)
class Precedent:
    """What another layer is made of.

    Attributes:
        versions: By canonical name, without lambda_dbconn's own.
        hashes: SHA-256 by the file name of the wheel.
    """

    versions: dict[str, str]
    hashes: dict[str, str]

    @classmethod
    def none(cls) -> Precedent:
        """Leave all choices open."""
        return cls(versions={}, hashes={})

    @classmethod
    def read(cls, layer: Path) -> Precedent:
        """Read a layer's manifest.

        Raises:
            click.BadParameter: It is not a layer that this command has made.
        """
        try:
            with ZipFile(layer) as archive:
                found = json.loads(archive.read(MANIFEST))["distributions"]
        except (BadZipFile, KeyError, ValueError) as error:
            raise click.BadParameter(f"{layer} is not a layer that this command made", param_hint="--like") from error
        others = [each for each in found if each["name"] != NAME]
        return cls(
            versions={each["name"]: each["version"] for each in others},
            hashes={each["wheel"]: each["sha256"] for each in others},
        )

    def check(self, wheels: Iterable[Wheel]) -> None:
        """Do nothing if every wheel that both have is the same.

        Raises:
            click.ClickException: One has the same name and other bytes.
        """
        for wheel in wheels:
            if self.hashes.get(wheel.path.name, wheel.sha256) != wheel.sha256:
                raise click.ClickException(f"{wheel.path.name} is not the file that the other layer was made of")
