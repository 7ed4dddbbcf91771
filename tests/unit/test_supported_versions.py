"""The page of supported versions says what pyproject.toml, tox.ini, the layers and the installed packages say."""

from __future__ import annotations

import configparser
import os
import re
import tomllib
import warnings
from importlib.metadata import PackageNotFoundError, metadata, version
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from lambda_dbconn.cli.layer.runtime import PYTHONS, Runtime
from lambda_dbconn.settings.model import PORTS

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NAME = canonicalize_name(PROJECT["name"])
# What a licence is called in metadata that are older than SPDX expressions.
OLDER_WORDS = {"LGPL": "Lesser General Public"}


def table(heading: str) -> list[list[str]]:
    """Return the cells of the table below a heading, without its head and without the code marks."""
    text = (ROOT / "docs" / "reference" / "supported-versions.md").read_text()
    section = text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip().replace("`", "") for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def tox() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(ROOT / "tox.ini")
    return parser


def floor(requirement: Requirement) -> Version:
    """Return the one bound that a requirement has: the lower one."""
    (bound,) = requirement.specifier
    assert bound.operator == ">=", f"{requirement} is no lower bound"
    return Version(bound.version)


def requirements(extra: str) -> Iterator[Requirement]:
    """Follow an extra through the extras that it names."""
    for text in PROJECT["optional-dependencies"][extra]:
        requirement = Requirement(text)
        if canonicalize_name(requirement.name) == NAME:
            for other in requirement.extras:
                yield from requirements(other)
        else:
            yield requirement


ALWAYS = [Requirement(text) for text in PROJECT["dependencies"]]
BY_EXTRA = {extra: list(requirements(extra)) for extra in PROJECT["optional-dependencies"]}
PACKAGES = table("Packages")


# --- Python


def test_the_pythons_are_those_of_the_classifiers_and_of_the_layers() -> None:
    pythons = [row[0] for row in table("Python, and Lambda's runtimes")]
    found = (re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", text) for text in PROJECT["classifiers"])
    assert pythons == [match[1] for match in found if match] == list(PYTHONS)
    assert PROJECT["requires-python"] == f">={pythons[0]}"


def test_the_oldest_python_is_the_one_that_the_projects_own_commands_look_for() -> None:
    oldest = re.search(r"^OLDEST = \((\d+), (\d+)\)$", (ROOT / ".ci" / "prepare.py").read_text(), re.MULTILINE)
    assert oldest is not None
    assert table("Python, and Lambda's runtimes")[0][0] == f"{oldest[1]}.{oldest[2]}"


def test_a_runtime_has_the_name_and_the_c_library_that_layers_are_built_for() -> None:
    for python, name, system, glibc, _, layers in table("Python, and Lambda's runtimes"):
        assert name == f"python{python}"
        assert glibc == Runtime(python=python, architecture="arm64").glibc
        assert system == {"2.26": "Amazon Linux 2", "2.34": "Amazon Linux 2023"}[glibc]
        assert layers == "yes"


def test_every_python_has_its_environment_in_tox() -> None:
    (minors,) = re.findall(r"py3\{([\d,]+)\}", tox()["tox"]["env_list"])
    tested = [row[4] for row in table("Python, and Lambda's runtimes")]
    assert tested == [f"tox -e py3{minor}" for minor in minors.split(",")]


# --- packages


def test_every_package_that_is_asked_for_has_a_row_with_its_lower_bound() -> None:
    asked: dict[str, set[Version]] = {}
    for requirement in [*ALWAYS, *(each for found in BY_EXTRA.values() for each in found)]:
        asked.setdefault(requirement.name, set()).add(floor(requirement))
    assert {row[0]: {Version(row[1])} for row in PACKAGES} == asked


@pytest.mark.parametrize("row", PACKAGES, ids=lambda row: row[0])
def test_the_extras_that_bring_a_package_are_named(row: list[str]) -> None:
    brought = {extra for extra, found in BY_EXTRA.items() if row[0] in {each.name for each in found}}
    expected = {"always"} if row[0] in {each.name for each in ALWAYS} else brought
    assert set(row[3].split(", ")) == expected


def test_tested_with_the_oldest_is_what_tox_pins_to_exactly_that() -> None:
    pins = [Requirement(line) for line in tox()["testenv:oldest"]["deps"].split("\n") if line]
    assert all([bound.operator for bound in pin.specifier] == ["=="] for pin in pins)
    pinned = {pin.name: Version(next(iter(pin.specifier)).version) for pin in pins}
    assert pinned.pop("opentelemetry-sdk") == pinned["opentelemetry-api"]
    assert {row[0]: Version(row[1]) for row in PACKAGES if row[2] == "yes"} == pinned
    assert {row[2] for row in PACKAGES} == {"yes", "no"}


@pytest.mark.skipif("LAMBDA_DBCONN_TESTS_THE_OLDEST" not in os.environ, reason="this run tests with the newest")
def test_what_is_tested_with_the_oldest_is_really_installed_as_that() -> None:
    """What else is installed may ask for a newer one, and pip says so in a line that nobody reads."""
    oldest = {row[0]: Version(row[1]) for row in PACKAGES if row[2] == "yes"}
    assert {name: Version(version(name)) for name in oldest} == oldest


@pytest.mark.skipif("LAMBDA_DBCONN_TESTS_THE_OLDEST" not in os.environ, reason="this run tests with the newest")
@pytest.mark.parametrize("category", [DeprecationWarning, PendingDeprecationWarning])
def test_an_old_package_may_warn_of_its_own_code_and_ours_may_not(category: type[Warning]) -> None:
    """The oldest packages are older than most Pythons that they are tested on."""
    warnings.warn_explicit("old", category, "session.py", 1, module="boto3.session")
    for module in ("lambda_dbconn.tls", "tests.unit.test_tls", "test_tls"):
        with pytest.raises(category):
            warnings.warn_explicit("old", category, "tls.py", 1, module=module)


@pytest.mark.parametrize("row", PACKAGES, ids=lambda row: row[0])
def test_the_licence_is_the_one_that_the_package_declares(row: list[str]) -> None:
    try:
        about = metadata(row[0])
    except PackageNotFoundError:
        pytest.skip(f"{row[0]} is not installed here")
    declared = [about[field] for field in ("License-Expression", "License") if field in about]
    declared += [text for text in about.get_all("Classifier", []) if text.startswith("License")]
    if "License-Expression" in about:
        assert row[4] == declared[0]
    word = row[4].partition("-")[0]
    assert any(word in text or OLDER_WORDS.get(word, word) in text for text in declared)


# --- servers


def test_every_engine_has_a_server_and_says_what_it_was_tested_with() -> None:
    rows = {row[0]: row for row in table("Servers")}
    assert {name.lower() for name in rows} == {*PORTS, "mariadb"}
    assert all(re.fullmatch(r"\d+\.\d+(, \d+\.\d+)*", tested) for _, _, tested in rows.values())
