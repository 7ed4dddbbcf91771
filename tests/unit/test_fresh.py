"""`make fresh`: what it reads of this machine's configuration, and of the output of what it runs."""

from __future__ import annotations

import configparser
import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.once

FOLDER = Path(__file__).parents[2] / ".ci"


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The script, as a module."""
    monkeypatch.syspath_prepend(str(FOLDER))
    spec = importlib.util.spec_from_file_location("fresh", FOLDER / "fresh.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.modules.pop("prepare", None)


def test_a_release_comes_from_the_mirror_that_apt_is_set_up_with(fresh: Any) -> None:
    listing = (
        "http://other.example/apt|stable|Other|main\n"
        "http://mirror.example/debian-security|bookworm-security|Debian|main\n"
        "http://mirror.example/debian|bookworm|Debian|main\n"
        "http://mirror.example/debian|bookworm|Debian|contrib\n"
        "http://mirror.example/debian|bookworm-updates|Debian|main\n"
        "http://mirror.example/debian|sid|Debian|main\n"
    )
    assert fresh.apt_sources("trixie", listing) == (
        "http://mirror.example/debian",
        [
            "deb http://mirror.example/debian-security trixie-security main",
            "deb http://mirror.example/debian trixie main",
            "deb http://mirror.example/debian trixie-updates main",
        ],
    )


def test_without_a_mirror_of_debians_it_says_so(fresh: Any) -> None:
    with pytest.raises(SystemExit, match="no mirror of Debian"):
        fresh.apt_sources("trixie", "http://mirror.example/ubuntu|noble|Ubuntu|main\n")


def test_pips_configuration_is_written_as_pip_says_it_is(fresh: Any) -> None:
    listing = ":env:.cert='/env.pem'\n:env:.config-file='/x'\nglobal.cert='/file.pem'\ninstall.find-links='/a\\n/b'\n"
    text, options = fresh.pip_configuration(listing)
    parser = configparser.RawConfigParser()
    parser.read_string(text)
    read = {name: {key: value.split() for key, value in parser[name].items()} for name in parser.sections()}
    assert read == {"global": {"cert": ["/env.pem"]}, "install": {"find-links": ["/a", "/b"]}}
    assert sorted(options) == [("cert", "/env.pem"), ("find-links", "/a\n/b")]
    assert fresh.pip_configuration("") == ("\n", [])


def test_files_and_folders_that_pip_is_told_of_are_brought_along(fresh: Any, tmp_path: Path) -> None:
    for name in ("wheels", "index/simple"):
        (tmp_path / name).mkdir(parents=True)
    options = [
        ("find-links", f"{tmp_path}/wheels {tmp_path}/missing"),
        ("extra-index-url", f"https://index.example/simple file://{tmp_path}/index/simple"),
        ("timeout", "60"),
    ]
    assert fresh.local_paths(options) == [f"{tmp_path}/wheels", f"{tmp_path}/index"]


def test_what_passed_and_what_failed_is_shown(fresh: Any) -> None:
    shown = [
        "FAILED tests/unit/test_x.py::test_y",
        "=== 2 failed, 10 passed, 3 skipped in 4.56s ===",
        "py313: FAIL code 1 (4.56 seconds)",
        "make: *** [Makefile:15: test] Error 1",
        "LocalMySQL: NOT AVAILABLE: no MySQL",
    ]
    hidden = ["=== slowest 12 durations ===", "tests/unit/test_x.py ...", "the test passed"]
    text = "\n".join([*shown, *hidden]).replace("FAILED", "\x1b[31mFAILED\x1b[0m")
    assert fresh.interesting_lines(text) == shown


@pytest.mark.parametrize("arguments", [["--user", "a b"], ["--user", "../x"], ["--place", "srv"]])
def test_an_account_or_place_that_cannot_be_is_refused(
    fresh: Any, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        fresh.parse(arguments)
    assert end.value.code == 2
    assert arguments[0] in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "place"), [([], "/root"), (["--user", "ada"], "/home/ada"), (["--place", "/srv"], "/srv")]
)
def test_the_clone_lies_in_the_home_of_the_account_unless_another_place_is_given(
    fresh: Any, arguments: list[str], place: str
) -> None:
    assert fresh.parse(arguments).place == place
