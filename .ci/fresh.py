"""Try the README's two commands on bare Debian: a minimal root file system for each release, and a clean clone in it.

    python3 .ci/fresh.py                                 as root in /root, on bookworm and trixie
    python3 .ci/fresh.py --release trixie --user ada     as an ordinary user with sudo, in /home/ada
    python3 .ci/fresh.py --place /srv                    as root in /srv

Each release takes some 15 minutes: `make demo`, `make test`, and `make test` again with CI set. What they print is in
.cache/fresh. What is not committed is not tried. Needs root or sudo, and a Debian mirror in apt's configuration.

Inside there is what debootstrap's variant minbase has, with python3, make, git and ca-certificates, and sudo for a user
other than root. Mirror, name servers, certificates and pip's configuration are this machine's. Mounts and processes are
in namespaces of their own, and gone when the run is, even a killed one. Standard library only.
"""

import argparse
import ast
import glob
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from prepare import install_missing, install_packages

RELEASES = ["bookworm", "trixie"]
PACKAGES = ["python3", "make", "git", "ca-certificates"]
STEPS = [("make demo", {}), ("make test", {}), ("make test", {"CI": "true"})]
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LOGS = os.path.join(ROOT, ".cache", "fresh")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# What tells a program of the machine's how to reach the network; passed on if set.
NETWORK = re.compile(r"^(UV_\w+|\w+_proxy|SSL_CERT_FILE|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE)$", re.IGNORECASE)
INTERESTING = re.compile(r"^(FAILED |ERROR |.*: FAIL |make: \*\*\*)|NOT AVAILABLE|^=+ .*\b(passed|failed|error)\b.*=+$")
SETTLE_S = 10.0


# --- What this machine has


def read_command(*command):
    """Return what a command prints; nothing where it is missing or fails."""
    try:
        run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
    except OSError:
        return ""
    return run.stdout.decode() if run.returncode == 0 else ""


def apt_sources(release, listing):
    """Return the mirror and the lines of a sources.list for a release, from what apt itself installs from."""
    found = []
    for line in listing.splitlines():
        uri, codename, origin, component = line.split("|")
        if origin == "Debian" and component == "main" and (uri, codename) not in found:
            found.append((uri, codename))
    bases = [(uri, codename) for uri, codename in found if "-" not in codename]
    if not bases:
        sys.exit("apt is set up with no mirror of Debian's; run `apt-get update`, or do this on a Debian.")
    mirror, own = bases[0]
    suites = [(uri, release + codename[len(own) :]) for uri, codename in found if codename.startswith(own)]
    return mirror, ["deb %s %s main" % each for each in suites]


def pip_configuration(listing):
    """Return the text of a pip.conf that says what `pip config list` does, and its options as (name, value)."""
    options = {}
    for line in listing.splitlines():
        name, _, value = line.partition("=")
        section, _, option = name.rpartition(".")
        # A variable of the environment is there as `:env:.option`, and wins.
        is_variable = section == ":env:"
        key = ("global" if is_variable else section, option)
        if option != "config-file" and (is_variable or key not in options):
            options[key] = str(ast.literal_eval(value))
    lines = []
    for section in sorted({section for section, _ in options}):
        lines.append("[%s]" % section)
        lines += [
            "%s = %s" % (key[1], value.replace("\n", "\n  ")) for key, value in options.items() if key[0] == section
        ]
    return "\n".join(lines) + "\n", [(key[1], value) for key, value in options.items()]


def local_paths(options):
    """Return the files and folders of this machine that options of pip's name; an index with what it leads to."""
    found = []
    for option, value in options:
        for word in value.split():
            path = word.removeprefix("file://")
            if os.path.isabs(path) and os.path.exists(path):
                found.append(os.path.dirname(path) if option.endswith("index-url") else path)
    return found


# --- What is made of it


