"""Run the demo: `python -m examples.demo`, or `make demo`, which installs what it needs first.

Exit code 0: the library's function failed in no invocation, and all that was to happen has happened. 1: not so.
2: the demo cannot run here.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from importlib.util import find_spec
from pathlib import Path

from examples.demo.phases import INVOCATIONS, PHASES, play
from examples.demo.stage import Stage
from lambda_dbconn.testing.runtime_api import InitError, RuntimeUnavailableError
from lambda_dbconn.testing.servers import ServerUnavailableError

_NEEDED = ("awslambdaric", "psycopg", "rich", "tenacity", "trustme")
_FEWEST_INVOCATIONS = 20


def main(arguments: list[str]) -> int:
    """Run it and return the exit code."""
    options = _options(arguments)
    obstacle = _obstacle()
    if obstacle:
        return _give_up(obstacle)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr] # µ and lines may not be in its alphabet
    if hasattr(os, "sched_setaffinity"):
        # Which of several cores a process wakes up on counts for more than what is measured here.
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    try:
        return _run(options)
    except (RuntimeUnavailableError, ServerUnavailableError) as error:
        return _give_up(str(error))
    except InitError as error:
        return _give_up(f"a function does not start: {error.fault.type}: {error.fault.message}")
    except KeyboardInterrupt:
        return 130


def _options(arguments: list[str]) -> argparse.Namespace:
    handlers = sorted(path.stem for path in (Path(__file__).parent / "function").glob("*.py"))
    parser = argparse.ArgumentParser(
        prog="python -m examples.demo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--invocations",
        type=_invocations,
        default=INVOCATIONS,
        metavar="N",
        help=f"about how many of each function ({INVOCATIONS})",
    )
    parser.add_argument("--json", action="store_true", help="print the figures for programs instead of the table")
    parser.add_argument(
        "--library-handler",
        choices=handlers,
        default="with_library",
        help="what runs in the library's place: `plain` shows that the demo would notice",
    )
    return parser.parse_args(arguments)


def _invocations(text: str) -> int:
    number = int(text)
    if number < _FEWEST_INVOCATIONS:
        raise argparse.ArgumentTypeError(f"at least {_FEWEST_INVOCATIONS}")
    return number


def _obstacle() -> str | None:
    """Say what keeps the demo from running here, if something does."""
    if sys.platform != "linux":
        return f"Lambda's runtime client, awslambdaric, runs on Linux only, and this is {sys.platform}"
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        return f"{', '.join(missing)} not installed: run `make demo`, or pip install '.[demo]'"
    return None


def _give_up(reason: str) -> int:
    print(f"The demo cannot run: {reason}", file=sys.stderr)
    return 2


def _run(options: argparse.Namespace) -> int:
    from examples.demo.report import Report, console, introduce, progress  # rich may have been missing

    started_s = time.monotonic()
    with Stage(options.library_handler) as stage:
        version, server = stage.server_version
        for_people = console(is_error_stream=options.json)
        introduce(server, is_tls=stage.server.is_tls, console=for_people)
        phases = [phase.scaled(options.invocations) for phase in PHASES if phase.oldest_server <= version]
        with progress(phases, for_people) as begin:
            results = [play(stage, phase, begin(phase)) for phase in phases]
        report = Report(
            server=server,
            is_tls=stage.server.is_tls,
            results=results,
            complaints=[complaint for result in results for complaint in result.complaints],
            elapsed_s=time.monotonic() - started_s,
        )
    if options.json:
        print(json.dumps(report.as_json(), indent=2))
    else:
        report.print(for_people)
    return 1 if report.complaints else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
