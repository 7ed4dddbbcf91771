"""A storm of SIGALRM over loans: `python -m tests.support.storm COUNT SEED`, which prints what it counted as JSON.

The environment says which database. Each loan that is to be interrupted gets a timer with a random delay; those in
between are innocent. Whatever a loan is told must be the answer to its own question.
"""

from __future__ import annotations

import json
import logging
import random
import signal
import sys
import time
from collections import Counter
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING, Any

from pymysql.cursors import SSCursor

from lambda_dbconn import ConnectionManager, Settings
from tests.support.leftovers import held
from tests.support.strikes import Struck, StruckError
from tests.support.struck_loans import DRIVER_ERRORS, MYSQL, POSTGRESQL, comes_from_strike, is_idle

if TYPE_CHECKING:
    from collections.abc import Callable

    from lambda_dbconn.deadline import Clock

CONTEXT_S = 60.0
OFTEN = 0.9  # how many of the timers run out within the usual time of a loan, and not of connecting
LONGEST = 8.0  # usual times, of the others
ERRORS = 10  # each such interrupt is an ordinary error: while connecting it is one more attempt, after a pause
IN_A_ROW = 0.3  # how many interrupted loans are followed by one that is to be interrupted, too


class WrongAnswerError(AssertionError):
    """A loan was told something else than the answer to its question, or found what another one had left."""


class Storm:
    """Loans of one manager, and the timer.

    Args:
        seed: Of all that is drawn.
        clock: The manager's, instead of the system's.

    Attributes:
        counts: What happened.
        errors: Of the drivers.
    """

    errors = DRIVER_ERRORS

    def __init__(self, seed: int, clock: Clock | None = None) -> None:
        self.counts: Counter[str] = Counter()
        self._db: ConnectionManager[Any] = ConnectionManager(Settings.from_env(), clock=clock)
        self._is_postgresql = self._db.settings.engine == "postgresql"
        self._sql = POSTGRESQL if self._is_postgresql else MYSQL
        self._chance = random.Random(seed)
        self._values = count(1_000_000)
        self._is_armed = False
        signal.signal(signal.SIGALRM, self._interrupt)
        sys.unraisablehook = lambda _: self.counts.update(["in destructors"])  # Python can but tell of it

    def _interrupt(self, *_: object) -> None:
        if self._is_armed:
            self._is_armed = False
            self.counts["interrupts"] += 1
            raise (StruckError if self.counts["interrupts"] % ERRORS == 0 else Struck)

    # --- loans

    def ask(self) -> None:
        """Ask something."""
        with self._db.connection(CONTEXT_S) as conn:
            self._ask(conn)

    def ask_without_limit(self) -> None:
        """Ask something without a deadline, where the drivers wait in other ways."""
        with self._db.connection() as conn:
            self._ask(conn)

    def ask_twice(self) -> None:
        """Ask in a transaction."""
        with self._db.transaction(CONTEXT_S) as conn:
            self._ask(conn)
            self._ask(conn)

    def leave(self) -> None:
        """Leave something in the session."""
        with self._db.connection(CONTEXT_S) as conn:
            for statement in self._sql.leave:
                conn.cursor().execute(statement)
            self._ask(conn)

    def fail(self) -> None:
        """Fail at the server, in a transaction."""
        with suppress(*DRIVER_ERRORS), self._db.transaction(CONTEXT_S) as conn:
            self._ask(conn)
            conn.cursor().execute("SELECT 1 FROM nowhere")

    def stream(self) -> None:
        """Leave rows unread."""
        with self._db.connection(CONTEXT_S) as conn:
            value = next(self._values)
            if self._is_postgresql:
                rows = conn.cursor().stream(self._sql.many, (value,))
            else:
                rows = conn.cursor(SSCursor)
                rows.execute(self._sql.many, (value,))
            check([next(iter(rows))] == [(value,)])
        with suppress(*DRIVER_ERRORS):
            rows.close()

    def _ask(self, conn: Any) -> None:
        value = next(self._values)
        cursor = conn.cursor()
        cursor.execute(self._sql.ask, (value,))
        check(list(cursor.fetchall()) == [(value,)])

    def innocent(self) -> None:
        """Be a loan that nothing interrupts, and look for what the others have left."""
        value = next(self._values)
        with self._db.connection(CONTEXT_S) as conn:
            cursor = conn.cursor()
            cursor.execute(self._sql.look, (value,))
            rows = list(cursor.fetchall())
            check([row[0] for row in rows] == [value] and rows[0][1:] in self._sql.clean and is_idle(conn))

    # --- the storm

    def run(self, interrupts: int) -> None:
        """Go on until that many loans were interrupted."""
        loans = (self.ask, self.ask_without_limit, self.ask_twice, self.leave, self.fail, self.stream)
        usual_s = {loan: self._usual_s(loan) for loan in loans}
        self._descriptors, self._threads = held("fd"), held("task")
        while self.counts["interrupts"] < interrupts:
            loan = self._chance.choice(loans)
            longest = 1.3 if self._chance.random() < OFTEN else LONGEST
            self._tried(loan, self._chance.uniform(0.0, longest * usual_s[loan]))
            if self._chance.random() >= IN_A_ROW:
                self._tried(self.innocent, None)
        self._tried(self.innocent, None)
        self.counts["descriptors more"] = held("fd") - self._descriptors
        self.counts["threads more"] = held("task") - self._threads
        self.counts["slots lost"] = self._db.stats().in_use
        self._db.close()

    def _usual_s(self, loan: Callable[[], None]) -> float:
        times_s = []
        for _ in range(20):
            started_s = time.perf_counter()
            loan()
            times_s.append(time.perf_counter() - started_s)
            self.innocent()
        return sorted(times_s)[len(times_s) // 2]

    def _tried(self, loan: Callable[[], None], delay_s: float | None) -> None:
        """Have a loan, and count what comes of it."""
        self.counts["loans"] += 1
        interrupts = self.counts["interrupts"]
        try:
            if delay_s is not None:
                self._is_armed = True
                signal.setitimer(signal.ITIMER_REAL, max(delay_s, 1e-6))
            loan()
            self._is_armed = False
        except BaseException as error:
            self._is_armed = False
            if isinstance(error, WrongAnswerError):
                self._note("wrong answers", error)
            elif self.counts["interrupts"] == interrupts or not comes_from_strike(error):
                self._note("innocent failures", error)
            else:
                self.counts["loans ended"] += 1
        signal.setitimer(signal.ITIMER_REAL, 0.0)

    def _note(self, what: str, error: BaseException) -> None:
        self.counts[what] += 1
        logging.getLogger(__name__).critical("%s", what, exc_info=error)


def check(is_right: bool) -> None:
    if not is_right:
        raise WrongAnswerError


def main(interrupts: int, seed: int) -> None:
    """Let the storm pass, and print what it counted."""
    logging.getLogger("lambda_dbconn").setLevel(logging.CRITICAL)
    storm = Storm(seed)
    storm.run(interrupts)
    print(json.dumps(storm.counts))  # noqa: T201


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
