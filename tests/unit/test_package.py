from __future__ import annotations

import ast
import os
import pkgutil
import types
from pathlib import Path

import pytest

import lambda_dbconn
from tests.unit.conftest import in_fresh_process

PACKAGE = Path(lambda_dbconn.__file__).parent
TESTS = Path(__file__).parent

# What is about more than one module.
CROSSING = {
    "canary",
    "docs",
    "docs_snippets",
    "docs_sums",
    "fresh",
    "package",
    "state_machine",
    "supported_versions",
    "version",
    "workflows",
}


def public(module: types.ModuleType) -> set[str]:
    """Return what a module defines or imports under a public name, modules aside."""
    return {
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }


def modules() -> set[str]:
    """Return every module's dotted path below the package, packages included."""
    found = pkgutil.walk_packages([str(PACKAGE)], prefix="")
    return {module.name for module in found}


@pytest.mark.skipif("LAMBDA_DBCONN_TESTS_THE_WHEEL" not in os.environ, reason="this run tests the working tree")
def test_what_is_tested_is_the_installed_wheel() -> None:
    assert PACKAGE.parent.name == "site-packages"


def test_what_is_exported_is_what_is_there() -> None:
    lazily = {"AsyncConnectionManager", "StaticProvider"}  # by `__getattr__`
    assert {*public(lambda_dbconn), "__version__", *lazily} == set(lambda_dbconn.__all__)


def test_exports_are_sorted_and_named_once() -> None:
    assert sorted(set(lambda_dbconn.__all__)) == lambda_dbconn.__all__


def test_a_star_import_gives_every_export() -> None:
    names = in_fresh_process("from lambda_dbconn import *\nprint(*sorted(name for name in dir() if name[1] != '_'))")
    assert set(names.split()) == {name for name in lambda_dbconn.__all__ if not name.startswith("_")}


def test_every_export_has_a_docstring() -> None:
    assert [name for name in lambda_dbconn.__all__ if not getattr(lambda_dbconn, name).__doc__] == []


def test_every_error_and_no_other_is_exported() -> None:
    errors = {name for name in lambda_dbconn.__all__ if name.endswith(("Error", "Warning"))}
    assert errors == {name for name in public(lambda_dbconn.errors) if name.endswith(("Error", "Warning"))}


FORBIDDEN = [
    "psycopg",
    "psycopg_binary",
    "pymysql",
    "boto3",
    "botocore",
    "tenacity",
    "aws_lambda_powertools",
    "aws_xray_sdk",
    "opentelemetry",
    "json",
    "dataclasses",
    "typing",
    "logging",
    "threading",
    "asyncio",
    "socket",
    "ssl",
    "inspect",
    "urllib.parse",
    "importlib.metadata",
]
IMPORT = """
import sys
before = set(sys.modules)
{code}
print(*sorted(set(sys.modules) - before))
print(*sorted(before))
"""


def imported_by(code: str) -> tuple[set[str], set[str]]:
    """Return what code imports in a fresh process, and what the process had loaded before."""
    after, before = in_fresh_process(IMPORT.format(code=code)).splitlines()
    return set(after.split()), set(before.split())


@pytest.mark.parametrize("name", FORBIDDEN)
def test_a_cold_start_does_not_pay_for(name: str) -> None:
    after, before = imported_by("import lambda_dbconn")
    if name in before:
        pytest.fail(f"the interpreter itself loads {name} at start: this environment proves nothing")
    assert "lambda_dbconn.manager" in after
    assert {module for module in after if module == name or module.startswith(name + ".")} == set()


MANAGE = """
import lambda_dbconn
from lambda_dbconn.testing.fakes import FakeDriver
settings = lambda_dbconn.Settings(engine="mysql", host="localhost", port=1, user="app", sslmode="disable")
db = lambda_dbconn.ConnectionManager(settings, driver=object())
"""


def test_making_a_manager_by_hand_imports_neither_driver_nor_tenacity() -> None:
    after, _ = imported_by(MANAGE.replace("from lambda_dbconn.testing.fakes import FakeDriver\n", ""))
    assert not {name for name in after if name.split(".")[0] in ("psycopg", "pymysql", "tenacity", "boto3", "certifi")}


@pytest.mark.parametrize("path", sorted(TESTS.glob("*.py")), ids=lambda path: path.stem)
def test_test_names_are_sentences_and_none_is_there_twice(path: Path) -> None:
    functions = [node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]
    tests = [name for name in functions if name.startswith("test_")]
    assert len(tests) == len(set(tests))
    assert [name for name in tests if len(name.split("_")) < 4] == []
