"""A wheel of lambda_dbconn itself: the one that runs this command, or another that the user names.

Never the package index's: a layer is to have the code that its owner has tested.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import click

import lambda_dbconn
from lambda_dbconn.cli.layer.archive import pack
from lambda_dbconn.cli.layer.pip import run_pip

NAME = "lambda-dbconn"
_METADATA = ("METADATA", "WHEEL", "entry_points.txt")  # and licences; the rest tells of how it was installed


def own_wheel(source: Path | None, *, folder: Path) -> Path:
    """Return a wheel: of what is installed, or of a checkout, or the given one.

    Args:
        source: A checkout or a wheel; None for what is installed.
        folder: Where it may be made.

    Raises:
        click.ClickException: There is none, or it cannot be built.
    """
    if source is None:
        return _repacked(folder)
    if source.is_dir():
        return _built(source, folder=folder)
    if not source.name.startswith("lambda_dbconn-") or source.suffix != ".whl":
        raise click.BadParameter(f"{source} is neither a checkout nor a wheel of lambda_dbconn", param_hint="--from")
    return source


def _repacked(folder: Path) -> Path:
    """Make a wheel of the package that runs, with the metadata of its installation."""
    try:
        installed = distribution(NAME)
    except PackageNotFoundError as error:
        raise click.ClickException("lambda-dbconn is not installed: name a checkout or a wheel with --from") from error
    version = lambda_dbconn.__version__
    if installed.version != version:
        raise click.ClickException(
            f"lambda-dbconn is installed as {installed.version}, but what runs is {version}: "
            "install it again, or name a checkout or a wheel with --from"
        )
    path = folder / f"lambda_dbconn-{version}-py3-none-any.whl"
    package = Path(lambda_dbconn.__file__).parent
    contents = {
        f"lambda_dbconn/{file.relative_to(package).as_posix()}": file.read_bytes()
        for file in package.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    for file in installed.files or ():
        name = file.as_posix().partition(".dist-info/")[2]
        if name in _METADATA or name.startswith("licenses/"):
            contents[f"lambda_dbconn-{version}.dist-info/{name}"] = file.read_binary()
    pack(contents, path)
    return path


def _built(checkout: Path, *, folder: Path) -> Path:
    """Let pip build a checkout's wheel."""
    purpose = f"lambda_dbconn cannot be built from {checkout}"
    run_pip("wheel", "--no-deps", "--wheel-dir", str(folder), "--", str(checkout), purpose=purpose)
    wheels = list(folder.glob("lambda_dbconn-*.whl"))
    if not wheels:
        raise click.BadParameter(f"{checkout} is not a checkout of lambda_dbconn", param_hint="--from")
    return wheels[0]
