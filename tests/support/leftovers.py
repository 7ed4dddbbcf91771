"""What a process has left behind that was to clean up, or holds; by /proc."""

from __future__ import annotations

import os
from pathlib import Path

from lambda_dbconn.testing.servers.reaper import living_processes


def processes_that_mention(directory: Path) -> list[int]:
    """List the living processes whose environment, arguments or working directory name `directory`."""
    name = str(directory).encode()
    return [
        pid
        for pid in living_processes()
        if pid != os.getpid() and any(name in read_proc(pid, file) for file in ("environ", "cmdline", "cwd"))
    ]


def read_proc(pid: int, name: str) -> bytes:
    path = Path("/proc", str(pid), name)
    try:
        return os.fsencode(path.readlink()) if name == "cwd" else path.read_bytes()
    except OSError:  # it has just ended, or is not ours
        return b""


def held(what: str) -> int:
    """Count this process's open file descriptors (`fd`) or threads (`task`), also those that `threading` has lost."""
    folder = Path("/proc/self", what)
    return len(list(folder.iterdir())) if folder.exists() else 0
