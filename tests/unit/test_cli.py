"""The frame of the command line: finding commands, help, errors, completion."""

from __future__ import annotations

import sys
import tomllib
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest
from click.testing import CliRunner

import lambda_dbconn
from lambda_dbconn.cli import commands, main
from lambda_dbconn.cli.group import CommandGroup
from tests.unit.conftest import in_fresh_process

if TYPE_CHECKING:
    from collections.abc import Iterator

    from click.testing import Result

FAILING = """
import click

@click.command("fails-at-once", short_help="Fails.")
@click.option("--well", is_flag=True)
@click.option("--interrupted", is_flag=True)
def command(well, interrupted):
    import json
    if interrupted:
        raise KeyboardInterrupt
    if not well:
        raise click.ClickException("there is\\nno hope.")
    click.echo(json.dumps("well"))
"""


def run(*arguments: str, **environ: str) -> Result:
    return CliRunner().invoke(CommandGroup.default(), arguments, env=environ, prog_name="lambda-dbconn")


@pytest.fixture
def another_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One more file in the folder of commands."""
    (tmp_path / "fails_at_once.py").write_text(FAILING)
    monkeypatch.setattr(commands, "__path__", [*commands.__path__, str(tmp_path)])
    yield
    sys.modules.pop("lambda_dbconn.cli.commands.fails_at_once", None)


def test_the_help_shows_the_commands_an_example_and_how_to_switch_completion_on() -> None:
    result = run("--help")
    assert result.exit_code == 0
    assert "local-proxy  Run a stand-in for RDS Proxy" in result.output
    assert "  lambda-dbconn local-proxy --engine postgresql\n" in result.output
    assert '  eval "$(lambda-dbconn completion bash)"\n' in result.output


def test_no_command_at_all_is_a_question_for_help() -> None:
    result = run()
    assert (result.exit_code, result.output) == (0, run("--help").output)


def test_the_version_is_the_packages() -> None:
    result = run("--version")
    assert (result.exit_code, result.output) == (0, f"lambda-dbconn {lambda_dbconn.__version__}\n")


@pytest.mark.parametrize("arguments", [["no-such-command"], ["local-proxy", "--no-such-option"], ["--nonsense"]])
def test_a_wrong_call_is_one_line_that_says_where_help_is(arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.output.startswith("lambda-dbconn")
    assert result.output.endswith(" --help)\n")
    assert result.output.count("\n") == 1
    assert arguments[-1] in result.output


@pytest.mark.usefixtures("another_command")
def test_a_file_in_the_folder_of_commands_is_a_command() -> None:
    assert "fails-at-once  Fails." in run("--help").output
    result = run("fails-at-once", "--well")
    assert (result.exit_code, result.output) == (0, '"well"\n')


@pytest.mark.usefixtures("another_command")
def test_a_failure_is_one_line_and_exit_code_1() -> None:
    result = run("fails-at-once")
    assert (result.exit_code, result.output) == (1, "lambda-dbconn: there is no hope\n")


@pytest.mark.usefixtures("another_command")
def test_a_command_that_is_broken_off_ends_as_shells_report_it() -> None:
    result = run("fails-at-once", "--interrupted")
    assert (result.exit_code, result.output.strip()) == (130, "")


def test_the_shell_is_told_the_commands_and_their_options() -> None:
    environ = {"_LAMBDA_DBCONN_COMPLETE": "bash_complete", "COMP_WORDS": "lambda-dbconn local-", "COMP_CWORD": "1"}
    assert run(**environ).output == "plain,local-proxy\n"
    environ |= {"COMP_WORDS": "lambda-dbconn local-proxy --auth ", "COMP_CWORD": "3"}
    assert run(**environ).output == "plain,iam\nplain,secret\n"


HELP = """
import sys
sys.argv = ["lambda-dbconn", *{arguments}]
from lambda_dbconn.cli import main
try:
    main()
except SystemExit as end:
    print(end.code, *sorted(sys.modules))
"""


COMMANDS = CommandGroup.default().list_commands(click.Context(CommandGroup.default()))


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], *([name, "--help"] for name in COMMANDS)])
def test_help_does_not_wait_for_what_a_command_needs_to_run(arguments: list[str]) -> None:
    exit_code, *imported = in_fresh_process(HELP.format(arguments=arguments)).splitlines()[-1].split()
    assert exit_code == "0"
    assert "click" in imported
    heavy = (
        "rich",
        "psycopg",
        "pymysql",
        "trustme",
        "cryptography",
        "packaging",
        "asyncio",
        "ssl",
        "boto3",
        "botocore",
        "tenacity",
    )
    assert [name for name in imported if name in heavy or name.startswith("lambda_dbconn.testing")] == []


WITHOUT_CLICK = """
import sys
sys.modules["click"] = None
sys.stderr = sys.stdout
from lambda_dbconn.cli import main
try:
    main()
except SystemExit as end:
    print(end.code)
"""


def test_without_click_the_extra_to_be_installed_is_named() -> None:
    message = "lambda-dbconn: click is not installed: pip install 'lambda-dbconn[cli]'"
    assert in_fresh_process(WITHOUT_CLICK).splitlines() == [message, "2"]


def test_the_installed_script_is_the_command_line() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    module, _, name = project["scripts"]["lambda-dbconn"].partition(":")
    assert getattr(import_module(module), name) is main


def test_an_error_does_not_move_the_terminals_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    from lambda_dbconn.cli.group import CommandGroup

    @click.command("fail")
    def fail() -> None:
        raise click.ClickException("the server said \x1b[2J\x07 no")

    group = CommandGroup("x")
    group.add_command(fail)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(group, "get_command", lambda *_: fail)
        with pytest.raises(SystemExit):
            group.main(["fail"])
    assert capsys.readouterr().err == "lambda-dbconn: the server said \\x1b[2J\\x07 no\n"
