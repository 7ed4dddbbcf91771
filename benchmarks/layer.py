"""What bytecode saves in a layer: importing from one with it and from the same without, as a cold start does."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import ZipFile

import lambda_dbconn
from lambda_dbconn.cli.layer.bytecode import Interpreter
from lambda_dbconn.cli.layer.runtime import PYTHONS

_LAMBDAS_NAMES = {"x86_64": "x86_64", "aarch64": "arm64"}
# What the init phase of a function does: imports the library, reads the settings, imports the driver. No connection.
_PROGRAM = """
import sys, time
sys.path.append(sys.argv[1])
start = time.perf_counter()
import lambda_dbconn
lambda_dbconn.from_env()
print((time.perf_counter() - start) * 1e3)
"""


def measure(engine: str, *, runs: int = 21) -> str:
    """Return a line of results for each Python that is here: medians of alternating processes, files in memory."""
    found = [(python, Interpreter.find(python)) for python in PYTHONS]
    return "\n".join(
        _measure(engine, python=python, interpreter=interpreter, runs=runs)
        for python, interpreter in found
        if interpreter is not None
    )


def _measure(engine: str, *, python: str, interpreter: Interpreter, runs: int) -> str:
    with TemporaryDirectory() as folder:
        layer = _build(engine, python=python, folder=Path(folder))
        ours, plain = (
            _unpack(layer, Path(folder, name)) / f"python{python}/site-packages" for name in ("with", "without")
        )
        for compiled in list(plain.rglob("*.pyc")):
            compiled.unlink()
        for packages in (ours, plain):
            _import_ms(interpreter, packages, engine)
        pairs = [[_import_ms(interpreter, packages, engine) for packages in (ours, plain)] for _ in range(runs)]
        zipped_mb = layer.stat().st_size / 2**20
    with_ms, without_ms = (statistics.median(side) for side in zip(*pairs, strict=True))
    return (
        f"{engine:<11}Python {interpreter.version:<7} {zipped_mb:.1f} MB zipped   import {with_ms:6.1f} ms   "
        f"without bytecode {without_ms:6.1f} ms   ratio {statistics.median(two / one for one, two in pairs):.2f}"
    )


def _build(engine: str, *, python: str, folder: Path) -> Path:
    target = ["--python", python, "--arch", _LAMBDAS_NAMES[platform.machine()], "--engine", engine]
    root = str(Path(lambda_dbconn.__file__).parent.parent)
    subprocess.run(
        [sys.executable, "-m", "lambda_dbconn", "layer", *target, "-o", str(folder / "layer.zip")],
        env={**os.environ, "PYTHONPATH": root},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    return folder / "layer.zip"


def _unpack(layer: Path, folder: Path) -> Path:
    with ZipFile(layer) as archive:
        archive.extractall(folder)
    return folder / "python/lib"


def _import_ms(interpreter: Interpreter, packages: Path, engine: str) -> float:
    """Import in a process that has only Python and the layer, and leaves no bytecode behind."""
    settings = {"ENGINE": engine, "HOST": "localhost", "NAME": "app", "USER": "app", "PASSWORD": "app"}
    process = subprocess.run(
        [interpreter.path, "-I", "-S", "-B", "-c", _PROGRAM, str(packages)],
        env={f"DB_{name}": value for name, value in settings.items()},
        stdout=subprocess.PIPE,
        check=True,
    )
    return float(process.stdout)
