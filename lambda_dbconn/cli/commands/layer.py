"""`lambda-dbconn layer`: its options; `lambda_dbconn.cli.layer` does it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from lambda_dbconn.cli.layer.runtime import Architecture

_ENGINES = ("postgresql", "mysql")
_FILE = click.Path(exists=True, dir_okay=False, readable=True, resolve_path=True, path_type=Path)

_HELP = """Build a Lambda layer: lambda_dbconn, its drivers, and what these need.

The wheels are from PyPI, through pip and its configuration, for the runtime's Python, architecture and C library; so
any machine will do. boto3 stays out, for the runtime has it. The modules are compiled if a Python of the same version
is on this machine: a layer is read-only, and without bytecode every cold start compiles it again.

\b
Examples:
  lambda-dbconn layer --python 3.13 --arch arm64 --engine postgresql
  lambda-dbconn layer --python 3.12 --arch x86_64 --engine postgresql,mysql -o layer.zip
  lambda-dbconn layer --python 3.13 --arch arm64 --engine mysql --rds-ca-bundle global-bundle.pem
  lambda-dbconn layer --python 3.13 --arch arm64 --engine mysql --like layer.zip -o again.zip
  lambda-dbconn layer --python 3.13 --arch arm64 --engine mysql -o layer.zip --sbom layer.cdx.json

The SHA-256 and the name of the file go to standard output, everything else to standard error.

The same again gives the same bytes. What is newer on PyPI by then is taken; --like keeps the versions of a layer, and
checks that their files are the same.
"""


def _engines(_ctx: click.Context, _option: click.Parameter, value: str) -> list[str]:
    engines = sorted({name.strip() for name in value.split(",")})
    unknown = [name for name in engines if name not in _ENGINES]
    if unknown:
        raise click.BadParameter(f"{', '.join(map(repr, unknown))}; accepted: {', '.join(_ENGINES)}, or both")
    return engines


def _completed_engines(_ctx: click.Context, _option: click.Parameter, incomplete: str) -> list[str]:
    """Complete the last of the names; the others are there already."""
    *given, last = incomplete.split(",")
    rest = [name for name in _ENGINES if name not in given and name.startswith(last)]
    return [",".join([*given, name]) for name in rest]


@click.command("layer", help=_HELP, short_help="Build a Lambda layer.")
@click.option("--python", type=click.Choice(["3.11", "3.12", "3.13", "3.14"]), required=True, help="The runtime's.")
@click.option(
    *("--arch", "architecture"),
    type=click.Choice(["x86_64", "arm64"]),
    required=True,
    help="The function's architecture.",
)
@click.option(
    *("--engine", "engines"),
    required=True,
    callback=_engines,
    shell_complete=_completed_engines,
    metavar="ENGINE[,ENGINE]",
    help="Whose drivers: postgresql, mysql, or both with a comma.",
)
@click.option(
    *("--output", "-o"),
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Default: lambda-dbconn-python3.13-arm64.zip, or what it is for.",
)
@click.option(
    *("--from", "source"),
    type=click.Path(exists=True, resolve_path=True, path_type=Path),
    help="A checkout or a wheel of lambda_dbconn. Default: what is installed.",
)
@click.option(*("--rds-ca-bundle", "bundle"), type=_FILE, help="A PEM file of RDS's authorities, to be in the layer.")
@click.option("--like", type=_FILE, help="A layer whose versions are to be taken.")
@click.option(
    "--sbom",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Where to write what the layer is made of, in CycloneDX's format.",
)
def command(
    *,
    python: str,
    architecture: Architecture,
    engines: list[str],
    output: Path | None,
    source: Path | None,
    bundle: Path | None,
    like: Path | None,
    sbom: Path | None,
) -> None:
    """Build it, and say what it is called."""
    from lambda_dbconn.cli.requirements import require

    require("pip", "packaging", *(("cyclonedx",) if sbom is not None else ()), extra="layer")

    from lambda_dbconn.cli.layer.building import Order, build
    from lambda_dbconn.cli.layer.runtime import Runtime

    output = output or Path(f"lambda-dbconn-python{python}-{architecture}.zip")
    for path, option in ((output, "--output"), (sbom, "--sbom")):
        if path is not None and not path.absolute().parent.is_dir():
            raise click.BadParameter(f"{path.parent} is not a directory", param_hint=option)
    order = Order(
        runtime=Runtime(python=python, architecture=architecture),
        engines=engines,
        output=output,
        source=source,
        bundle=bundle,
        like=like,
        sbom=sbom,
    )
    built = build(order)
    click.echo(f"{built.sha256}  {built.path}")
