"""What the command line teaches: each command has examples, and what is shown as a call can be called."""

from __future__ import annotations

import re
import shlex
from itertools import groupby, pairwise, takewhile
from pathlib import Path
from typing import NamedTuple

import click
import pytest

from lambda_dbconn.cli.group import NAME, CommandGroup
from tests.support.command_line import run

ROOT = Path(__file__).parents[2]
GROUP = CommandGroup.default()
COMMANDS = GROUP.list_commands(click.Context(GROUP))
_NOT_ITS_OWN = "();<>|&"


class Call(NamedTuple):
    """A call of the command line that somebody is shown."""

    where: str
    arguments: tuple[str, ...]


def calls(text: str, where: str) -> list[Call]:
    """Return the calls in shell commands: what stands behind the command's name, up to what is not its own."""
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        if f"{NAME} " not in line:
            continue
        plain = re.sub(r'"\$\((.*?)\)"', r"\1", line)
        words = shlex.shlex(plain, posix=True, punctuation_chars=_NOT_ITS_OWN)
        words.whitespace_split = True
        parts = [list(part) for is_own, part in groupby(words, lambda word: word[0] not in _NOT_ITS_OWN) if is_own]
        for part in parts:
            before = list(takewhile(lambda word: word == "eval" or "=" in word, part))
            if part[len(before) : len(before) + 1] == [NAME]:
                found.append(Call(where, tuple(part[len(before) + 1 :])))
    return [call for call in found if call.arguments]


def in_help() -> list[Call]:
    return [call for name in COMMANDS for call in calls(examples(name), f"{name} --help")] + calls(
        run("--help").stdout.partition("Examples:")[2].partition("Exit code")[0], "--help"
    )


def in_documents() -> list[Call]:
    paths = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "examples").rglob("*.md"))]
    found = []
    for path in paths:
        blocks = re.findall(r"^ *```sh\n(.*?)^ *```", path.read_text(), flags=re.MULTILINE | re.DOTALL)
        found += [call for block in blocks for call in calls(block, str(path.relative_to(ROOT)))]
    return found


def examples(name: str) -> str:
    """Return the examples in the help of a command."""
    command = GROUP.get_command(click.Context(GROUP), name)
    assert command is not None
    return (command.help or "").partition("Examples:\n")[2].partition("\n\n")[0]


def fault(call: Call) -> str | None:
    """Say what click does not understand; whether files are there is no matter here."""
    command, context = GROUP, click.Context(GROUP, info_name=NAME)
    name, *rest = call.arguments
    if name.startswith("-"):
        return None if name in ("--help", "--version") else f"{name} is no option"
    found = command.get_command(context, name)
    if found is None:
        return f"{name} is no command"
    if "--help" in rest:
        return None
    options = {word: option for option in found.params if isinstance(option, click.Option) for word in option.opts}
    given = [word.partition("=")[0] for word in rest if word.startswith("-") and word != "-"]
    unknown = [word for word in given if word not in options]
    required = [option for option in found.params if option.required and isinstance(option, click.Option)]
    missing = [option.opts[0] for option in required if not set(option.opts) & set(given)]
    for word, value in pairwise(rest):
        kind = options[word].type if word in options else None
        if isinstance(kind, click.Choice) and value not in kind.choices:
            unknown.append(f"{word} {value}")
    return "; ".join([*(f"{word} is unknown" for word in unknown), *(f"{word} is missing" for word in missing)]) or None


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_begins_with_what_it_is_for_and_has_examples(name: str) -> None:
    shown = run(name, "--help").stdout
    assert shown.startswith(f"Usage: {NAME} {name} ")
    assert "Examples:" in shown
    assert len(calls(examples(name), name)) >= 3
    assert all(call.arguments[0] == name for call in calls(examples(name), name))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_of_a_command_says_what_it_is(name: str) -> None:
    command = GROUP.get_command(click.Context(GROUP), name)
    assert command is not None
    options = [option for option in command.params if isinstance(option, click.Option)]
    assert [option.opts[0] for option in options if not (option.help or "").endswith(".")] == []


@pytest.mark.parametrize("call", in_help(), ids=lambda call: " ".join(call.arguments))
def test_an_example_of_the_help_can_be_called(call: Call) -> None:
    assert fault(call) is None


@pytest.mark.parametrize("call", sorted(set(in_documents())), ids=lambda call: " ".join(call.arguments))
def test_a_call_in_the_documentation_can_be_called(call: Call) -> None:
    assert fault(call) is None, call.where


def test_calls_are_found_and_what_cannot_be_called_is_noticed() -> None:
    text = f'eval "$({NAME} completion bash)"\n{NAME} doctor --json | jq .  # see\n'
    text += f"x={NAME}\n. ./env; {NAME} pins \\\n  -\n"
    assert [call.arguments for call in calls(text, "")] == [("completion", "bash"), ("doctor", "--json"), ("pins", "-")]
    wrong = ["doctors", "doctor --jason", "pins src", "layer --python 2.7 --arch arm64 --engine mysql"]
    assert [fault(Call("", tuple(words.split()))) for words in wrong] == [
        "doctors is no command",
        "--jason is unknown",
        "--engine is missing",
        "--python 2.7 is unknown",
    ]
    assert len(in_documents()) > 20
