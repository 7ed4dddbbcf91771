"""A page of Markdown, followed word by word: what it says to type is typed, and what it shows has to come.

The words that do something are in `_WORDS`. `sh` blocks are typed into a terminal, `python` blocks are saved as what
the sentence before says, and a `text` block is what a terminal has to show since the last such block, to its end; `…`
stands for anything in a line, and alone for any lines. A block that nothing in the page's words leads to is an error.
"""

from __future__ import annotations

import codecs
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

LIMIT_OF_OUTPUT_S = 30.0
_LIMIT_S = 300.0
_QUIET_S = 0.3
_SILENT_S = 8.0
_PROMPT = re.compile(r"\[exit (\d+)\] $")
_NUMBERS = {"ten": 10, "fifteen": 15, "twenty": 20, "thirty": 30}
_WORDS = re.compile(
    r"(?i:\b(?P<terminal>in (?:another|the first|the second) terminal)"
    r"|\bpress Enter(?P<twice> twice)?"
    r"|\bpress Ctrl-(?P<control>[A-Z])"
    r"|\btype `(?P<typed>\w+)`"
    r"|\bwait (?P<seconds>\w+) seconds"
    r"|\bsave this as `(?P<saved>[\w.]+)`"
    r"|\badd this to `(?P<added>[\w.]+)`"
    r"|\bput `(?P<new>[\w.]+)` in place of `(?P<old>[\w.]+)` in `(?P<edited>[\w.]+)`)"
)
# A terminal of its own for bash: the job control of `fg` and Ctrl-Z needs one.
_START = (
    "import fcntl, os, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    "os.execvp('bash', ['bash', '--norc', '--noprofile', '--noediting', '-i'])"
)


class Step(NamedTuple):
    """One thing that the page says to do or to see: what kind, at which line, and the words or the block."""

    line: int
    kind: str
    text: str
    name: str = ""


def steps_of(page: str) -> list[Step]:
    """Return what a page says, in order.

    Raises:
        AssertionError: A block is not led to by any words, or words lead to none.
    """
    steps: list[Step] = []
    file: Step | None = None
    line = 1
    for part in re.split(r"(^```\w*\n.*?^```\n)", page, flags=re.DOTALL | re.MULTILINE):
        if part.startswith("```"):
            language, _, code = part.removesuffix("```\n")[3:].partition("\n")
            if language == "python":
                assert file is not None, f"line {line}: the page does not say where the block goes"
                steps.append(Step(line, file.kind, code, file.name))
                file = None
            else:
                assert language in ("sh", "text"), f"line {line}: nobody knows what to do with {language!r}"
                steps.append(Step(line, language, code))
        else:
            for step in _said(part, line):
                assert file is None, f"line {line}: {file} has no block"
                if step.kind in ("save", "add"):
                    file = step
                else:
                    steps.append(step)
        line += part.count("\n")
    assert file is None, f"{file} has no block"
    return steps


def _said(prose: str, line: int) -> Iterator[Step]:
    for found in _WORDS.finditer(prose.replace("\n", " ")):
        at = line + prose[: found.start()].count("\n")
        said = found.groupdict()
        if said["terminal"]:
            yield Step(at, "terminal", said["terminal"].split()[-2].lower())
        elif said["control"]:
            yield Step(at, "control", said["control"].upper())
        elif said["typed"]:
            yield Step(at, "type", said["typed"])
        elif said["seconds"]:
            yield Step(at, "wait", said["seconds"])
        elif said["saved"] or said["added"]:
            yield Step(at, "save" if said["saved"] else "add", "", said["saved"] or said["added"])
        elif said["edited"]:
            yield Step(at, "edit", f"{said['old']} {said['new']}", said["edited"])
        else:
            yield from [Step(at, "type", "")] * (2 if said["twice"] else 1)


