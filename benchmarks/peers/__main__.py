"""Try all peers, and print the table of `docs/explanation/comparison.md`; with `times`, what they take when warm."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.peers.handlers import PEERS
from benchmarks.peers.trials import QUESTIONS, Trials, environment
from lambda_dbconn.testing.certificates import Certificates


def table(trials: Trials) -> str:
    """Return the results as Markdown, one line for each peer."""
    lines = [f"| Peer | {' | '.join(QUESTIONS)} |", "|---" * (len(QUESTIONS) + 1) + "|"]
    for name, (title, _) in PEERS.items():
        print(title, file=sys.stderr)
        cells = [title, *(ask(trials, name) for ask in QUESTIONS.values())]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def times(trials: Trials, *, rounds: int = 7) -> str:
    """Return what a warm invocation with `select 1` takes: the best median of alternating runs."""
    taken: dict[str, list[float]] = {name: [] for name in PEERS}
    for _ in range(rounds):
        for name in PEERS:
            taken[name].append(trials.warm_us(name))
    best = {name: min(taken[name]) for name in PEERS}  # other work on the machine only ever adds
    bare = best["plain_psycopg"]
    return "\n".join(f"{us:6.0f} µs  {us / bare:4.2f} times  {PEERS[name][0]}" for name, us in best.items())


def main(words: list[str]) -> None:
    """Print the table, or the times."""
    if words == ["times"] and hasattr(os, "sched_setaffinity"):  # one core, as the server: or it is about waking up
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with (
        TemporaryDirectory() as folder,
        Trials(environment(), Certificates.create(Path(folder))) as trials,
    ):
        print(times(trials) if words == ["times"] else table(trials))


if __name__ == "__main__":
    main(sys.argv[1:])
