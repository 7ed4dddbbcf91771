"""Run the demo: `python -m examples.demo`, or `make demo`, which installs what it needs first.

Exit code 0: the library's function failed in no invocation, and all that was to happen has happened. 1: not so.
2: the demo cannot run here. PostgreSQL is always played, MariaDB where `mariadbd` is installed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from importlib.util import find_spec
from typing import TYPE_CHECKING, get_args

from examples.demo.phases import INVOCATIONS, PHASES, play
from examples.demo.stage import AUTH_MODES, SERVERS, Impostor, Stage, open_stages
from lambda_dbconn.testing.runtime_api import InitError, RuntimeUnavailableError
from lambda_dbconn.testing.servers import ServerUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator

_NEEDED = ("awslambdaric", "boto3", "psycopg", "pymysql", "rich", "tenacity", "trustme")
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
        choices=("plain", "with_library"),
        default="with_library",
        help="what runs in the library's place: `plain` shows that the demo would notice",
    )
    parser.add_argument("--only", choices=sorted(SERVERS), help="play with one engine only")
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
    for_people = console(is_error_stream=options.json)
    with open_stages(options.only, options.library_handler) as stages:
        versions = {stage.title: stage.version for stage in stages}
        introduce(versions, has_all=options.only is not None or len(stages) == len(SERVERS), console=for_people)
        complaints = [complaint for stage in stages for complaint in _impostor_complaints(stage)]
        phases = [phase.scaled(options.invocations) for phase in PHASES]
        with progress(phases, for_people, engines=len(stages)) as begin:
            results = []
            for phase in phases:
                advance = begin(phase)
                results += [play(stage, phase, advance) for stage in stages]
        stats = {auth: [stage.proxy_stats(auth) for stage in stages] for auth in AUTH_MODES}
    report = Report(
        servers=versions,
        logins={auth: sum(each.logins for each in stats[auth]) for auth in AUTH_MODES},
        refused=sum(sum(each.refused.values()) for auth in AUTH_MODES for each in stats[auth]),
        results=results,
        complaints=[*complaints, *(complaint for result in results for complaint in result.complaints)],
        elapsed_s=time.monotonic() - started_s,
    )
    if options.json:
        print(json.dumps(report.as_json(), indent=2))
    else:
        report.print(for_people)
    return 1 if report.complaints else 0


def _impostor_complaints(stage: Stage) -> Iterator[str]:
    """Look whether the library refuses a proxy with a false certificate, before it has shown the proxy a token."""
    for false in get_args(Impostor):
        refused_before = stage.proxy_stats("iam").refused
        error = stage.meet_impostor(false).error
        if error != "TlsError":
            yield f"{stage.title}: a proxy with a false {false} was not refused as it should: {error}"
        if stage.proxy_stats("iam").refused != refused_before:
            yield f"{stage.title}: a proxy with a false {false} was shown a token, or spoken to without TLS"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
