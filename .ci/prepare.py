"""Make this machine ready for the project's commands: a virtual environment, and the servers for the tests.

    python3 .ci/prepare.py environment PATH REQUIREMENT…   a virtual environment with these, from PyPI
    python3 .ci/prepare.py servers                         PostgreSQL, MariaDB, its client and PgBouncer, if missing
    python3 .ci/prepare.py browser                         Chromium, if it is missing and Debian's archive is here
    python3 .ci/prepare.py pythons                         prints the Pythons from 3.11 up, a line each

Standard library only, and runs on any Python 3 that the machine calls python3.
"""

import glob
import os
import shutil
import subprocess
import sys

OLDEST = (3, 11)
SERVERS = {
    "postgresql": ["postgres", "/usr/lib/postgresql/*/bin/postgres"],
    "mariadb-server-core": ["mariadbd"],
    "mariadb-client-core": ["mariadb"],
    "pgbouncer": ["pgbouncer"],
}
BROWSER = {"chromium-driver": ["chromedriver"]}  # which needs Chromium itself
PROGRAM_FOLDERS = ["/usr/sbin", "/usr/local/sbin", "/sbin"]


def find_pythons():
    """Return {(major, minor): path} of the newest patch release of each Python from 3.11 up."""
    patterns = [os.path.join(folder, "python3*") for folder in os.get_exec_path()]
    pyenv = os.environ.get("PYENV_ROOT", os.path.expanduser("~/.pyenv"))
    patterns.append(os.path.join(pyenv, "versions", "*", "bin", "python3"))
    candidates = [sys.executable] + [path for pattern in patterns for path in sorted(glob.glob(pattern))]
    found = {}
    for path in candidates:
        if not os.path.basename(path).replace("python", "").replace(".", "").isdigit():
            continue
        version = _version(path)
        if version is not None and version[:2] >= OLDEST and version > found.get(version[:2], ((), ""))[0]:
            found[version[:2]] = (version, path)
    return {key: path for key, (_, path) in sorted(found.items())}


def _version(path):
    """Return the version of an interpreter, None when it does not run or is not CPython with threads and GIL."""
    code = "import sys; print(*sys.version_info[:3]) if sys.implementation.name == 'cpython' else sys.exit(1)"
    try:
        run = subprocess.run([path, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return tuple(int(part) for part in run.stdout.split()) if run.returncode == 0 else None


def make_environment(path, requirements):
    """Create a virtual environment with the newest Python that can, and install the requirements from PyPI."""
    python = os.path.join(path, "bin", "python")
    if _version(python) is None:
        _create_environment(path)
    print(
        "Installing %s into %s" % (", ".join(name for name in requirements if not name.startswith("-")), path),
        flush=True,
    )
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if "--group" in requirements:
        subprocess.check_call(install + ["pip>=25.1"])  # the first that knows dependency groups
    subprocess.check_call(install + requirements)


def _create_environment(path):
    pythons = find_pythons()
    if not pythons:
        sys.exit("Python 3.11 or later is needed, and there is none here.")
    for is_second_try in (False, True):
        for interpreter in reversed(list(pythons.values())):
            shutil.rmtree(path, ignore_errors=True)
            quiet = {} if is_second_try else {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            if subprocess.call([interpreter, "-m", "venv", path], **quiet) == 0:
                return
        if not is_second_try:
            print("Python's venv module is incomplete here; installing python3-venv.")
            install_packages(["python3-venv"])
    sys.exit("No virtual environment could be made: install Python's venv module.")


def install_browser():
    """Install Chromium where it is a package; on Ubuntu it is a snap, which cannot be had everywhere."""
    if has_browser_package():
        install_missing(BROWSER)
    elif not _is_there("chromedriver"):
        print("Chromium is a package of Debian's only: the tests that look at the documentation will be skipped.")


def has_browser_package():
    """Tell whether this is Debian itself."""
    try:
        with open("/etc/os-release", encoding="utf-8") as file:
            return "ID=debian" in file.read().splitlines()
    except OSError:
        return False


def install_missing(packages):
    """Install those of {package: programs} of which there is no program yet."""
    missing = [package for package, programs in packages.items() if not any(_is_there(name) for name in programs)]
    if missing:
        print("Installing", ", ".join(missing))
        install_packages(missing)


def _is_there(program):
    if os.sep in program:
        return bool(glob.glob(program))
    return shutil.which(program, path=os.pathsep.join(os.get_exec_path() + PROGRAM_FOLDERS)) is not None


def install_packages(packages):
    """Install Debian packages, as root or through sudo; elsewhere say what is needed."""
    apt_get = shutil.which("apt-get")
    root = [] if os.geteuid() == 0 else [shutil.which("sudo")]
    if apt_get is None or None in root:
        reason = "this is not Debian or Ubuntu" if apt_get is None else "this is neither root nor is there sudo"
        sys.exit(
            "Needed are the programs of Debian's packages %s, and %s: install them by hand."
            % (", ".join(packages), reason)
        )
    # RUNLEVEL=1: the tests start servers of their own, the packages' services need not run.
    settings = ["env", "DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1"]
    if subprocess.call(root + [apt_get, "update", "-qq"], stdout=subprocess.DEVNULL) != 0:
        print("apt-get update failed; trying with the lists that are there.")
    install = [apt_get, "install", "-y", "-qq", "--no-install-recommends"]
    run = subprocess.run(root + settings + install + packages, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if run.returncode != 0:
        print(run.stdout.decode(errors="replace"))
        sys.exit("apt-get could not install %s." % ", ".join(packages))


def main(arguments):
    """Do what the first argument says."""
    if arguments[:1] == ["environment"] and len(arguments) > 1:
        make_environment(arguments[1], arguments[2:])
    elif arguments == ["servers"]:
        install_missing(SERVERS)
    elif arguments == ["browser"]:
        install_browser()
    elif arguments == ["pythons"]:
        print("\n".join(find_pythons().values()))
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
