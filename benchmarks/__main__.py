"""Run all benchmarks, or those named: `python -m benchmarks [NAME…]`; an unknown name lists them."""

from __future__ import annotations

import platform
import sys

from benchmarks import cold, credentials, fleet, instructions, layer, observers, pinning, warm
from benchmarks.subjects import SERVERS

_BENCHMARKS = {
    "warm": warm,
    "observers": observers,
    "cold": cold,
    "credentials": credentials,
    "instructions": instructions,
    "pinning": pinning,
    "fleet": fleet,
    "layer": layer,  # asks PyPI
}


def main(names: list[str]) -> int:
    """Print the results; return the exit code."""
    unknown = set(names) - set(_BENCHMARKS)
    if unknown:
        print(f"unknown: {', '.join(sorted(unknown))}; accepted: {', '.join(_BENCHMARKS)}", file=sys.stderr)
        return 2
    print(f"CPython {platform.python_version()}, {platform.machine()}; loopback, TLS; medians of alternating runs")
    for name in names or _BENCHMARKS:
        benchmark = _BENCHMARKS[name]
        print(f"\n{name}: {(benchmark.__doc__ or '').splitlines()[0]}")
        for subject in getattr(benchmark, "SUBJECTS", SERVERS):
            print(benchmark.measure(subject), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
