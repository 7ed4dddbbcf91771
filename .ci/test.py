"""Run tox on every Python from 3.11 up that this machine has, and say which: `.venv/bin/python .ci/test.py`."""

import subprocess
import sys

from prepare import find_pythons


def main(arguments):
    """Run lint, typing and the tests; return tox's exit code."""
    pythons = find_pythons()
    print("Testing on Python " + ", ".join("%d.%d (%s)" % (*version, path) for version, path in pythons.items()))
    environments = ["lint", "typing", "oldest"] + ["py%d%d" % version for version in pythons]
    command = [sys.executable, "-m", "tox", "run", "-e", ",".join(environments)]
    command += ["--discover", *pythons.values()] if pythons else []
    return subprocess.call(command + (["--", *arguments] if arguments else []))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
