"""What the local servers leave behind, however a run ends: nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lambda_dbconn.testing.servers import LocalPostgres
from lambda_dbconn.testing.servers.reaper import living_processes, process_tree, shared_memory
from tests.support.clients import wait_until
from tests.support.leftovers import processes_that_mention

if TYPE_CHECKING:
    from lambda_dbconn.testing.servers import LocalServer

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc to look at"),
]

REPOSITORY = Path(__file__).parents[2]

# A run that is killed by its parent, in several states, or that leaves by itself without closing its server. It tells
# what shared memory its processes have; MariaDB's have none.
RUN = """
import json, os, sys, tempfile, threading, time
from pathlib import Path
from lambda_dbconn.testing import servers
from lambda_dbconn.testing.servers.reaper import process_tree, shared_memory

class_name, state = sys.argv[1:]
server = getattr(servers, class_name)()

def memory():
    return [each for pid in process_tree(os.getpid()) for each in shared_memory(pid)]

def report_initialisation():
    while not list(Path(tempfile.gettempdir()).glob("*/setup.log")):
        time.sleep(0.001)
    while class_name == "LocalPostgres" and not (found := memory()):
        time.sleep(0.001)
    print(json.dumps(found if class_name == "LocalPostgres" else []), flush=True)

if state == "initialising":
    threading.Thread(target=report_initialisation, daemon=True).start()
starting = threading.Thread(target=server.start)  # a server outlives the thread that started it
starting.start()
starting.join()
found = memory()
if state == "frozen":
    server.freeze()
if state == "server killed":
    server.kill()
print(json.dumps(found), flush=True)
if state != "leaving":
    time.sleep(600)
"""


@pytest.mark.parametrize("state", ["initialising", "running", "frozen", "server killed", "leaving"])
def test_a_run_that_ends_leaves_nothing_behind(
    server_class: type[LocalServer], state: str, temporary_directory: Path
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", RUN, server_class.__name__, state],
        env={**os.environ, "TMPDIR": str(temporary_directory), "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as run:
        assert run.stdout is not None
        memory = {(inode, path) for inode, path in json.loads(run.stdout.readline())}
        assert bool(memory) == (server_class is LocalPostgres)
        started = processes_that_mention(temporary_directory)
        if state != "leaving":
            assert set(started) > {run.pid}  # the reaper at least
            os.killpg(run.pid, signal.SIGKILL)
    wait_until(lambda: not processes_that_mention(temporary_directory))
    assert list(temporary_directory.iterdir()) == []
    wait_until(lambda: living_processes().keys().isdisjoint(started))  # also those that are only to be reaped
    assert still_there(memory) == set()


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
    with server_class() as server:
        home, tree = server.home, process_tree(server.pid)
        memory = {segment for pid in tree for segment in shared_memory(pid)}
        server.kill()
    assert not home.exists()
    wait_until(lambda: living_processes().keys().isdisjoint(tree))
    assert still_there(memory) == set()


def still_there(memory: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """Return what is still there of shared memory by inode and path; other runs on this machine have their own."""
    rows = [line.split() for line in Path("/proc/sysvipc/shm").read_text().splitlines()]
    column = rows[0].index("shmid")
    segments = {row[column] for row in rows[1:]}
    return {(inode, path) for inode, path in memory if inode in segments or Path(path).exists()}
