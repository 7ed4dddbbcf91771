"""A function with three seconds and a statement of six, under AWS's own emulator: with the library, and without."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.support.lock_times import TIMEOUT_S, make_things, measure

if TYPE_CHECKING:
    from collections.abc import Callable

    from lambda_dbconn.testing.servers import LocalServer

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(sys.platform != "linux", reason="awslambdaric has wheels for Linux only"),
    pytest.mark.usefixtures("emulator"),
]


def test_with_the_library_a_slow_function_answers_and_lets_go_where_a_plain_one_is_killed_and_does_not(
    own_server: LocalServer, record_property: Callable[[str, object], None]
) -> None:
    make_things(own_server)
    with ThreadPoolExecutor(max_workers=2) as measurers:  # at once, as each waits rather than works
        ours, plain = measurers.map(lambda handler: measure(own_server, handler), ["matrix.handler", "matrix.plain"])
    for name, lock_time in (("library", ours), ("plain", plain)):
        record_property(f"{name}: row locked for, seconds", f"{lock_time.locked_s:.2f}")

    assert ours.invocation.value["error"] == "DeadlineExceededError"
    assert ours.invocation.value["left_ms"] > 0
    assert ours.invocation.value["open"] == 0

    assert plain.invocation.error is not None
    assert f"Task timed out after {TIMEOUT_S}.00 seconds" in plain.invocation.error.message
    assert plain.locked_after_s > ours.locked_after_s
    assert plain.locked_s > ours.locked_s
