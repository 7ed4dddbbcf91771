"""Layers for every engine, Python and architecture: their sizes, and importing from them with bytecode and without.

The table is the one in docs/explanation/what-it-costs.md: `python -m benchmarks layer`. A layer for a Python or an
architecture that is not here is built all the same, and not run.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NamedTuple
from zipfile import ZipFile

import lambda_dbconn
from lambda_dbconn.cli.layer.archive import MIB
from lambda_dbconn.cli.layer.bytecode import Interpreter
from lambda_dbconn.cli.layer.runtime import ARCHITECTURES, PYTHONS

if TYPE_CHECKING:
    from lambda_dbconn.cli.layer.runtime import Architecture

SUBJECTS = {"PostgreSQL": ["postgresql"], "MySQL": ["mysql"], "both": ["postgresql", "mysql"]}
HEAD = ["Engines", "Python", "Architecture", "Zipped", "Unpacked", "Import", "Without bytecode", "Ratio"]
NOT_RUN = "not run here"
_RUNS = 21
# What the init phase of a function does: imports the library, reads the settings, imports the drivers. No connection.
# Time of the processor: an import from files in memory waits for nothing else, and so other work here counts for less.
_PROGRAM = """
import sys, time
sys.path.append(sys.argv[1])
start = time.process_time()
import lambda_dbconn
for engine in sys.argv[2:]:
    lambda_dbconn.from_env(engine.upper() + "_")
print((time.process_time() - start) * 1e3)
"""


class Layer(NamedTuple):
    """What a layer is for."""

    engines: str
    python: str
    architecture: Architecture


LAYERS = [
    Layer(engines, python, architecture) for engines in SUBJECTS for architecture in ARCHITECTURES for python in PYTHONS
]


def measure(engines: str) -> str:
    """Return the table's lines for the layers with these drivers, the first of them below the head."""
    head = ["| " + " | ".join(HEAD) + " |", "|---" * len(HEAD) + "|"] if engines == next(iter(SUBJECTS)) else []
    return "\n".join([*head, *(_line(layer) for layer in LAYERS if layer.engines == engines)])


def _line(layer: Layer) -> str:
    with TemporaryDirectory() as folder:
        path = _build(layer, folder=Path(folder))
        with ZipFile(path) as archive:
            unpacked_bytes = sum(member.file_size for member in archive.infolist())
            is_compiled = json.loads(archive.read("lambda_dbconn/layer.json"))["bytecode"] is not None
        sizes = [f"{path.stat().st_size / MIB:.1f} MB", f"{unpacked_bytes / MIB:.1f} MB"]
        interpreter = Interpreter.find(layer.python)
        is_run = interpreter is not None and ARCHITECTURES[layer.architecture] == platform.machine()
        if is_run:
            assert interpreter is not None
            times = _times(layer, path, interpreter)
        else:
            times = [NOT_RUN if is_compiled else f"{NOT_RUN}, no bytecode", NOT_RUN, ""]
    return "| " + " | ".join([*layer, *sizes, *times]) + " |"


def _times(layer: Layer, path: Path, interpreter: Interpreter) -> list[str]:
    """Return medians of alternating processes, with files in memory, and the median of the ratios of pairs."""
    ours, plain = (_unpack(path, path.with_name(name), layer.python) for name in ("with", "without"))
    for compiled in list(plain.rglob("*.pyc")):
        compiled.unlink()
    engines = SUBJECTS[layer.engines]
    for packages in (ours, plain):
        _import_ms(interpreter, packages, engines)
    pairs = [[_import_ms(interpreter, packages, engines) for packages in (ours, plain)] for _ in range(_RUNS)]
    with_ms, without_ms = (statistics.median(side) for side in zip(*pairs, strict=True))
    ratio = statistics.median(two / one for one, two in pairs)
    return [f"{with_ms:.0f} ms", f"{without_ms:.0f} ms", f"{ratio:.1f}\N{MULTIPLICATION SIGN}"]


def _build(layer: Layer, *, folder: Path) -> Path:
    target = ["--python", layer.python, "--arch", layer.architecture, "--engine", ",".join(SUBJECTS[layer.engines])]
    root = str(Path(lambda_dbconn.__file__).parent.parent)
    subprocess.run(
        [sys.executable, "-m", "lambda_dbconn", "layer", *target, "-o", str(folder / "layer.zip")],
        env={**os.environ, "PYTHONPATH": root},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    return folder / "layer.zip"


def _unpack(path: Path, folder: Path, python: str) -> Path:
    with ZipFile(path) as archive:
        archive.extractall(folder)
    return folder / f"python/lib/python{python}/site-packages"


def _import_ms(interpreter: Interpreter, packages: Path, engines: list[str]) -> float:
    """Import in a process that has only Python and the layer, and leaves no bytecode behind."""
    settings = {"HOST": "localhost", "NAME": "app", "USER": "app", "PASSWORD": "app"}
    environ = {f"{engine.upper()}_{name}": value for engine in engines for name, value in settings.items()}
    process = subprocess.run(
        [interpreter.path, "-I", "-S", "-B", "-c", _PROGRAM, str(packages), *engines],
        env=environ | {f"{engine.upper()}_ENGINE": engine for engine in engines},
        stdout=subprocess.PIPE,
        check=True,
    )
    return float(process.stdout)
