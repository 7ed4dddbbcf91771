"""The zip file: the same bytes for the same contents, and whether Lambda takes it.

Source: Lambda developer guide, "Lambda quotas".
"""

from __future__ import annotations

import hashlib
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import click

if TYPE_CHECKING:
    from pathlib import Path

    from lambda_dbconn.cli.layer.contents import Contents

MIB = 1024 * 1024
UPLOAD_LIMIT_BYTES = 50 * MIB  # zipped; more takes the way through S3
UNPACKED_LIMIT_BYTES = 250 * MIB  # of the function and all its layers together

_LONG_AGO = (1980, 1, 1, 0, 0, 0)  # the earliest date that a zip can say
_UNIX = 3
_READABLE_TO_ALL = (stat.S_IFREG | 0o644) << 16  # Lambda runs functions as a user who owns no file here


@dataclass(frozen=True, kw_only=True)
class Archive:
    """A layer that was written."""

    path: Path
    sha256: str
    zipped_bytes: int
    unpacked_bytes: int


def pack(contents: Contents, path: Path) -> None:
    """Write a new zip file whose bytes depend on nothing but these contents, and on zlib.

    Raises:
        OSError: There is such a file already, or a link; or it cannot be written.
    """
    with ZipFile(path, "x") as archive:
        for name, content in sorted(contents.items()):
            member = ZipInfo(name, _LONG_AGO)
            member.create_system, member.external_attr = _UNIX, _READABLE_TO_ALL
            archive.writestr(member, content, ZIP_DEFLATED, 9)


def check_size(unpacked_bytes: int) -> None:
    """Do nothing if Lambda takes so much.

    Raises:
        click.ClickException: It does not.
    """
    if unpacked_bytes > UNPACKED_LIMIT_BYTES:
        raise click.ClickException(
            f"the layer has {unpacked_bytes / MIB:.1f} MB unpacked, and Lambda takes {UNPACKED_LIMIT_BYTES // MIB}"
        )


def write(contents: Contents, path: Path) -> Archive:
    """Write a layer; one that was there before is replaced when the new one is whole.

    Raises:
        click.ClickException: Lambda would not unpack it, or the file cannot be written.
    """
    unpacked_bytes = sum(map(len, contents.values()))
    check_size(unpacked_bytes)
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        unfinished.unlink(missing_ok=True)  # of a run that was killed; or somebody's link, which is not followed
        pack(contents, unfinished)
        unfinished.replace(path)
    except OSError as error:
        raise click.ClickException(f"{path} cannot be written: {error.strerror}") from error
    finally:
        unfinished.unlink(missing_ok=True)
    zipped = path.read_bytes()
    return Archive(
        path=path,
        sha256=hashlib.sha256(zipped).hexdigest(),
        zipped_bytes=len(zipped),
        unpacked_bytes=unpacked_bytes,
    )