class Terminal:
    """A shell in a terminal of its own, as somebody has it in front of them."""

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        self._own, other = pty.openpty()
        self._shell = subprocess.Popen(
            [sys.executable, "-c", _START],
            cwd=folder,
            env={**environ, "PS1": "[exit $?] ", "PS2": "", "TERM": "dumb", "VIRTUAL_ENV_DISABLE_PROMPT": "1"},
            stdin=other,
            stdout=other,
            stderr=other,
        )
        os.close(other)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._new = ""  # since the last output that was looked at
        self._is_waiting = False

    @property
    def folder(self) -> Path:
        """Where the shell is."""
        return Path(f"/proc/{self._shell.pid}/cwd").readlink()

    def _read(self, limit_s: float) -> bool:
        if not select.select([self._own], [], [], limit_s)[0]:
            return False
        self._new += self._decoder.decode(os.read(self._own, 65536)).replace("\r", "")
        return True

    def wait_for_line(self) -> None:
        """Wait until whatever runs waits for input: it has begun a line, and is quiet; or is quiet for long."""
        last = time.monotonic()
        if self._is_waiting:
            return
        while self._read(_QUIET_S) or not self._new or self._new.endswith("\n"):
            if self._read(_QUIET_S):
                last = time.monotonic()
            elif time.monotonic() - last > _SILENT_S:  # what was stopped and goes on shows its question no second time
                return

    def run(self, block: str) -> None:
        """Type a block's commands, each when the one before has ended well."""
        for command in re.split(r"(?<!\\)\n", block.strip()):
            self.finish()
            self._new = ""
            self.send(f"{command}\n")
            self._forget(command)

    def send(self, text: str) -> None:
        self._is_waiting = False
        os.write(self._own, text.encode())

    def _forget(self, command: str) -> None:
        """Read the echo of a command, which is no output."""
        typed = f"{command}\n"
        ends_at = time.monotonic() + _LIMIT_S
        while typed not in self._new:
            self._read(_QUIET_S)
            assert time.monotonic() < ends_at, self._new
        self._new = self._new.partition(typed)[2]

    def expect(self, shown: str) -> None:
        """Wait until what has come since the last time is what is shown, and no more."""
        pattern = re.compile(pattern_of(shown))
        ends_at = time.monotonic() + LIMIT_OF_OUTPUT_S
        while self._read(_QUIET_S) or not pattern.fullmatch(self._plain()):
            assert time.monotonic() < ends_at, f"expected:\n{shown}\nbut it is:\n{self._plain()}"
        prompt = _PROMPT.search(self._new)
        self._new = prompt[0] if prompt else ""
        self._is_waiting = not prompt  # what waited for input goes on waiting

    def _plain(self) -> str:
        text = re.sub(r"\x1b\[[\d;]*m|\^[CZ]", "", _PROMPT.sub("", self._new))
        return "\n".join(line.rstrip() for line in text.strip().splitlines())

    def finish(self) -> None:
        """Wait for the shell's prompt, and see that the last command ended well, or was interrupted or stopped."""
        ends_at = time.monotonic() + _LIMIT_S
        while (found := _PROMPT.search(self._new)) is None:
            self._read(_QUIET_S)
            assert time.monotonic() < ends_at, f"no shell's prompt:\n{self._new}"
        assert found[1] in ("0", "130", "148"), self._new

    def close(self) -> None:
        """Hang up, as by closing the window."""
        os.close(self._own)
        with suppress(ProcessLookupError):
            os.killpg(self._shell.pid, signal.SIGHUP)
        self._shell.wait(timeout=30)


def pattern_of(shown: str) -> str:
    """Return the regular expression for a block of output."""
    lines = []
    for line in shown.strip().splitlines():
        if line.strip() == "…":
            lines.append(r"(?:.*\n)*?")
        else:
            pattern = ".+?".join(map(re.escape, line.rstrip().split("…"))) + r"\n"
            # What the shell says of a job has a gap that is wider in Bash 5.3 than in 5.2.
            lines.append(re.sub(r"(?:\\ ){3,}", " +", pattern) if line.startswith("[") else pattern)
    return "".join(lines).removesuffix(r"\n")


class Walkthrough:
    """Follows a page, in terminals that begin in `folder`."""

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        self._folder, self._environ = folder, environ
        self._terminals = [Terminal(folder, environ)]
        self._at = self._terminals[0]

    def follow(self, page: str) -> None:
        """Do all that the page says."""
        for step in steps_of(page):
            try:
                self._do(step)
            except AssertionError as error:
                error.add_note(f"at line {step.line} of the page: {step.kind} {step.name} {step.text!r}")
                raise
        self._at.finish()

    def _do(self, step: Step) -> None:
        if step.kind == "terminal":
            if step.text == "another":
                self._terminals.append(Terminal(self._folder, self._environ))
            self._at = self._terminals[{"first": 0, "second": 1, "another": -1}[step.text]]
        elif step.kind == "sh":
            self._at.run(step.text)
        elif step.kind == "text":
            self._at.expect(step.text)
        elif step.kind == "type":
            self._at.wait_for_line()
            self._at.send(f"{step.text}\n")
        elif step.kind == "control":
            self._at.send(chr(ord(step.text) - ord("A") + 1))
        elif step.kind == "wait":
            time.sleep(_NUMBERS[step.text])
        else:
            self._write(step)

    def _write(self, step: Step) -> None:
        path = self._at.folder / step.name
        if step.kind == "edit":
            old, new = step.text.split()
            before = path.read_text()
            assert old in before
            path.write_text(before.replace(old, new))
        else:
            with path.open("a" if step.kind == "add" else "w") as file:
                file.write(f"\n\n{step.text}" if step.kind == "add" else step.text)

    def close(self) -> None:
        """Close all terminals."""
        for terminal in self._terminals:
            terminal.close()
