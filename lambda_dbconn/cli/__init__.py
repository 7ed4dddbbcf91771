"""The command line `lambda-dbconn`: the topmost layer, which nothing imports.

Each module in `commands` is one command; a new one needs no other change. click parses, and comes with the extra `cli`.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command that the arguments name, and end the process: 0 well, 1 failed, 2 wrongly called."""
    try:
        from lambda_dbconn.cli.group import CommandGroup
    except ModuleNotFoundError as error:
        if error.name != "click":
            raise
        print("lambda-dbconn: click is not installed: pip install 'lambda-dbconn[cli]'", file=sys.stderr)  # noqa: T201 - nothing else is here to print it
        sys.exit(2)
    CommandGroup.default().main()
