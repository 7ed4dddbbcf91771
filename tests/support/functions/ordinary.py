"""A function with a database, which tells what becomes of its connection, its process and its threads."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

if os.environ.get("SIGTERM_HANDLER") == "mine":

    def goodbye(number: int, _frame: object) -> None:
        """Say that it was called, and end."""
        print(f"goodbye {number}", flush=True)
        os._exit(0)

    signal.signal(signal.SIGTERM, goodbye)

from alive import threads, timers  # type: ignore[import-not-found] # this folder is the task root

import lambda_dbconn

SESSION = {"postgresql": "SELECT pg_backend_pid()", "mysql": "SELECT CONNECTION_ID()"}

db: lambda_dbconn.ConnectionManager[Any] = lambda_dbconn.from_env()
opened_at_init = db.stats().opened
print(f"imported by {os.getpid()}", flush=True)


def session(context: Any = None, meet: Callable[[], object] | None = None) -> int:
    """Borrow, meet others that do, and return which session this is."""
    with db.connection(context) as connection, closing(connection.cursor()) as cursor:
        if meet is not None:
            meet()  # each holds a connection now
        cursor.execute(SESSION[db.settings.engine])
        return int(cursor.fetchone()[0])


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Do what the event asks for, and tell."""
    told: dict[str, Any] = {"pid": os.getpid(), "opened_at_init": opened_at_init}
    try:
        told["session"] = session(context)
    except lambda_dbconn.LambdaDbConnError as error:
        told |= {"error": type(error).__name__, "notes": getattr(error, "__notes__", [])}
    if "children" in event:
        told["children"] = in_children(event["children"])
        told["session_after"] = session(context)
    if "in_threads" in event:
        meeting = threading.Barrier(event["in_threads"], timeout=10)
        with ThreadPoolExecutor(max_workers=event["in_threads"]) as pool:
            told["in_threads"] = list(pool.map(lambda _: session(context, meeting.wait), range(event["in_threads"])))
    if "meet_in" in event:
        told["session"] = session(context, lambda: meet_in(Path(event["meet_in"]), event["count"]))
    replaced = dict(db.stats().replaced)
    return told | {"opened": db.stats().opened, "replaced": replaced, "threads": threads(), "timers": timers()}


def in_children(count: int) -> list[list[int]]:
    """Borrow twice in each of so many forked processes, as the runtime forks its workers; all at once."""
    processes = multiprocessing.get_context("fork")
    together = processes.Barrier(count)

    def child(pipe: Any) -> None:
        together.wait(10)
        pipe.send([session(), session()])
        together.wait(10)  # until then all have their connection

    pipes = [processes.Pipe(duplex=False) for _ in range(count)]
    children = [processes.Process(target=child, args=(writing,)) for _, writing in pipes]
    for process in children:
        process.start()
    answers = [reading.recv() for reading, _ in pipes]
    for process in children:
        process.join()
    return answers


def meet_in(folder: Path, count: int) -> None:
    """Wait until so many processes are here."""
    (folder / str(os.getpid())).touch()
    while len(list(folder.iterdir())) < count:
        time.sleep(0.01)


def bare(_event: object, _context: object) -> dict[str, Any]:
    """Do nothing: what a runtime has without a database."""
    return {"threads": threads()}
