"""Run tox on every Python from 3.11 up that this machine has, and say which.

    .venv/bin/python .ci/test.py              what `make test` is
    .venv/bin/python .ci/test.py slow         what `make test-slow` is: what takes longer, and is about no Python
    .venv/bin/python .ci/test.py soak         what `make test-soak` is: what takes minutes, and finds what is rare

What else is given goes to each pytest.
"""

import os
import subprocess
import sys

from prepare import OLDEST, find_pythons, has_browser_package


def main(arguments):
    """Run tox; return its exit code."""
    kind, rest = (arguments[0], arguments[1:]) if arguments[:1] in (["slow"], ["soak"]) else ("", arguments)
    pythons = find_pythons()
    print("Testing on Python " + ", ".join("%d.%d (%s)" % (*version, path) for version, path in pythons.items()))
    if subprocess.call([sys.executable, "-m", "tests.support.mysql"]) != 0:
        print("MySQL and MySQL Router, from Debian's unstable suite, could not be had: their tests will be skipped.")
    os.environ["LAMBDA_DBCONN_MYSQL_CACHE"] = os.path.abspath(os.path.join(".cache", "mysql"))
    if subprocess.call([sys.executable, "-m", "tests.support.emulator"]) != 0:
        print("The Lambda Runtime Interface Emulator, from PyPI, could not be had: its tests will be skipped.")
    os.environ["LAMBDA_DBCONN_EMULATOR_CACHE"] = os.path.abspath(os.path.join(".cache", "emulator"))
    # What installs looks for a Python on the path only; pyenv keeps them elsewhere.
    os.environ["PATH"] = os.pathsep.join(os.get_exec_path() + [os.path.dirname(path) for path in pythons.values()])
    oldest, *newer = sorted(pythons) or [sys.version_info[:2]]
    print("The oldest dependencies on Python %d.%d" % oldest, end="")
    print(", which some of them are older than: their warnings do not count" if oldest > OLDEST else "")
    os.environ["LAMBDA_DBCONN_OLDEST"] = pythons.get(oldest, sys.executable)
    os.environ["LAMBDA_DBCONN_NEWEST"] = pythons.get(max(newer, default=oldest), sys.executable)
    if has_browser_package():
        os.environ["LAMBDA_DBCONN_REQUIRE_BROWSER"] = "1"
    # What takes longest begins first. The oldest Python has the oldest dependencies, the others have the newest. Those
    # between the oldest and the newest meet no faults: how these are met does not change there and back.
    *between, newest = newer or [oldest]
    if kind == "soak":
        environments = ["soak"]
    elif kind == "slow":
        environments = ["long", "infrastructure", "docs", "package"]
    else:
        environments = ["once", "walk", "py%d%d" % newest, "oldest"]
        environments += ["py%d%d-between" % version for version in between]
        environments += ["typing", "lint"]
    # More of them than there are processors, as the tests wait for servers half of the time. Each one's output is shown
    # when it ends.
    command = [sys.executable, "-m", "tox", "run-parallel", "--parallel", "5", "--parallel-no-spinner"]
    command += ["-e", ",".join(environments)]
    return subprocess.call(command + (["--", *rest] if rest else []))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
