"""The tools' own verdicts: cfn-lint, `sam validate --lint`, `terraform fmt`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from tests.infrastructure.templates import EXAMPLES, SAM_TEMPLATE

if TYPE_CHECKING:
    from collections.abc import Callable


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a tool without an account, without telemetry, and with a home of its own."""
    environment = {
        **os.environ,
        "AWS_DEFAULT_REGION": "us-east-1",
        "HOME": str(folder),
        "SAM_CLI_TELEMETRY": "0",
    }
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def cfn_lint(template: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    return run([str(Path(sys.executable).with_name("cfn-lint")), "--include-checks", "I", "--", str(template)], folder)


def sam_validate(template: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    return run([sys.executable, "-m", "samcli", "validate", "--lint", "--template", str(template)], folder)


def test_cfn_lint_has_nothing_to_say_not_even_a_hint(tmp_path: Path) -> None:
    linted = cfn_lint(SAM_TEMPLATE, tmp_path)
    assert (linted.stdout, linted.stderr, linted.returncode) == ("", "", 0)


def test_sam_calls_its_template_valid(tmp_path: Path) -> None:
    validated = sam_validate(SAM_TEMPLATE, tmp_path)
    assert validated.returncode == 0, validated.stderr
    assert "valid SAM Template" in validated.stdout


@pytest.mark.parametrize(
    ("validate", "right", "wrong"),
    [
        (cfn_lint, "TargetRole: READ_ONLY", "TargetRole: READER"),
        (cfn_lint, "      RequireTLS: true\n", "      RequireTls: true\n"),
        (sam_validate, "TargetRole: READ_ONLY", "TargetRole: READER"),  # one: it takes five seconds
    ],
)
def test_both_refuse_a_template_with_a_mistake(
    validate: Callable[[Path, Path], subprocess.CompletedProcess[str]], right: str, wrong: str, tmp_path: Path
) -> None:
    text = SAM_TEMPLATE.read_text(encoding="utf-8")
    assert right in text
    template = tmp_path / "template.yaml"
    template.write_text(text.replace(right, wrong, 1), encoding="utf-8")
    assert validate(template, tmp_path).returncode != 0


def test_cfn_lint_refuses_an_attribute_that_a_resource_does_not_have(tmp_path: Path) -> None:
    """`sam validate --lint` does not: aws-sam-cli 1.170 calls such a template valid."""
    template = tmp_path / "template.yaml"
    text = SAM_TEMPLATE.read_text(encoding="utf-8")
    template.write_text(text.replace("!GetAtt Proxy.Endpoint", "!GetAtt Proxy.Host"), encoding="utf-8")
    assert "'Host' is not one of" in cfn_lint(template, tmp_path).stdout


def test_the_template_has_no_yaml_aliases_which_cloudformation_does_not_take() -> None:
    tokens = [type(token).__name__ for token in yaml.scan(SAM_TEMPLATE.read_text(encoding="utf-8"))]
    assert "ScalarToken" in tokens
    assert not {"AliasToken", "AnchorToken"} & set(tokens)


def test_terraforms_own_formatter_would_change_nothing(tmp_path: Path) -> None:
    program = shutil.which("terraform")
    if program is None:
        pytest.skip("no terraform on this machine: neither PyPI nor Debian has it")
    formatted = run([program, "fmt", "-check", "-recursive", str(EXAMPLES / "terraform")], tmp_path)
    assert (formatted.stdout, formatted.returncode) == ("", 0)
