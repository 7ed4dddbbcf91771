from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from lambda_dbconn.deadline import SystemClock, jitter

if TYPE_CHECKING:
    import pytest


@given(seconds=st.floats(0, 1e6), share=st.floats(0, 1))
def test_jitter_only_shortens_and_by_the_share_at_most(seconds: float, share: float) -> None:
    assert seconds * (1 - share) * (1 - 1e-9) <= jitter(seconds, share=share) <= seconds


def test_jitter_spreads_and_is_drawn_from_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len({jitter(1000.0) for _ in range(50)}) > 40
    monkeypatch.setattr(os, "urandom", lambda n: b"\0" * n)
    assert jitter(1000.0) == 1000.0
    monkeypatch.setattr(os, "urandom", lambda n: b"\x80" + b"\0" * (n - 1))
    assert jitter(1000.0) == 975.0


def test_the_system_clock_is_the_process_own() -> None:
    clock = SystemClock()
    assert (clock.monotonic, clock.wall, clock.sleep) == (time.monotonic, time.time, time.sleep)
