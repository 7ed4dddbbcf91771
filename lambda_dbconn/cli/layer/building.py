"""Building a layer, from what is asked for to the file."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import click

from lambda_dbconn.cli.layer import archive, manifest
from lambda_dbconn.cli.layer.archive import MIB, UNPACKED_LIMIT_BYTES, UPLOAD_LIMIT_BYTES
from lambda_dbconn.cli.layer.bytecode import Interpreter
from lambda_dbconn.cli.layer.contents import unpack
from lambda_dbconn.cli.layer.manifest import Precedent
from lambda_dbconn.cli.layer.own_wheel import own_wheel
from lambda_dbconn.cli.layer.resolving import resolve
from lambda_dbconn.cli.layer.trust_bundle import TrustBundle
from lambda_dbconn.cli.progress import step

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lambda_dbconn.cli.layer.archive import Archive
    from lambda_dbconn.cli.layer.contents import Contents
    from lambda_dbconn.cli.layer.resolving import Wheel
    from lambda_dbconn.cli.layer.runtime import Runtime


@dataclass(frozen=True, kw_only=True)
class Order:
    """What is asked for.

    Attributes:
        source: A checkout or a wheel of lambda_dbconn; None for what is installed.
        bundle: A file of RDS's authorities.
        like: A layer whose versions are to be taken.
        sbom: Where the bill of materials goes; None for nowhere.
    """

    runtime: Runtime
    engines: Sequence[str]
    output: Path
    source: Path | None
    bundle: Path | None
    like: Path | None
    sbom: Path | None = None


def build(order: Order) -> Archive:
    """Build a layer, and tell of it on standard error.

    Raises:
        click.ClickException: It cannot be built. What was at its path stays.
    """
    if order.sbom is not None:
        from lambda_dbconn.cli.layer import sbom  # its library is not needed by who does not ask for it
    now = datetime.now(UTC)
    bundle = None if order.bundle is None else TrustBundle.read(order.bundle, now=now)
    interpreter = Interpreter.find(order.runtime.python)
    with TemporaryDirectory() as folder:
        wheels = _wheels(order, folder=Path(folder))
        contents = unpack((wheel.path for wheel in wheels), site_packages=order.runtime.site_packages)
        contents |= _bytecode(contents, interpreter=interpreter, runtime=order.runtime)
    if bundle is not None:
        contents[manifest.RDS_BUNDLE] = bundle.content
    contents[manifest.MANIFEST] = manifest.describe(
        runtime=order.runtime, engines=order.engines, wheels=wheels, interpreter=interpreter, bundle=bundle
    )
    written = archive.write(contents, order.output)
    if order.sbom is not None:
        sbom.write(order.sbom, layer=written, contents=contents, wheels=wheels, runtime=order.runtime)
    _tell_of_authorities(bundle, now=now)
    _tell_of_sizes(written)
    return written


def _wheels(order: Order, *, folder: Path) -> list[Wheel]:
    precedent = Precedent.none() if order.like is None else Precedent.read(order.like)
    own = own_wheel(order.source, folder=folder)
    with step(f"Asking pip for wheels for {order.runtime}, glibc {order.runtime.glibc}"):
        wheels = resolve(own, engines=order.engines, runtime=order.runtime, versions=precedent.versions, folder=folder)
    precedent.check(wheels)
    _say("Packages: " + ", ".join(f"{wheel.name} {wheel.version}" for wheel in wheels))
    return wheels


def _bytecode(contents: Contents, *, interpreter: Interpreter | None, runtime: Runtime) -> Contents:
    if interpreter is None:
        _say(
            f"Bytecode: none, for there is no Python {runtime.python} on this machine. The layer works, but every cold "
            "start compiles it again."
        )
        return {}
    with step(f"Compiling with Python {interpreter.version}"):
        compiled = interpreter.compile(contents)
    _say(f"Bytecode: {len(compiled)} modules")
    return compiled


def _tell_of_authorities(bundle: TrustBundle | None, *, now: datetime) -> None:
    if bundle is None:
        _say("RDS authorities: none. RDS Proxy needs none; for a host of RDS itself, add them with --rds-ca-bundle.")
        return
    _say(f"RDS authorities: {len(bundle.expiries)}, until {bundle.expiries[0]:%Y-%m-%d} or longer")
    warning = bundle.warning(now)
    if warning is not None:
        _say(f"Warning: {warning}")


def _tell_of_sizes(written: Archive) -> None:
    _say(
        f"Size: {written.zipped_bytes / MIB:.1f} MB zipped, of {UPLOAD_LIMIT_BYTES // MIB}; "
        f"{written.unpacked_bytes / MIB:.1f} MB unpacked, of {UNPACKED_LIMIT_BYTES // MIB} with the function and its "
        "other layers"
    )
    if written.zipped_bytes > UPLOAD_LIMIT_BYTES:
        _say("Warning: that is too much for a direct upload: publish it from S3")


def _say(line: str) -> None:
    click.echo(line, err=True)
