"""Try all peers, and print the table of `docs/explanation/comparison.md`."""

from __future__ import annotations

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


def main() -> None:
    """Print the table."""
    with (
        TemporaryDirectory() as folder,
        Trials(environment(), Certificates.create(Path(folder))) as trials,
    ):
        print(table(trials))


if __name__ == "__main__":
    main()
