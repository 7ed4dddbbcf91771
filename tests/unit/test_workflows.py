"""The workflows: what they may do, that they run the project's own commands, and that they leave none out."""

from __future__ import annotations

import configparser
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = pytest.mark.once

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".github" / "workflows"
NAMES = ["ci", "release"]
# By hand and on purpose: whoever may do more is seen in the diff of this file.
PERMISSIONS = {
    ("ci", "test"): {"contents": "read"},
    ("ci", "check"): {"contents": "read"},
    ("ci", "audit"): {"contents": "read"},
    ("release", "test"): {"contents": "read"},
    ("release", "build"): {"contents": "read"},
    ("release", "attest"): {"id-token": "write", "attestations": "write"},
    ("release", "publish"): {"id-token": "write"},
}
OUR_COMMANDS = r"make (audit|dist)\b.*|python3 \.ci/prepare\.py .+|\.venv/bin/python -m tox run -e \S+"


def workflow(name: str) -> dict[str, Any]:
    """Return a workflow by the keys that are in the file: YAML 1.1 takes `on` for a boolean."""
    found: dict[str, Any] = yaml.load((FOLDER / f"{name}.yml").read_text(), Loader=yaml.BaseLoader)
    return found


def jobs(name: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = workflow(name)["jobs"]
    return found


def steps(name: str) -> list[tuple[str, dict[str, Any]]]:
    return [(job, step) for job, content in jobs(name).items() for step in content.get("steps", [])]


def supported_pythons() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found = (re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", text) for text in project["classifiers"])
    return [match[1] for match in found if match]


def tox_environments() -> set[str]:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(ROOT / "tox.ini")
    names = re.sub(r"py3\{(.+?)\}", lambda all_: all_[1].replace(",", "|"), parser["tox"]["env_list"])
    return {f"py3{part}" if part.isdigit() else part for name in names.split(",") for part in name.strip().split("|")}


def test_every_workflow_is_looked_at_here() -> None:
    assert sorted(path.stem for path in FOLDER.iterdir()) == NAMES
    assert {(name, job) for name in NAMES for job in jobs(name)} == set(PERMISSIONS)


@pytest.mark.parametrize("name", NAMES)
def test_a_job_may_do_what_it_is_given_and_nothing_else(name: str) -> None:
    assert workflow(name)["permissions"] == {}
    assert {job: content["permissions"] for job, content in jobs(name).items()} == {
        job: given for (owner, job), given in PERMISSIONS.items() if owner == name
    }


@pytest.mark.parametrize("name", NAMES)
def test_every_action_is_pinned_by_a_commit_and_says_which_version_that_is(name: str) -> None:
    lines = [line for line in (FOLDER / f"{name}.yml").read_text().splitlines() if "uses:" in line]
    strange = [line for line in lines if not re.search(r"uses: [\w-]+/[\w-]+@[0-9a-f]{40}  # v\d+\.\d+\.\d+$", line)]
    assert [line.strip() for line in strange] == (["uses: ./.github/workflows/ci.yml"] if name == "release" else [])


def test_an_action_has_one_commit_in_all_workflows() -> None:
    used = {step["uses"] for name in NAMES for _, step in steps(name) if "uses" in step}
    assert len(used) == len({action.partition("@")[0] for action in used})


@pytest.mark.parametrize("name", NAMES)
def test_what_is_run_are_the_projects_own_commands_and_nothing_is_put_into_them(name: str) -> None:
    commands = [step["run"] for _, step in steps(name) if "run" in step]
    assert commands
    assert [command for command in commands if not re.fullmatch(OUR_COMMANDS, command)] == []
    assert [command for command in commands if "${{" in command] == []  # it would be executed, whatever it says


@pytest.mark.parametrize("name", NAMES)
def test_no_job_runs_for_hours_and_no_checkout_leaves_a_token_behind(name: str) -> None:
    own = {job: content for job, content in jobs(name).items() if "steps" in content}
    assert {job for job, content in own.items() if not 0 < int(content.get("timeout-minutes", "0")) <= 60} == set()
    checkouts = [step for _, step in steps(name) if step.get("uses", "").startswith("actions/checkout@")]
    assert [step for step in checkouts if step.get("with") != {"persist-credentials": "false"}] == []


def test_ci_tests_on_every_python_that_the_package_says_it_supports() -> None:
    assert jobs("ci")["test"]["strategy"]["matrix"]["python"] == supported_pythons()


def test_ci_leaves_out_nothing_that_make_test_runs() -> None:
    on_pythons = {"py" + python.replace(".", "") for python in supported_pythons()}
    others = set(jobs("ci")["check"]["strategy"]["matrix"]["environment"])
    assert on_pythons | others == tox_environments()
    script = (ROOT / ".ci" / "test.py").read_text()
    assert {name for name in others if f'"{name}"' not in script} == set()


def test_known_vulnerabilities_are_asked_for_when_nobody_pushes() -> None:
    assert "schedule" in workflow("ci")["on"]
    assert jobs("ci")["audit"]["steps"][-1]["run"] == "make audit"


def test_a_release_is_made_of_a_tag_that_has_passed_the_tests() -> None:
    assert workflow("release")["on"] == {"push": {"tags": ["v*"]}}
    found = jobs("release")
    assert found["test"]["uses"] == "./.github/workflows/ci.yml"
    assert "workflow_call" in workflow("ci")["on"]
    assert [found[job]["needs"] for job in ("build", "attest", "publish")] == ["test", "build", "attest"]
    assert 'make dist TAG="$GITHUB_REF_NAME"' in [step.get("run") for step in found["build"]["steps"]]


def test_where_a_token_can_be_had_nothing_is_checked_out_built_or_installed() -> None:
    trusted = [job for (name, job), given in PERMISSIONS.items() if name == "release" and "id-token" in given]
    assert trusted == ["attest", "publish"]
    used = {job: [step.get("uses", "").partition("@")[0] for step in jobs("release")[job]["steps"]] for job in trusted}
    assert used == {
        "attest": ["actions/download-artifact", "actions/attest", "actions/attest"],
        "publish": ["actions/download-artifact", "pypa/gh-action-pypi-publish"],
    }


def test_what_is_published_has_provenance_and_an_sbom_and_needs_no_password() -> None:
    found = jobs("release")
    provenance, sbom = (step["with"] for step in found["attest"]["steps"][1:])
    assert provenance == {"subject-path": "dist/*"}
    assert sbom == {"subject-path": "dist/*.whl", "sbom-path": "sbom/lambda_dbconn.cdx.json"}
    publish = found["publish"]
    assert publish["environment"]["name"] == "pypi"
    assert publish["steps"][-1]["with"] == {"attestations": "true"}
    assert "secrets." not in (FOLDER / "release.yml").read_text()


def test_the_sbom_is_uploaded_by_the_name_that_it_is_made_by() -> None:
    assert '"build" / "lambda_dbconn.cdx.json"' in (ROOT / ".ci" / "package.py").read_text()
    uploads = [step["with"] for _, step in steps("release") if "upload-artifact" in step.get("uses", "")]
    assert [(upload["name"], upload["path"]) for upload in uploads] == [("dist", "dist/"), ("sbom", "build/*.cdx.json")]


def test_pinned_commits_are_kept_from_growing_old() -> None:
    updates = yaml.safe_load((ROOT / ".github" / "dependabot.yml").read_text())["updates"]
    assert [update["package-ecosystem"] for update in updates] == ["github-actions"]
