"""Layers as people build them, and a clean environment to run one in."""

from __future__ import annotations

import json
import os
import platform
import struct
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from zipfile import ZipFile

from tests.support.local_proxy import clean_environment

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

LIMIT_S = 110.0
HERE = {"x86_64": "x86_64", "aarch64": "arm64", "arm64": "arm64"}.get(platform.machine())
THIS_PYTHON = "{}.{}".format(*sys.version_info)
ELF_MACHINES = {"x86_64": 62, "arm64": 183}  # EM_X86_64, EM_AARCH64


def run_command(*arguments: str, folder: Path, environ: Mapping[str, str] = {}) -> subprocess.CompletedProcess[str]:
    """Run `lambda-dbconn layer`; its output goes to `folder`."""
    return subprocess.run(
        [sys.executable, "-P", "-m", "lambda_dbconn", "layer", *arguments],
        cwd=folder,
        env=clean_environment(environ),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


@dataclass(frozen=True, kw_only=True)
class BuiltLayer:
    """A layer, unpacked.

    Attributes:
        root: What is `/opt` in Lambda.
        told: What the command said on standard error.
    """

    path: Path
    root: Path
    site_packages: Path
    manifest: dict[str, Any]
    told: str

    @classmethod
    def open(cls, path: Path, *, told: str) -> BuiltLayer:
        """Unpack a layer beside itself."""
        root = path.with_suffix("")
        with ZipFile(path) as layer:
            layer.extractall(root)
        manifest = json.loads((root / "lambda_dbconn/layer.json").read_text())
        site_packages = root / "python" / "lib" / f"python{manifest['python']}" / "site-packages"
        return cls(path=path, root=root, site_packages=site_packages, manifest=manifest, told=told)

    @property
    def versions(self) -> dict[str, str]:
        """The versions by name."""
        return {each["name"]: each["version"] for each in self.manifest["distributions"]}

    def run(self, program: str, environ: Mapping[str, str] = {}) -> subprocess.CompletedProcess[str]:
        """Run a program with this Python, this layer, and nothing else: no site-packages, no settings."""
        start = f"import sys; sys.path.append({str(self.site_packages)!r}); sys.dont_write_bytecode = True\n"
        return subprocess.run(
            [sys.executable, "-I", "-S", "-c", start + program],
            cwd=os.sep,
            env=dict(environ),
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )


def elf_machine(content: bytes) -> int:
    """Return the machine that an ELF file is for."""
    assert content[:6] == b"\x7fELF\x02\x01", "not a little-endian ELF file of 64 bits"
    (machine,) = struct.unpack_from("<H", content, 18)
    return int(machine)
