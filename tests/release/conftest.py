"""Builds what is released, once, from two copies of the checkout; the tools are in `tox -e package`."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = ["build", "cyclonedx_py", "hatchling", "twine"]
BUILT_AT_S = 1_700_000_000


class Built(NamedTuple):
    """What a build has left.

    Attributes:
        sources: The files that it was built from, by their names in the checkout.
        told: What the command printed.
    """

    sources: set[str]
    sdist: Path
    wheel: Path
    sbom: Path
    told: str


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip where a tool or the checkout is missing; fail instead where they are required."""
    missing = [name for name in TOOLS if importlib.util.find_spec(name) is None]
    missing += [] if (ROOT / "lambda_dbconn").is_dir() else ["checkout"]
    if not missing:
        return
    if os.environ.get("LAMBDA_DBCONN_REQUIRE_RELEASE"):
        raise pytest.UsageError(f"these are required and not here: {', '.join(missing)}")
    for item in items:
        if "tests/release/" in item.path.as_posix():
            item.add_marker(pytest.mark.skip(reason=f"no {', '.join(missing)}: `tox -e package` has them"))


def sources() -> set[str]:
    """Return what belongs to the project: what git knows; in an unpacked sdist all that is not made by running."""
    if (ROOT / ".git").exists():
        ask = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.check_output(ask, cwd=ROOT, text=True)
        return {name for name in listed.split("\0") if name and (ROOT / name).is_file()}
    ignored = {line.strip("/") for line in (ROOT / ".gitignore").read_text().splitlines()}
    found = [path.relative_to(ROOT) for path in ROOT.rglob("*") if path.is_file()]
    return {path.as_posix() for path in found if ignored.isdisjoint(path.parts) and path.name != "PKG-INFO"}


def copied(target: Path, names: set[str]) -> Path:
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, target / name)  # neither dates nor modes
    return target


def run(*command: str, folder: Path) -> str:
    environ = os.environ | {"SOURCE_DATE_EPOCH": str(BUILT_AT_S), "LAMBDA_DBCONN_SBOM_EXTRAS": "postgresql,mysql"}
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, env=environ, capture_output=True, text=True, timeout=110, check=False
    )
    assert not done.returncode, done.stdout + done.stderr
    return done.stdout


def one(folder: Path, pattern: str) -> Path:
    (path,) = folder.glob(pattern)
    return path


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """What `make dist` makes: an sdist, and from that the wheel."""
    names = sources()
    folder = copied(tmp_path_factory.mktemp("first"), names)
    told = run(".ci/package.py", folder=folder)
    return Built(
        sources=names,
        sdist=one(folder, "dist/*.tar.gz"),
        wheel=one(folder, "dist/*.whl"),
        sbom=one(folder, "build/*.cdx.json"),
        told=told,
    )


@pytest.fixture(scope="session")
def built_again(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The same from a copy in another folder, by another umask, the wheel straight from the checkout."""
    before = os.umask(0o077)
    try:
        folder = copied(tmp_path_factory.mktemp("second") / "elsewhere", built.sources)
        told = run("-m", "build", "--no-isolation", "--sdist", "--wheel", folder=folder)
    finally:
        os.umask(before)
    return built._replace(sdist=one(folder, "dist/*.tar.gz"), wheel=one(folder, "dist/*.whl"), told=told)
