"""The commands in a shell block of the documentation, and what would carry them out, asked whether it understands."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import subprocess
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import click
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from lambda_dbconn.cli.group import CommandGroup

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]


def commands(code: str) -> list[list[str]]:
    """Return the words of each command, without comments, redirections and the variables set for it."""
    found: list[list[str]] = []
    for line in code.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if set(word) <= set("();|&"):
                found.append(words)
                words = []
            else:
                words.append(word)
    return [inner for words in found for inner in _unwrapped(words)]


def _unwrapped(words: list[str]) -> Iterator[list[str]]:
    """Take away what is around a command: variables before it, redirections after it, `eval` of what it prints."""
    if ">" in words:
        words = words[: words.index(">")]
    while words and re.match(r"[A-Za-z_]\w*=", words[0]):
        words = words[1:]
    evaluated = re.fullmatch(r"\$\((.*)\)", words[1]) if len(words) == 2 and words[0] == "eval" else None
    if evaluated:
        yield from commands(evaluated[1])
    elif words:
        yield words


# --- what would carry them out


def _parse_own(arguments: list[str]) -> None:
    """Let click parse all options and arguments of `lambda-dbconn`, with files of the names that are given."""
    group = CommandGroup.default()
    with contextlib.suppress(click.exceptions.Exit), contextlib.redirect_stdout(io.StringIO()):  # of --help
        context = group.make_context("lambda-dbconn", list(arguments))
        if context.invoked_subcommand is None and not arguments:
            return
        name, command, rest = group.resolve_command(context, arguments)
        assert command is not None
        for word in rest:
            _make_input(word)
        command.make_context(name, rest, parent=context)


def _make_input(word: str) -> None:
    if re.fullmatch(r"[\w-]+\.\w+", word):
        Path(word).touch()
    elif re.fullmatch(r"[a-z]\w*", word):
        Path(word).mkdir(exist_ok=True)


def _parse_pip(arguments: list[str]) -> None:
    """See that each requirement is one, and that this project has the extras that are asked of it."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    words = iter(arguments[1:])
    for word in words:
        if word == "-r":
            next(words)
            continue
        requirement = Requirement(re.sub(r"^\.", "lambda-dbconn", word))
        if canonicalize_name(requirement.name) == "lambda-dbconn":
            missing = requirement.extras - extras.keys()
            assert not missing, f"there is no extra {', '.join(missing)}"


def _parse_make(arguments: list[str]) -> None:
    """See that there are such targets, and variables."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"^([\w-]+):", makefile, flags=re.MULTILINE)
    variables = re.findall(r"\$\((\w+)\)", makefile)
    unknown = {word.partition("=")[0] for word in arguments} - {*targets, *variables}
    assert not unknown, f"there is no target {', '.join(unknown)}"


def _parse_export(arguments: list[str]) -> None:
    """See that these are variables."""
    wrong = [word for word in arguments if not re.match(r"[A-Za-z_]\w*=", word)]
    assert not wrong, f"these are no variables: {', '.join(wrong)}"


_PARSERS: dict[str, Callable[[list[str]], None]] = {
    "export": _parse_export,
    "lambda-dbconn": _parse_own,
    "make": _parse_make,
    "pip": _parse_pip,
}


def _parser_of(program: str, arguments: list[str]) -> Callable[[list[str]], None] | None:
    options = {word for word in arguments if word.startswith("-")} - {"-r"}
    if program == "pip" and (arguments[:1] != ["install"] or options):
        return None
    return _PARSERS.get(program)


def unknown_programs(code: str) -> set[str]:
    """Return the programs of which nothing here knows what they take."""
    return {program for program, *arguments in commands(code) if _parser_of(program, arguments) is None}


def faults(code: str, folder: Path) -> list[str]:
    """Say what is wrong with a block: its syntax, or one of its commands that are known here.

    Args:
        code: The block.
        folder: An empty one; files that the commands name are made in it.
    """
    syntax = subprocess.run(["bash", "-n"], input=code, capture_output=True, text=True, check=False)
    if syntax.returncode:
        return [syntax.stderr]
    found = []
    with contextlib.chdir(folder):
        for program, *arguments in commands(code):
            parse = _parser_of(program, arguments)
            try:
                if parse is not None:
                    parse(arguments)
            except (AssertionError, ValueError, click.ClickException) as error:
                said = error.format_message() if isinstance(error, click.ClickException) else str(error)
                found.append(f"{shlex.join([program, *arguments])}: {said}")
    return found
