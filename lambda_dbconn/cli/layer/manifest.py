"""What a layer says about itself, in a file beside the RDS authorities: what it is for, and what it is made of."""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile, ZipFile

import click

from lambda_dbconn.cli.layer.naming import distribution_name, distribution_version
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
_LONGEST_BYTES = 1_000_000  # ours have 5,000
_SHA256 = re.compile("[0-9a-f]{64}")
_UNREADABLE = (BadZipFile, EOFError, NotImplementedError, OSError, RuntimeError, ValueError, zlib.error)


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
        """Read a layer's manifest. Whoever made the layer has no say in what pip does but by names and versions.

        Raises:
            click.BadParameter: It is not a layer that this command has made.
        """
        try:
            with ZipFile(layer) as archive:
                member = archive.getinfo(MANIFEST)
                if member.file_size > _LONGEST_BYTES:
                    raise ValueError("the manifest is too long")
                others = [_distribution(each) for each in json.loads(archive.read(member))["distributions"]]
        except (KeyError, TypeError, *_UNREADABLE) as error:
            message = f"{layer} is not a layer that this command made ({type(error).__name__}: {error})"
            raise click.BadParameter(message, param_hint="--like") from error
        return cls(
            versions={name: version for name, version, _, _ in others if name != NAME},
            hashes={wheel: sha256 for name, _, wheel, sha256 in others if name != NAME},
        )

    def check(self, wheels: Iterable[Wheel]) -> None:
        """Do nothing if every wheel that both have is the same.

        Raises:
            click.ClickException: One has the same name and other bytes.
        """
        for wheel in wheels:
            if self.hashes.get(wheel.path.name, wheel.sha256) != wheel.sha256:
                raise click.ClickException(f"{wheel.path.name} is not the file that the other layer was made of")


def _distribution(found: dict[str, object]) -> tuple[str, str, str, str]:
    """Return name, version, file name and SHA-256 of a wheel in a manifest.

    Raises:
        ValueError, KeyError, TypeError: One of them is not there, or not what this command writes.
    """
    wheel, sha256 = found["wheel"], found["sha256"]
    if not isinstance(wheel, str) or not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        raise ValueError(f"{sha256!r} is not a SHA-256")
    return distribution_name(found["name"]), distribution_version(found["version"]), wheel, sha256
