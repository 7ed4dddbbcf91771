"""Freshly initialised data directories: made once, copied for every server."""

from __future__ import annotations

import subprocess
import threading
from typing import TYPE_CHECKING

from lambda_dbconn.testing.servers import process

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_PREPARE_TIMEOUT_S = 120.0

_lock = threading.Lock()
_templates: dict[str, Path] = {}


def copy_template(key: str, destination: Path, *, build: Callable[[Path], None]) -> None:
    """Copy the data directory known as `key` to `destination`.

    The first time in this process, `build(folder)` makes it, as `folder / "data"`.
    """
    with _lock:
        if key not in _templates:
            folder = process.make_temporary_directory()
            process.hand_over(folder)
            try:
                build(folder)
            except BaseException:
                process.remove_temporary_directory(folder)
                raise
            _templates[key] = folder / "data"
    # Three times as fast as shutil.copytree() with these thousand small files.
    subprocess.run(["cp", "-Rp", _templates[key], destination], check=True, capture_output=True)


def run_setup(folder: Path, *command: str | Path, sql: str = "") -> None:
    """Run a preparing program in `folder`, with `sql` as its input."""
    script_path = folder / "setup.sql"
    script_path.write_text(sql)
    process.run_to_end(
        [str(word) for word in command],
        directory=folder,
        log_path=folder / "setup.log",
        input_path=script_path,
        timeout_s=_PREPARE_TIMEOUT_S,
    )
