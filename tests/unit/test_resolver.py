from __future__ import annotations

import errno
import os
import resource
import socket
import subprocess
import sys
import textwrap
import threading
import time
from typing import TYPE_CHECKING

import pytest

from lambda_dbconn import _resolver
from lambda_dbconn._resolver import is_temporary, look_up
from tests.unit.conftest import in_child

if TYPE_CHECKING:
    from collections.abc import Iterator


class Silent:
    """Stands for `getaddrinfo` while the name server does not answer: it blocks until the test lets it go.

    Then it returns or raises what is next in `outcomes`; `begun` counts the look-ups.
    """

    def __init__(self, *outcomes: str | Exception) -> None:
        self.outcomes = list(outcomes)
        self.begun = threading.Semaphore(0)
        self.count = 0
        self.may_answer = threading.Event()

    def __call__(self, _host: str) -> str:
        self.count += 1
        outcome = self.outcomes.pop(0)
        self.begun.release()
        assert self.may_answer.wait(30)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


@pytest.fixture
def threads() -> Iterator[list[threading.Thread]]:
    started: list[threading.Thread] = []
    yield started
    for thread in started:
        thread.join(30)
        assert not thread.is_alive()


def in_the_background(threads: list[threading.Thread], silent: Silent, timeout_s: float = 30) -> list[object]:
    """Begin or join the look-up in another thread, and wait until it waits; its outcome will be in the list."""
    outcome: list[object] = []

    def ask() -> None:
        try:
            outcome.append(look_up(silent, "db", timeout_s=timeout_s))
        except Exception as error:
            outcome.append(error)

    waiting = sum(len(each._waiting) for each in _resolver._running.values())
    thread = threading.Thread(target=ask)
    threads.append(thread)
    thread.start()
    while sum(len(each._waiting) for each in _resolver._running.values()) <= waiting:
        time.sleep(0.001)
    return outcome


def test_an_answer_is_returned_and_a_failure_is_raised() -> None:
    assert look_up(len, "db", timeout_s=30) == 2
    with pytest.raises(socket.gaierror, match="no such name"):
        look_up(_failing, socket.gaierror(socket.EAI_NONAME, "no such name"), timeout_s=30)
    assert _resolver._running == {}


def _failing(error: Exception) -> None:
    raise error


def test_a_silent_resolver_costs_the_limit_and_one_thread_however_often_it_is_asked() -> None:
    silent = Silent("found")
    for _ in range(5):
        with pytest.raises(TimeoutError, match=r"the resolver has not answered within 0\.01 s"):
            look_up(silent, "db", timeout_s=0.01)
    assert silent.count == 1
    silent.may_answer.set()
    while _resolver._running:
        time.sleep(0.001)


def test_an_answer_counts_for_all_that_wait(threads: list[threading.Thread]) -> None:
    silent = Silent("found")
    outcomes = [in_the_background(threads, silent) for _ in range(4)]
    silent.may_answer.set()
    for thread in threads:
        thread.join(30)
    assert (outcomes, silent.count) == ([["found"]] * 4, 1)


def test_a_failure_is_not_that_of_a_caller_who_joined_later(threads: list[threading.Thread]) -> None:
    failure = socket.gaierror(socket.EAI_AGAIN, "of an earlier invocation")
    silent = Silent(failure, "found")
    first, second = in_the_background(threads, silent), in_the_background(threads, silent)
    silent.may_answer.set()
    for thread in threads:
        thread.join(30)
    assert (first, second, silent.count) == ([failure], ["found"], 2)


def test_a_failure_of_a_look_up_that_began_after_the_question_is_its_answer(threads: list[threading.Thread]) -> None:
    failures = [socket.gaierror(socket.EAI_AGAIN, str(number)) for number in range(5)]
    silent = Silent(*failures)
    outcomes = [in_the_background(threads, silent) for _ in range(3)]
    silent.may_answer.set()
    for thread in threads:
        thread.join(30)
    assert all(isinstance(outcome[0], socket.gaierror) for outcome in outcomes)
    assert silent.count <= 3


def test_a_forked_child_does_not_wait_for_a_thread_of_its_parents(threads: list[threading.Thread]) -> None:
    silent = Silent("the parent's", "the child's")
    in_the_background(threads, silent)
    assert silent.begun.acquire(timeout=30)

    def ask() -> str:
        silent.may_answer.set()
        return look_up(silent, "db", timeout_s=10)

    try:
        assert in_child(ask) == "the child's"
    finally:
        silent.may_answer.set()


def test_a_look_up_whose_thread_cannot_be_started_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(_resolver, "start_new_thread", refuse)
        with pytest.raises(OSError, match="no thread can be started") as caught:
            look_up(len, "db", timeout_s=30)
    assert caught.value.errno == errno.EAGAIN
    assert is_temporary(caught.value)
    assert look_up(len, "db", timeout_s=30) == 2


def test_an_interrupt_leaves_no_look_up_that_nobody_carries_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(_resolver, "start_new_thread", interrupt)
        with pytest.raises(KeyboardInterrupt):
            look_up(len, "db", timeout_s=30)
    assert look_up(len, "db", timeout_s=30) == 2


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"), True),
        (socket.gaierror(socket.EAI_MEMORY, "Memory allocation failure"), True),
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), False),
        (socket.gaierror(socket.EAI_FAIL, "Non-recoverable failure in name resolution"), False),
        (socket.herror(2, "Host name lookup failure"), True),
        (socket.herror(1, "Unknown host"), False),
        (OSError(errno.EBUSY, "Device or resource busy"), True),
        (OSError(errno.EMFILE, "Too many open files"), True),
        (OSError(errno.ENFILE, "Too many open files in system"), True),
        (OSError(errno.EAGAIN, "Resource temporarily unavailable"), True),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), True),
        (PermissionError(errno.EPERM, "Operation not permitted"), False),
        (UnicodeError("label too long"), False),
    ],
    ids=repr,
)
def test_a_failure_is_temporary_when_a_later_look_up_may_succeed(error: Exception, *, expected: bool) -> None:
    assert is_temporary(error) is expected


def test_a_name_that_cannot_be_looked_up_for_want_of_descriptors_is_no_unknown_name() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
    try:
        assert is_temporary(socket.gaierror(socket.EAI_NONAME, "Name or service not known"))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_process_with_a_stuck_look_up_exits_at_once() -> None:
    script = """
        import time
        from lambda_dbconn._resolver import look_up
        try:
            look_up(time.sleep, 600, timeout_s=0.05)
        except TimeoutError:
            print("over")
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=60, check=True
    )
    assert (run.stdout, run.stderr) == ("over\n", "")
