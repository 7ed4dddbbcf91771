"""What the local servers leave behind, however a run ends: nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lambda_dbconn.testing.servers.reaper import living_processes, process_tree
from tests.support.clients import wait_until
from tests.support.leftovers import processes_that_mention, read_proc

if TYPE_CHECKING:
    from lambda_dbconn.testing.servers import LocalServer

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc to look at"),
]

REPOSITORY = Path(__file__).parents[2]

# A run that is killed by its parent, in several states, or that leaves by itself without closing its server.
RUN = """
import os, sys, tempfile, threading, time
from pathlib import Path
from lambda_dbconn.testing import servers

class_name, state = sys.argv[1:]
server = getattr(servers, class_name)()

def report_initialisation():
    while not list(Path(tempfile.gettempdir()).glob("*/setup.log")):
        time.sleep(0.001)
    time.sleep(0.05)
    print(0, flush=True)

if state == "initialising":
    threading.Thread(target=report_initialisation, daemon=True).start()
starting = threading.Thread(target=server.start)  # a server outlives the thread that started it
starting.start()
starting.join()
pid = server.pid
if state == "frozen":
    server.freeze()
if state == "server killed":
    server.kill()
print(pid, flush=True)
if state != "leaving":
    time.sleep(600)
"""


@pytest.mark.parametrize("state", ["initialising", "running", "frozen", "server killed", "leaving"])
def test_a_run_that_ends_leaves_nothing_behind(
    server_class: type[LocalServer], state: str, temporary_directory: Path
) -> None:
    orphaned_before = orphaned_shared_memory()
    with subprocess.Popen(
        [sys.executable, "-c", RUN, server_class.__name__, state],
        env={**os.environ, "TMPDIR": str(temporary_directory), "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as run:
        assert run.stdout is not None
        run.stdout.readline()
        started = processes_that_mention(temporary_directory)
        if state != "leaving":
            assert set(started) > {run.pid}  # the reaper at least
            os.killpg(run.pid, signal.SIGKILL)
    wait_until(lambda: not processes_that_mention(temporary_directory))
    assert list(temporary_directory.iterdir()) == []
    wait_until(lambda: living_processes().keys().isdisjoint(started))  # also those that are only to be reaped
    # Another run's server, while it is being initialised, has some for a moment: what is left behind stays.
    wait_until(lambda: orphaned_shared_memory() <= orphaned_before)


def test_a_directory_that_is_made_anew_after_its_removal_is_not_left_behind(temporary_directory: Path) -> None:
    """As `initdb` does, which makes a path whole, if the run is interrupted between starting it and knowing it."""
    program = (
        "from lambda_dbconn.testing.servers.process import make_temporary_directory, remove_temporary_directory\n"
        "directory = make_temporary_directory()\n"
        "remove_temporary_directory(directory)\n"
        "assert not directory.exists()\n"
        "(directory / 'data').mkdir(parents=True)\n"
    )
    environ = {**os.environ, "TMPDIR": str(temporary_directory), "PYTHONPATH": str(REPOSITORY)}
    subprocess.run([sys.executable, "-c", program], env=environ, check=True)
    assert list(temporary_directory.iterdir()) == []


def test_a_closed_server_leaves_nothing_even_when_it_was_killed(server_class: type[LocalServer]) -> None:
    orphaned_before = orphaned_shared_memory()
    with server_class() as server:
        home, tree = server.home, process_tree(server.pid)
        server.kill()
    assert not home.exists()
    wait_until(lambda: living_processes().keys().isdisjoint(tree))
    wait_until(lambda: orphaned_shared_memory() <= orphaned_before)


def orphaned_shared_memory() -> set[str]:
    """Name PostgreSQL's files in /dev/shm that no process uses, and likewise all System V segments."""
    files = {str(path) for path in Path("/dev/shm").glob("PostgreSQL.*")}
    if files:
        maps = b"\n".join(read_proc(pid, "maps") for pid in living_processes()).decode(errors="replace")
        files = {path for path in files if path not in maps}
    rows = [line.split() for line in Path("/proc/sysvipc/shm").read_text().splitlines()]
    segment_id, attached = rows[0].index("shmid"), rows[0].index("nattch")
    return files | {row[segment_id] for row in rows[1:] if row[attached] == "0"}
