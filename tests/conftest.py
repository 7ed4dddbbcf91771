"""The fixtures that all tests may use."""

import signal

pytest_plugins = ["tests.support.fixtures"]


def pytest_configure() -> None:
    """Take SIGINT as a terminal's run does: a shell's background job ignores it, and so would all that it starts."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