class System:
    """A root file system of a release, in namespaces of this process."""

    def __init__(self, root, release, log):
        self.root = root
        self.release = release
        self.log = log

    def path(self, *parts):
        """Return the path of a file inside, as seen from outside; its folder is made."""
        path = os.path.join(self.root, *[part.lstrip("/") for part in parts])
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return path

    def call(self, *command, **options):
        """Run a command, and end with the log's last lines if it fails."""
        self.log.write("$ %s\n" % " ".join(command))
        self.log.flush()
        code = subprocess.call(command, stdin=subprocess.DEVNULL, stdout=self.log, stderr=subprocess.STDOUT, **options)
        if code != 0:
            sys.exit("%s failed, with exit code %d; see %s" % (command[0], code, self.log.name))

    def build(self, user):
        """Fill it."""
        listing = read_command(
            *("apt-get", "indextargets", "--format", "$(SITE)|$(CODENAME)|$(ORIGIN)|$(COMPONENT)"),
            "Created-By: Packages",
        )
        mirror, sources = apt_sources(self.release, listing)
        packages = PACKAGES + ([] if user == "root" else ["sudo"])
        environment = dict(os.environ)
        proxy = read_command("apt-config", "shell", "PROXY", "Acquire::http::Proxy")
        if proxy:
            environment["http_proxy"] = ast.literal_eval(proxy.strip().partition("=")[2])
        options = ["--variant=minbase", "--include=" + ",".join(packages)]
        self.call("debootstrap", *options, self.release, self.root, mirror, env=environment)
        self.write("/etc/apt/sources.list", "\n".join(sources) + "\n")
        self.write("/etc/apt/apt.conf.d/90machine", read_command("apt-config", "dump", "Acquire"))
        for path in ("/etc/resolv.conf", "/etc/hosts"):
            self.copy(path)
        for kind, target in (("proc", "/proc"), ("sysfs", "/sys")):
            self.call("mount", "-t", kind, kind, self.path(target))
        self.call("mount", "--rbind", "/dev", self.path("/dev"))
        self.call("mount", "-t", "tmpfs", "-o", "mode=1777", "tmpfs", self.path("/dev/shm"))
        self.copy_network()

    def copy_network(self):
        """Let pip, uv and OpenSSL find inside what they find on this machine."""
        text, options = pip_configuration(read_command(sys.executable, "-m", "pip", "config", "list"))
        self.write("/etc/pip.conf", text)
        variables = [(name, value) for name, value in os.environ.items() if NETWORK.match(name)]
        bundle = "/etc/ssl/certs/ca-certificates.crt"  # Debian's, with what the administrator has added
        for path in dict.fromkeys([bundle, *local_paths(options + variables)]):
            if os.path.isdir(path):
                os.makedirs(self.path(path), exist_ok=True)
                self.call("mount", "--bind", "-o", "ro", path, self.path(path))
            else:
                self.copy(path)

    def copy(self, path):
        """Copy a file of this machine's, if there is one, to the same place."""
        if os.path.exists(path):
            shutil.copyfile(path, self.path(os.path.realpath(path) if path == "/etc/resolv.conf" else path))

    def write(self, path, text):
        """Write a file inside."""
        with open(self.path(path), "w", encoding="utf-8") as file:
            file.write(text)

    def clone(self, user, place):
        """Make the account, and a clean clone that belongs to it; return its path inside."""
        if user != "root":
            self.call("chroot", self.root, "useradd", "--create-home", "--shell", "/bin/bash", user)
            os.chmod(self.path("/home", user), 0o700)
            self.write("/etc/sudoers.d/everything", "%s ALL=(ALL) NOPASSWD: ALL\n" % user)
        checkout = os.path.join(place, "checkout")
        target = self.path(checkout)
        self.call("git", "-c", "safe.directory=*", "clone", "--quiet", "--no-hardlinks", ROOT, target)
        self.call("chroot", self.root, "chown", "-R", "%s:" % user, checkout)
        return checkout

    def run(self, command, variables, user, checkout):
        """Run a command as a login of the user's would; return its exit code."""
        home = "/root" if user == "root" else "/home/" + user
        environment = {"PATH": PATH, "HOME": home, "USER": user, "LOGNAME": user, "LANG": "C.UTF-8", **variables}
        environment.update({name: value for name, value in os.environ.items() if NETWORK.match(name)})
        words = ["env", "-i", *("%s=%s" % each for each in environment.items()), "sh", "-c", 'cd "$0" && exec $1']
        with subprocess.Popen(
            ["chroot", "--userspec=%s:%s" % (user, user), self.root, *words, checkout, command],
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process:
            return process.wait()


def left_behind(known):
    """Return the command lines of processes that are still there some seconds after a command."""
    ends_at = time.monotonic() + SETTLE_S
    while True:
        left = []
        for path in glob.glob("/proc/[0-9]*/cmdline"):
            pid = int(path.split("/")[2])
            try:
                with open(path, encoding="utf-8", errors="replace") as file:
                    line = file.read().replace("\0", " ").strip()
            except OSError:
                continue
            if pid not in known and line:
                left.append(line)
        if not left or time.monotonic() > ends_at:
            return left
        time.sleep(0.2)


def interesting_lines(text):
    """Return the lines that say what passed and what failed, colours taken off."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    return [line for line in plain.splitlines() if INTERESTING.search(line)]


def make_log_folder():
    """Make the folder of the logs, which belongs to whom the checkout does, also if root makes it."""
    owner = os.stat(ROOT)
    for folder in (os.path.dirname(LOGS), LOGS):
        if not os.path.isdir(folder):
            os.mkdir(folder)
            os.chown(folder, owner.st_uid, owner.st_gid)


def work(options, release, root):
    """Build the system and run the steps in it; return whether all went well. Runs in namespaces of its own."""
    name = "%s-%s%s" % (release, options.user, options.place.replace("/", "-"))
    make_log_folder()
    is_well = True
    with open(os.path.join(LOGS, name + ".log"), "w+", encoding="utf-8", errors="replace") as log:
        system = System(root, release, log)
        began = time.monotonic()
        print("%s, as %s in %s; output in %s" % (release, options.user, options.place, log.name), flush=True)
        system.build(options.user)
        # With /proc for the processes of this namespace alone: those of the machine are not to be seen.
        subprocess.check_call(["mount", "-t", "proc", "proc", "/proc"])
        checkout = system.clone(options.user, options.place)
        print("  built in %.0f s" % (time.monotonic() - began), flush=True)
        for command, variables in STEPS:
            start = log.seek(0, os.SEEK_END)
            began = time.monotonic()
            known = {int(path.split("/")[2]) for path in glob.glob("/proc/[0-9]*/cmdline")}
            code = system.run(command, variables, options.user, checkout)
            took_s = time.monotonic() - began
            left = left_behind(known)
            log.seek(start)
            text = log.read()
            shown = " ".join(["%s=%s" % each for each in variables.items()] + [command])
            print("  %s: exit code %d in %.0f s" % (shown, code, took_s))
            for line in interesting_lines(text):
                print("    " + line)
            for line in left:
                print("    left behind: " + line)
            sys.stdout.flush()
            is_well = is_well and code == 0 and not left
    return is_well


def work_as_init(options, release, root):
    """Do the work in a child, and wait for every orphan meanwhile, as the first process of a namespace must."""
    child = os.fork()
    if child == 0:
        return 0 if work(options, release, root) else 1
    while True:
        pid, status = os.wait()
        if pid == child:
            return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 1


# --- From outside


def try_release(options, release):
    """Do the work for one release in new namespaces, and remove all of it; return whether it went well."""
    folder = tempfile.mkdtemp(prefix="dbconn-fresh-", dir="/var/tmp")
    root = os.path.join(folder, "root")
    os.mkdir(root)
    command = ["setpriv", "--pdeathsig", "KILL"]  # were this process killed, all that is inside would go, too
    command += ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private", sys.executable]
    command += [os.path.abspath(__file__), "--release", release, "--user", options.user, "--place", options.place]
    with subprocess.Popen([*command, "--root", root]) as process:
        try:
            return process.wait() == 0
        finally:
            # Its end is the end of all that is inside, and of the mounts: nothing below the folder is the machine's.
            process.kill()
            process.wait()
            time.sleep(0.5)
            shutil.rmtree(folder, ignore_errors=True)


def parse(arguments):
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--release", action="append", help="of Debian, by its code name; several are tried in turn")
    parser.add_argument("--user", default="root", help="who runs the commands; by default root")
    parser.add_argument("--place", help="the folder that the clone lies in; by default the user's home")
    parser.add_argument("--root", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if not re.match(r"^[a-z][a-z0-9_-]*$", options.user):
        parser.error("--user must be a name of lower-case letters and digits")
    options.place = options.place or ("/root" if options.user == "root" else "/home/" + options.user)
    if not os.path.isabs(options.place):
        parser.error("--place must be an absolute path")
    return options


def main(arguments):
    """Try each release; return 1 if one of them failed."""
    options = parse(arguments)
    if os.geteuid() != 0:
        os.execvp("sudo", ["sudo", "-E", sys.executable, os.path.abspath(__file__), *arguments])
    if options.root:
        return work_as_init(options, options.release[0], options.root)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    install_missing({"debootstrap": ["debootstrap"]})
    if not os.path.exists("/usr/share/keyrings/debian-archive-keyring.gpg"):
        install_packages(["debian-archive-keyring"])
    if read_command("git", "-c", "safe.directory=*", "-C", ROOT, "status", "--porcelain"):
        print("Some changes here are not committed: they are not tried.")
    failed = [release for release in options.release or RELEASES if not try_release(options, release)]
    print("Failed on: %s" % ", ".join(failed) if failed else "All passed.")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
