"""What of the wheels goes into the layer: what a function imports, and the licences."""

from __future__ import annotations

import stat
import zlib
from pathlib import PurePosixPath
from typing import TYPE_CHECKING
from zipfile import BadZipFile, ZipFile

import click

from lambda_dbconn.cli.layer.archive import check_size

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path
    from zipfile import ZipInfo

Contents = dict[str, bytes]  # by path in the layer

_DEVELOPERS_SUFFIXES = {".pyi", ".pyx", ".pxd", ".c", ".h"}
_DEVELOPERS_NAMES = {"py.typed", "test", "tests"}
_INSTALLERS_NAMES = {"RECORD", "INSTALLER", "REQUESTED", "direct_url.json"}  # nobody uninstalls from a layer
_NOT_FOR_A_FUNCTION = {"lambda_dbconn/cli", "lambda_dbconn/testing", "lambda_dbconn/__main__.py"}
_LIBRARIES = {"purelib", "platlib"}  # of a wheel's .data; scripts and headers are for machines


def unpack(wheels: Iterable[Path], *, site_packages: str) -> Contents:
    """Return what a function needs of these wheels, by path in the layer.

    Raises:
        click.ClickException: A wheel cannot be read, has a member that is not for its folder or is no ordinary file, or
            Lambda would not unpack so much.
    """
    contents: Contents = {}
    unpacked_bytes = 0
    for path in wheels:
        try:
            with ZipFile(path) as wheel:
                for member in wheel.infolist():
                    place = None if member.is_dir() else _place(_checked(member))
                    if place is not None and _is_for_a_function(place):
                        unpacked_bytes += member.file_size
                        check_size(unpacked_bytes)  # before it is read: it may be a bomb
                        contents[f"{site_packages}/{place}"] = wheel.read(member)
        except (BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError, zlib.error) as error:
            raise click.ClickException(f"{path.name} is not a wheel that can be unpacked: {error}") from error
    return contents


def _checked(member: ZipInfo) -> PurePosixPath:
    """Return the path of a file in a wheel.

    Raises:
        ValueError: It leads out of the wheel's folder, has what no path should have, or is a link or a device.
    """
    name = member.filename
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\\" in name or not name.isprintable():
        raise ValueError(f"{name!r} is not the path of a file in a wheel")
    mode = stat.S_IFMT(member.external_attr >> 16)
    if mode not in (0, stat.S_IFREG):
        raise ValueError(f"{name!r} is not an ordinary file")
    return path


def _place(member: PurePosixPath) -> PurePosixPath | None:
    """Return where an installer would put it in site-packages; None for elsewhere."""
    if not member.parts[0].endswith(".data"):
        return member
    data, *inner = member.parts[1:]
    return PurePosixPath(*inner) if data in _LIBRARIES and inner else None


def _is_for_a_function(path: PurePosixPath) -> bool:
    if path.parts[0].endswith(".dist-info"):
        return path.name not in _INSTALLERS_NAMES
    if any(str(parent) in _NOT_FOR_A_FUNCTION for parent in (path, *path.parents)):
        return False
    return path.suffix not in _DEVELOPERS_SUFFIXES and _DEVELOPERS_NAMES.isdisjoint(path.parts)
