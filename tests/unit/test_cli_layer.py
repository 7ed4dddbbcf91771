"""`lambda-dbconn layer`, up to where pip would be asked: options, errors, and what it knows about Lambda's runtimes."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest
from click.testing import CliRunner

import lambda_dbconn
from lambda_dbconn.cli import requirements
from lambda_dbconn.cli.commands import layer
from lambda_dbconn.cli.group import CommandGroup
from lambda_dbconn.cli.layer import building, own_wheel
from lambda_dbconn.cli.layer.archive import Archive
from lambda_dbconn.cli.layer.building import Order
from lambda_dbconn.cli.layer.runtime import ARCHITECTURES, PYTHONS, Architecture, Runtime
from lambda_dbconn.settings.model import PORTS

if TYPE_CHECKING:
    from click.testing import Result

pytestmark = pytest.mark.once

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LEAST = ["--python", "3.13", "--arch", "arm64", "--engine", "postgresql"]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(CommandGroup.default(), ["layer", *arguments], prog_name="lambda-dbconn")


def said(result: Result, *, exit_code: int = 2) -> str:
    """Return the error, which is one line."""
    assert result.exit_code == exit_code, result.output
    assert result.output.count("\n") == 1, result.output
    return result.output


@pytest.fixture
def orders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Order]:
    """What would be built."""
    found: list[Order] = []

    def build(order: Order) -> Archive:
        found.append(order)
        return Archive(path=order.output, sha256="5a1e", zipped_bytes=0, unpacked_bytes=0)

    monkeypatch.setattr(building, "build", build)
    monkeypatch.chdir(tmp_path)
    return found


# --- options


def test_the_file_is_named_after_what_it_is_for(orders: list[Order]) -> None:
    result = run(*LEAST)
    assert (result.exit_code, result.stdout) == (0, "5a1e  lambda-dbconn-python3.13-arm64.zip\n")
    runtime = Runtime(python="3.13", architecture="arm64")
    assert orders == [
        Order(
            runtime=runtime,
            engines=["postgresql"],
            output=Path(result.stdout.split()[1]),
            source=None,
            bundle=None,
            like=None,
        )
    ]


def test_every_option_arrives(orders: list[Order], tmp_path: Path) -> None:
    for name in ("bundle.pem", "old.zip", "own.whl"):
        (tmp_path / name).touch()
    words = "--python 3.12 --arch x86_64 --engine postgresql,mysql -o new.zip"
    words += " --rds-ca-bundle bundle.pem --like old.zip --from own.whl --sbom new.cdx.json"
    assert run(*words.split()).exit_code == 0
    assert orders == [
        Order(
            runtime=Runtime(python="3.12", architecture="x86_64"),
            engines=["mysql", "postgresql"],
            output=Path("new.zip"),
            source=(tmp_path / "own.whl").resolve(),
            bundle=(tmp_path / "bundle.pem").resolve(),
            like=(tmp_path / "old.zip").resolve(),
            sbom=Path("new.cdx.json"),
        )
    ]


@pytest.mark.parametrize(
    "given", ["postgresql,mysql", "mysql,postgresql", "mysql, postgresql", "mysql,postgresql,mysql"]
)
def test_the_order_in_which_engines_are_named_changes_nothing(orders: list[Order], given: str) -> None:
    assert run(*LEAST[:-1], given).exit_code == 0
    assert orders[0].engines == ["mysql", "postgresql"]


@pytest.mark.parametrize("given", ["oracle", "postgresql,oracle", "", "postgresql,"])
@pytest.mark.usefixtures("orders")
def test_another_engine_is_refused_with_those_that_there_are(given: str) -> None:
    message = said(run(*LEAST[:-1], given))
    assert "'--engine'" in message
    assert "accepted: postgresql, mysql, or both" in message


@pytest.mark.parametrize("missing", [0, 2, 4])
@pytest.mark.usefixtures("orders")
def test_what_a_layer_is_for_is_not_guessed(missing: int) -> None:
    assert f"Missing option '{LEAST[missing]}'" in said(run(*LEAST[:missing], *LEAST[missing + 2 :]))


@pytest.mark.parametrize("python", ["3.10", "3.15", "3"])
@pytest.mark.usefixtures("orders")
def test_a_python_that_is_not_supported_is_refused(python: str) -> None:
    assert "'3.11', '3.12', '3.13', '3.14'" in said(run("--python", python, *LEAST[2:]))


@pytest.mark.usefixtures("orders")
def test_a_folder_that_is_not_there_is_noticed_before_the_work() -> None:
    assert "nowhere is not a directory" in said(run(*LEAST, "-o", "nowhere/layer.zip"))
    assert "nowhere is not a directory" in said(run(*LEAST, "--sbom", "nowhere/layer.cdx.json"))


@pytest.mark.parametrize("module", ["pip", "packaging", "cyclonedx"])
def test_a_package_that_is_missing_is_named_with_the_extra_that_brings_it(
    monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    monkeypatch.setattr(requirements, "find_spec", lambda name: None if name == module else object())
    message = f"lambda-dbconn: not installed: {module}: pip install 'lambda-dbconn[layer]'\n"
    assert said(run(*LEAST, "--sbom", "layer.cdx.json")) == message


def test_who_wants_no_bill_of_materials_needs_no_library_for_it(
    orders: list[Order], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requirements, "find_spec", lambda name: None if name == "cyclonedx" else object())
    assert run(*LEAST).exit_code == 0
    assert len(orders) == 1


# --- what is known about Lambda


def test_what_can_be_asked_for_is_what_the_package_says_it_supports() -> None:
    choices = {
        option.name: tuple(option.type.choices)
        for option in layer.command.params
        if isinstance(option.type, click.Choice)
    }
    assert choices == {"python": PYTHONS, "architecture": tuple(ARCHITECTURES)}
    prefix = "Programming Language :: Python :: 3."
    assert list(PYTHONS) == [
        f"3.{name.removeprefix(prefix)}" for name in PROJECT["classifiers"] if name.startswith(prefix)
    ]
    assert set(layer._ENGINES) == set(PORTS)
    assert set(layer._ENGINES) <= set(PROJECT["optional-dependencies"])


@pytest.mark.parametrize(
    ("python", "architecture", "best", "never"),
    [
        ("3.11", "x86_64", "manylinux_2_26_x86_64", "manylinux_2_27_x86_64"),
        ("3.11", "arm64", "manylinux_2_26_aarch64", "manylinux_2_28_aarch64"),
        ("3.12", "x86_64", "manylinux_2_34_x86_64", "manylinux_2_35_x86_64"),
        ("3.14", "arm64", "manylinux_2_34_aarch64", "manylinux_2_16_aarch64"),
    ],
)
def test_a_runtime_takes_wheels_for_its_glibc_and_all_older_ones_the_best_first(
    python: str, architecture: Architecture, best: str, never: str
) -> None:
    runtime = Runtime(python=python, architecture=architecture)
    tags = runtime.platform_tags
    assert tags[0] == best
    assert never not in tags
    at = tags.index(f"manylinux_2_17_{runtime.machine}")
    assert tags[at + 1] == f"manylinux2014_{runtime.machine}"
    assert len(tags) == len(set(tags))
    assert all(tag.endswith(runtime.machine) for tag in tags)


def test_the_oldest_names_of_platforms_are_known_for_the_architecture_that_had_them() -> None:
    assert Runtime(python="3.13", architecture="x86_64").platform_tags[-1] == "manylinux1_x86_64"
    assert Runtime(python="3.13", architecture="arm64").platform_tags[-1] == "manylinux2014_aarch64"


# --- lambda_dbconn's own wheel


def test_what_is_neither_a_checkout_nor_a_wheel_of_this_package_is_refused(tmp_path: Path) -> None:
    stranger = tmp_path / "requests-2.0-py3-none-any.whl"
    stranger.touch()
    with pytest.raises(click.BadParameter, match="neither a checkout nor a wheel of lambda_dbconn"):
        own_wheel.own_wheel(stranger, folder=tmp_path)


def test_code_and_metadata_of_two_versions_are_not_mixed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(lambda_dbconn, "__version__", "99.0")
    with pytest.raises(click.ClickException, match=r"installed as [\d.]+, but what runs is 99\.0"):
        own_wheel.own_wheel(None, folder=tmp_path)


def test_a_package_that_is_only_on_the_path_needs_to_be_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(own_wheel, "NAME", "lambda-dbconn-that-nobody-installed")
    with pytest.raises(click.ClickException, match="is not installed: name a checkout or a wheel with --from"):
        own_wheel.own_wheel(None, folder=tmp_path)
