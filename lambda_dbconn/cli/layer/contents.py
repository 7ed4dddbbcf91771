"""What of the wheels goes into the layer: what a function imports, and the licences."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING
from zipfile import ZipFile

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

Contents = dict[str, bytes]  # by path in the layer

_DEVELOPERS_SUFFIXES = {".pyi", ".pyx", ".pxd", ".c", ".h"}
_DEVELOPERS_NAMES = {"py.typed", "test", "tests"}
_INSTALLERS_NAMES = {"RECORD", "INSTALLER", "REQUESTED", "direct_url.json"}  # nobody uninstalls from a layer
_NOT_FOR_A_FUNCTION = {"lambda_dbconn/cli", "lambda_dbconn/testing", "lambda_dbconn/__main__.py"}
_LIBRARIES = {"purelib", "platlib"}  # of a wheel's .data; scripts and headers are for machines


def unpack(wheels: Iterable[Path], *, site_packages: str) -> Contents:
    """Return what a function needs of these wheels, by path in the layer."""
    contents: Contents = {}
    for path in wheels:
        with ZipFile(path) as wheel:
            for member in wheel.infolist():
                place = None if member.is_dir() else _place(PurePosixPath(member.filename))
                if place is not None and _is_for_a_function(place):
                    contents[f"{site_packages}/{place}"] = wheel.read(member)
    return contents


def _place(member: PurePosixPath) -> PurePosixPath | None:
    """Return where an installer would put it in site-packages; None for elsewhere."""
    if not member.parts[0].endswith(".data"):
        return member
    return PurePosixPath(*member.parts[2:]) if member.parts[1] in _LIBRARIES else None


def _is_for_a_function(path: PurePosixPath) -> bool:
    if path.parts[0].endswith(".dist-info"):
        return path.name not in _INSTALLERS_NAMES
    if any(str(parent) in _NOT_FOR_A_FUNCTION for parent in (path, *path.parents)):
        return False
    return path.suffix not in _DEVELOPERS_SUFFIXES and _DEVELOPERS_NAMES.isdisjoint(path.parts)
