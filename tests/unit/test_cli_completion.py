"""What a shell offers at the tab key: real shells are asked where they are installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from lambda_dbconn.cli.group import CommandGroup
from lambda_dbconn.settings.model import PORTS
from tests.support.command_line import run

# click 8.1.3, the oldest that is accepted, on Python 3.13.
pytestmark = pytest.mark.filterwarnings("ignore:'count' is passed as positional argument:DeprecationWarning")

# What is typed, and what is offered for the last word.
ASKED = {
    "lambda-dbconn lay": ["layer"],
    "lambda-dbconn layer --arch ": ["x86_64", "arm64"],
    "lambda-dbconn layer --rds": ["--rds-ca-bundle"],
    "lambda-dbconn layer --engine ": ["postgresql", "mysql"],
    "lambda-dbconn layer --engine mysql,": ["mysql,postgresql"],
    "lambda-dbconn completion ": ["bash", "zsh", "fish"],
    "lambda-dbconn no-such": [],
}


def shell(name: str, *arguments: str, told: str = "") -> list[str]:
    """Run a shell that finds this Python's command first; return its lines."""
    program = shutil.which(name)
    if program is None:
        pytest.skip(f"no {name}")
    folder = Path(sys.executable).parent
    assert (folder / "lambda-dbconn").exists()
    done = subprocess.run(
        [program, *arguments],
        input=told,
        env=os.environ | {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def protocol(name: str, typed: str) -> str:
    """Ask as the script for a shell does."""
    words = typed.split(" ")
    environ = {"COMP_WORDS": typed, "COMP_CWORD": str(len(words) - 1), "_LAMBDA_DBCONN_COMPLETE": f"{name}_complete"}
    return CliRunner().invoke(CommandGroup.default(), env=environ, prog_name="lambda-dbconn").output


BASH = """
eval "$(lambda-dbconn completion bash)"
{questions}
"""
QUESTION = """
COMP_WORDS=({words}); COMP_CWORD={last}; COMPREPLY=()
_lambda_dbconn_completion lambda-dbconn
echo "${{COMPREPLY[*]}}"
"""


def test_bash_offers_commands_options_and_their_values() -> None:
    questions = ""
    for typed in ASKED:
        words = typed.split(" ")
        questions += QUESTION.format(words=" ".join(f"'{word}'" for word in words), last=len(words) - 1)
    lines = shell("bash", "--norc", told=BASH.format(questions=questions))
    assert dict(zip(ASKED, [line.split() for line in lines], strict=True)) == ASKED


def test_bash_is_told_which_function_completes_the_command() -> None:
    (line,) = shell("bash", "--norc", told='eval "$(lambda-dbconn completion bash)"; complete -p lambda-dbconn')
    assert line == "complete -o nosort -F _lambda_dbconn_completion lambda-dbconn"


def test_fish_offers_commands_options_and_their_values() -> None:
    asked = [typed for typed in ASKED if "," not in typed]
    questions = "".join(f"echo '>'; complete -C '{typed}'\n" for typed in asked)
    lines = shell("fish", "--no-config", told=f"lambda-dbconn completion fish | source\n{questions}")
    offered = [[line.split("\t")[0] for line in part.splitlines()] for part in "\n".join(lines).split(">")[1:]]
    found = {typed: set(each) - {""} for typed, each in zip(asked, offered, strict=True)}
    assert found == {typed: set(ASKED[typed]) for typed in asked}


def test_zsh_takes_the_script_and_is_offered_values_with_their_help(tmp_path: Path) -> None:
    script = tmp_path / "completion.zsh"
    script.write_text(run("completion", "zsh").stdout)
    assert shell(
        "zsh", "-f", told=f"autoload -U compinit; compinit -D\nsource {script}\nprint $_comps[lambda-dbconn]"
    ) == ["_lambda_dbconn_completion"]


def test_zsh_is_offered_commands_with_their_help() -> None:
    assert protocol("zsh", "lambda-dbconn lay") == "plain\nlayer\nBuild a Lambda layer.\n"


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_the_script_for_a_shell_asks_this_command(name: str) -> None:
    result = run("completion", name)
    assert (result.exit_code, result.stderr) == (0, "")
    assert f"_LAMBDA_DBCONN_COMPLETE={name}_complete" in result.stdout


@pytest.mark.parametrize("arguments", [[], ["tcsh"]])
def test_another_shell_is_told_which_there_are(arguments: list[str]) -> None:
    result = run("completion", *arguments)
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert all(name in result.stderr for name in ("bash", "zsh", "fish"))


@pytest.mark.parametrize("typed", ["postgresql,mysql", "mysql,postgresql", ""])
def test_engines_are_completed_one_after_the_other_and_none_twice(typed: str) -> None:
    offered = protocol("bash", f"lambda-dbconn layer --engine {typed},").split()
    assert set(offered) == {f"plain,{typed},{name}" for name in PORTS if name not in typed.split(",")}
