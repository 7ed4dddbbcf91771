"""Small wheels, as an index would have them."""

from __future__ import annotations

from typing import TYPE_CHECKING
from zipfile import ZipFile, ZipInfo

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path


def make_wheel(
    folder: Path,
    name: str,
    version: str,
    *,
    tag: str = "py3-none-any",
    requires: Iterable[str] = (),
    extras: Iterable[str] = (),
    files: Mapping[str, str] | None = None,
) -> Path:
    """Write a wheel that pip accepts, the same bytes each time; by default its only module is `name`."""
    metadata = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nLicense: MIT"]
    metadata += [f"Provides-Extra: {extra}" for extra in extras]
    metadata += [f"Requires-Dist: {requirement}" for requirement in requires]
    written = name.replace("-", "_")
    about = f"{written}-{version}.dist-info"
    path = folder / f"{written}-{version}-{tag}.whl"
    folder.mkdir(parents=True, exist_ok=True)
    with ZipFile(path, "w") as wheel:
        for file, content in (files or {f"{written}.py": f"VERSION = {version!r}\n"}).items():
            wheel.writestr(ZipInfo(file), content)
        wheel.writestr(ZipInfo(f"{about}/METADATA"), "\n".join(metadata) + "\n\n")
        wheel.writestr(ZipInfo(f"{about}/WHEEL"), f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n")
        wheel.writestr(ZipInfo(f"{about}/RECORD"), "")
    return path
