"""The sdist and the wheel: what is in them, what is not, and that anybody can build the same."""

from __future__ import annotations

import email
import hashlib
import importlib.util
import re
import tarfile
import tomllib
from typing import TYPE_CHECKING
from zipfile import ZipFile

import pytest

from tests.release.conftest import BUILT_AT_S, ROOT, Built

if TYPE_CHECKING:
    import types
    from pathlib import Path


@pytest.fixture(scope="module")
def script() -> types.ModuleType:
    """The program that makes a release, as a module."""
    spec = importlib.util.spec_from_file_location("package", ROOT / ".ci" / "package.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def in_wheel(wheel: Path) -> dict[str, bytes]:
    with ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def in_sdist(sdist: Path) -> dict[str, bytes]:
    """Return the files by their names below the one folder."""
    with tarfile.open(sdist) as archive:
        files = {member.name: archive.extractfile(member) for member in archive if member.isfile()}
    (root,) = {name.partition("/")[0] for name in files}
    assert root == sdist.name.removesuffix(".tar.gz")
    with tarfile.open(sdist) as archive:
        read = {name.partition("/")[2]: archive.extractfile(name) for name in files}
        return {name: file.read() for name, file in read.items() if file is not None}


# --- the wheel


def test_the_wheel_has_the_package_its_metadata_and_nothing_else(built: Built) -> None:
    names = set(in_wheel(built.wheel))
    package = {name for name in built.sources if name.startswith("lambda_dbconn/")}
    assert {name for name in names if ".dist-info/" not in name} == package
    about = {name.partition(".dist-info/")[2] for name in names - package}
    assert about == {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE"}


def test_type_checkers_are_told_that_the_package_is_typed(built: Built) -> None:
    assert in_wheel(built.wheel)["lambda_dbconn/py.typed"] == b""


def test_the_wheel_is_for_every_platform(built: Built, script: types.ModuleType) -> None:
    assert built.wheel.name == f"lambda_dbconn-{script.read_version()}-py3-none-any.whl"


def test_the_metadata_say_what_pyproject_says(built: Built, script: types.ModuleType) -> None:
    files = in_wheel(built.wheel)
    metadata = email.message_from_bytes(next(files[name] for name in files if name.endswith("/METADATA")))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert metadata["Version"] == script.read_version()
    assert metadata["License-Expression"] == project["license"]
    assert metadata["Requires-Python"] == project["requires-python"]
    assert sorted(metadata.get_all("Classifier", [])) == sorted(project["classifiers"])
    assert sorted(metadata.get_all("Provides-Extra", [])) == sorted(project["optional-dependencies"])
    assert metadata.get_payload() == (ROOT / "README.md").read_text()


# --- the sdist


def test_the_sdist_has_all_that_git_has_and_so_all_that_the_tests_need(built: Built) -> None:
    assert set(in_sdist(built.sdist)) == {*built.sources, "PKG-INFO"}


def test_the_files_of_the_sdist_are_those_of_the_checkout(built: Built) -> None:
    files = in_sdist(built.sdist)
    assert [name for name in built.sources if files[name] != (ROOT / name).read_bytes()] == []


# --- both


def test_the_same_commit_gives_the_same_bytes_wherever_it_is_built(built: Built, built_again: Built) -> None:
    """And so the wheel that is built from the sdist is the one that is built from the checkout."""
    assert built.wheel.parent != built_again.wheel.parent
    assert built.sdist.read_bytes() == built_again.sdist.read_bytes()
    assert built.wheel.read_bytes() == built_again.wheel.read_bytes()


def test_what_is_dated_has_the_date_of_the_commit(built: Built) -> None:
    with tarfile.open(built.sdist) as archive:
        assert {member.mtime for member in archive} == {BUILT_AT_S}
    with ZipFile(built.wheel) as wheel:
        assert {member.date_time for member in wheel.infolist()} == {(2023, 11, 14, 22, 13, 20)}


def test_no_file_tells_of_the_machine_that_built_it(built: Built) -> None:
    here = str(built.wheel.parents[1]).encode()
    files = {**in_wheel(built.wheel), **in_sdist(built.sdist), "sbom": built.sbom.read_bytes()}
    assert [name for name, content in files.items() if here in content] == []


def test_twine_has_checked_both_and_the_hashes_are_told(built: Built) -> None:
    assert re.findall(r"Checking dist/\S+?(\.whl|\.tar\.gz): \S*PASSED", built.told) == [".whl", ".tar.gz"]
    for path in (built.wheel, built.sdist, built.sbom):
        assert f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.parent.name}/{path.name}" in built.told


# --- the tag


def test_a_tag_of_another_version_is_refused(script: types.ModuleType) -> None:
    with pytest.raises(SystemExit, match=r"The tag is v99\.0, but lambda_dbconn\.__version__ is"):
        script.check_tag("v99.0", script.read_version())


def test_a_version_is_released_when_the_changelog_has_its_date(
    script: types.ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "ROOT", tmp_path)
    changelog = tmp_path / "CHANGELOG.md"
    changelog.write_text("## [Unreleased]\n\n## [1x2] - 2026-11-27\n\n## [1.2]\n")
    with pytest.raises(SystemExit, match=r"has no heading `## \[1\.2\] - YYYY-MM-DD`"):
        script.check_tag("v1.2", "1.2")
    changelog.write_text("## [Unreleased]\n\n## [1.2] - 2026-11-27\n")
    script.check_tag("v1.2", "1.2")
