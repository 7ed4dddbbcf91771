"""Ends what a run has started, and removes what it has written, even when the run was killed.

This file is also a script: `process.py` starts it beside the run, in a session of its own, and tells it
one fact a line through a pipe:

    directory /tmp/x    a temporary directory is about to be made
    process 4242        this process has been started
    ended 4242          it has been waited for

When the last writer of that pipe is gone, which no kind of death can prevent, it cleans up and exits.
A parent-death signal would be shorter, but it fires when the *thread* that started the server ends,
and nothing would remove the directories. Only the standard library is imported, so that it starts quickly.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

_POLL_INTERVAL_S = 0.005
_KILL_TIMEOUT_S = 5.0

# A line of /proc/*/maps: "address permissions offset device inode path", the path without a directory.
_SHARED_MEMORY = re.compile(r"^\S+ \S+s \S+ \S+ (\d+) +(/SYSV\w+|/dev/shm/[^/\n]+?)(?: \(deleted\))?$", re.MULTILINE)


def living_processes() -> dict[int, int]:
    """Map the id of every process that is not a zombie to its parent's id."""
    if not Path("/proc/self/stat").exists():
        return _living_processes_by_ps()
    parents = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdecimal():
            with suppress(OSError):  # it has just ended
                # "pid (name) state parent ...", where the name itself may hold spaces and brackets.
                status = Path(entry.path, "stat").read_text(errors="replace")
                state, parent = status.rpartition(")")[2].split()[:2]
                if state != "Z":
                    parents[int(entry.name)] = int(parent)
    return parents


def _living_processes_by_ps() -> dict[int, int]:
    listing = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,stat="], capture_output=True, text=True, check=True).stdout
    rows = (line.split() for line in listing.splitlines())
    return {int(pid): int(parent) for pid, parent, state in rows if not state.startswith("Z")}


def process_tree(root: int) -> list[int]:
    """List `root` and its living descendants, parents first.

    A process group would not do: every PostgreSQL backend makes itself the leader of its own.
    """
    parents = living_processes()
    tree = [root] if root in parents else []
    for member in tree:
        tree.extend(pid for pid, parent in parents.items() if parent == member)
    return tree


def freeze_tree(root: int) -> list[int]:
    """Stop `root` and its descendants with `SIGSTOP`, and list them."""
    send_signal([root], signal.SIGSTOP)  # first, so that it starts no more of them
    frozen = [root]
    while new := [pid for pid in process_tree(root) if pid not in frozen]:
        send_signal(new, signal.SIGSTOP)
        frozen += new
    return frozen


def kill_tree(root: int) -> None:
    """Kill `root` and its descendants with their shared memory, and return when none of them lives any more."""
    # The memory first, while the processes still tell, and the root last: were we killed in between, the
    # reaper would still find all that is left to do.
    tree = freeze_tree(root)
    for inode, path in {segment for pid in tree for segment in shared_memory(pid)}:
        if path.startswith("/dev/shm"):
            Path(path).unlink(missing_ok=True)
        else:  # a System V segment, whose inode is its id; it goes with its last user
            subprocess.run(["ipcrm", "-m", inode], stderr=subprocess.DEVNULL, check=False)
    send_signal(tree[::-1], signal.SIGKILL)
    deadline_s = time.monotonic() + _KILL_TIMEOUT_S
    while time.monotonic() < deadline_s and not living_processes().keys().isdisjoint(tree):
        time.sleep(_POLL_INTERVAL_S)


def shared_memory(pid: int) -> list[tuple[str, str]]:
    """List the memory of a process that would survive its kill, by inode and path; nothing without /proc.

    PostgreSQL marks its data directory as taken by a segment, and has files in /dev/shm during `initdb`.
    """
    try:
        return _SHARED_MEMORY.findall(Path(f"/proc/{pid}/maps").read_text(errors="replace"))
    except OSError:
        return []


def send_signal(pids: list[int], number: signal.Signals) -> None:
    """Send a signal to each process that is still there."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def main() -> None:
    """Keep the list of what there is until the run has gone, then end and remove all of it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    directories: set[str] = set()  # all that there ever were: one that is gone may be made anew until all is ended
    processes: set[str] = set()
    for line in sys.stdin:
        event, _, subject = line.rstrip("\n").partition(" ")
        if event == "directory":
            directories.add(subject)
        elif event == "process":
            processes.add(subject)
        else:
            processes.discard(subject)
    for pid in processes:
        kill_tree(int(pid))
    for directory in directories:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
