"""Many invocations under faults: `python -m tests.support.many_invocations COUNT SEED`, which prints what they cost.

The environment says which database. What befalls the connection, the function does to itself: its socket is shut, its
session is killed, time passes, a signal strikes. JSON tells what happened, and what the process held on the way.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import signal
import socket
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import lambda_dbconn
from tests.support.clients import wait_until
from tests.support.database import ShiftedClock, fetch
from tests.support.leftovers import held
from tests.support.storm import Storm

if TYPE_CHECKING:
    from collections.abc import Callable

SAMPLES = 5
FAULTS_OF_A_HUNDRED = 8
TIMEOUT_S = 60.0
FREEZES_S = (31.0, 1_300.0, 2_000.0)  # a ping, a ping, and a new connection


@dataclass(frozen=True)
class Invocation:
    """Stands for the Lambda context."""

    aws_request_id: str

    def get_remaining_time_in_millis(self) -> int:
        """Return the milliseconds until Lambda ends the invocation."""
        return int(TIMEOUT_S * 1000)


class Function(Storm):
    """Invocations, and what happens between them and in them."""

    def __init__(self, seed: int) -> None:
        self._clock = ShiftedClock()
        super().__init__(seed, clock=self._clock)

    def live(self, invocations: int) -> list[dict[str, int]]:
        """Have that many; return what the process held after each part of them."""
        loans = (self.ask, self.ask_without_limit, self.ask_twice, self.leave, self.fail, self.stream, self.in_a_thread)
        idle = (self.freeze, self.shut, self.kill)
        inside = (self.shut_inside, self.kill_inside, self.end)
        samples = []
        for number in range(1, invocations + 1):
            with lambda_dbconn.invocation(Invocation(str(number))):
                drawn = self._chance.random() * 100
                if drawn < FAULTS_OF_A_HUNDRED / 4:
                    self._tried(self._chance.choice(loans), self._chance.uniform(0.0, 0.002))
                elif drawn < FAULTS_OF_A_HUNDRED / 2:
                    self._befallen(self._chance.choice(inside))
                elif drawn < FAULTS_OF_A_HUNDRED:
                    self._befallen(self._chance.choice(idle))
                    self._tried(self._chance.choice(loans), None)
                else:
                    self._tried(self._chance.choice(loans), None)
            if number % 10 == 0:
                self._tried(self.innocent, None)
            if number % (invocations // SAMPLES) == 0:
                samples.append(self.sample())
        self._db.close()
        return samples

    def sample(self) -> dict[str, int]:
        """Count what this process holds, and how many sessions it has."""
        wait_until(lambda: self._db.stats().in_use == 0)  # a thread whose join a signal has interrupted goes on
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        stats = self._db.stats()
        return {
            "memory KiB": pages * os.sysconf("SC_PAGE_SIZE") // 1024,
            "descriptors": held("fd"),
            "threads": held("task"),
            "objects": len(gc.get_objects()),
            "lent": stats.in_use,
            "open": stats.open,
        }

    def in_a_thread(self) -> None:
        """Ask in a thread, which ends."""
        errors: list[BaseException] = []

        def ask() -> None:
            try:
                self.ask()
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()
        if errors:
            raise errors.pop()

    # --- faults

    def _befallen(self, fault: Callable[[], None]) -> None:
        self.counts[fault.__name__] += 1
        self.counts["faults"] += 1
        fault()

    def freeze(self) -> None:
        """Let time pass."""
        self._clock.advance(self._chance.choice(FREEZES_S))

    def shut(self) -> None:
        """Shut the socket of the idle connection."""
        with self._db.connection() as conn:
            fileno = conn.fileno()
        with suppress(OSError):
            self._shut(fileno)

    def kill(self) -> None:
        """Kill the idle session, from another one."""
        with self._db.connection() as conn:
            self._kill(conn)

    def shut_inside(self) -> None:
        """Shut the socket in the middle of a loan, whose error that is."""
        with suppress(*self.errors), self._db.transaction(TIMEOUT_S) as conn:
            self._ask(conn)
            self._shut(conn.fileno())
            self._ask(conn)

    def kill_inside(self) -> None:
        """Kill the session in the middle of a loan, by itself."""
        with suppress(*self.errors), self._db.connection(TIMEOUT_S) as conn:
            self._kill(conn)
            self._ask(conn)

    def end(self) -> None:
        """Close the manager's connections."""
        self._db.close()

    @staticmethod
    def _shut(fileno: int) -> None:
        with socket.socket(fileno=os.dup(fileno)) as sock:
            sock.shutdown(socket.SHUT_RDWR)

    def _kill(self, conn: object) -> None:
        with suppress(*self.errors):
            if self._is_postgresql:
                fetch(conn, "SELECT pg_terminate_backend(pg_backend_pid())")
            else:
                ((number,),) = fetch(conn, "SELECT CONNECTION_ID()")
                fetch(conn, f"KILL {number}")


def main(invocations: int, seed: int) -> None:
    """Have the invocations, and print what they did and cost."""
    logging.getLogger("lambda_dbconn").setLevel(logging.CRITICAL)
    function = Function(seed)
    samples = function.live(invocations)
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    print(json.dumps({"counts": function.counts, "samples": samples}))  # noqa: T201


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
