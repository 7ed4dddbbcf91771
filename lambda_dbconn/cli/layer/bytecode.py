"""Bytecode for the runtime's Python, made by a Python of the same minor version, if this machine has one.

A layer is read-only: what has no bytecode is compiled again in every cold start. It is marked as not to be checked
against its source (PEP 552), for the zip's dates say nothing, and reading each source would be paid for, too.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import click

from lambda_dbconn.cli.layer.runtime import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lambda_dbconn.cli.layer.contents import Contents

_PROBE = "import sys; print(sys.implementation.name, '%d.%d.%d' % sys.version_info[:3], sys.version_info.releaselevel)"
_PROBE_TIMEOUT_S = 20
# In sorted order and one process, without hash randomization: what is interned when decides about some bytes.
_COMPILE = """
import importlib.util, json, py_compile, sys
from py_compile import PycInvalidationMode
compiled = {}
for path, shown in json.load(sys.stdin):
    target = importlib.util.cache_from_source(path, optimization="")
    py_compile.compile(path, target, shown, True, 0, PycInvalidationMode.UNCHECKED_HASH)
    compiled[path] = target
json.dump(compiled, sys.stdout)
"""


@dataclass(frozen=True, kw_only=True)
class Interpreter:
    """A CPython of this machine.

    Attributes:
        version: All three parts of it.
    """

    path: Path
    version: str

    @classmethod
    def find(cls, python: str) -> Interpreter | None:
        """Look for a released CPython of this version: this one, on the path, and where pyenv and uv keep them."""
        for path in _candidates(python):
            version = _version(path)
            if version is not None and version.startswith(f"{python}."):
                return cls(path=path, version=version)
        return None

    def compile(self, sources: Contents) -> Contents:
        """Return the bytecode of all modules among these files, by the path that Python looks for it at.

        Raises:
            click.ClickException: A module is not for this Python.
        """
        modules = sorted(path for path in sources if path.endswith(".py"))
        with TemporaryDirectory() as folder:
            places = {str(Path(folder, module)): module for module in modules}
            for place, module in places.items():
                Path(place).parent.mkdir(parents=True, exist_ok=True)
                Path(place).write_bytes(sources[module])
            job = json.dumps([[place, f"{ROOT}/{module}"] for place, module in places.items()])
            environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
            run = subprocess.run(  # noqa: S603 - an interpreter that was found and probed
                [self.path, "-P", "-s", "-S", "-c", _COMPILE],
                input=job,
                env={**environ, "PYTHONHASHSEED": "0"},
                capture_output=True,
                text=True,
                check=False,
            )
            if run.returncode != 0:
                what = run.stderr.strip().splitlines()[-1:] or ["it did not say why"]
                raise click.ClickException(f"Python {self.version} cannot compile what pip has chosen: {what[0]}")
            compiled: dict[str, str] = json.loads(run.stdout)
            return {
                Path(target).relative_to(folder).as_posix(): Path(target).read_bytes() for target in compiled.values()
            }


def _candidates(python: str) -> Iterator[Path]:
    yield Path(sys.executable)
    for folder in os.get_exec_path():
        found = shutil.which(f"python{python}", path=folder)  # one by one: pyenv's shims may be there, and not work
        if found is not None:
            yield Path(found)
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    yield from sorted(pyenv.glob(f"versions/{python}.*/bin/python{python}"))
    uv = Path(os.environ.get("UV_PYTHON_INSTALL_DIR") or Path.home() / ".local/share/uv/python")
    yield from sorted(uv.glob(f"cpython-{python}.*/bin/python{python}"))


def _version(path: Path) -> str | None:
    """Return the version of an interpreter; None if it does not run, or is not a released CPython."""
    try:
        run = subprocess.run(  # noqa: S603 - whatever is called python3.x here
            [path, "-I", "-c", _PROBE], capture_output=True, text=True, timeout=_PROBE_TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    match run.stdout.split():
        case ["cpython", version, "final"]:
            return version
    return None
