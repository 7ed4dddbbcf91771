"""The reference of permissions has what `iam-policy` prints, and no action more."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lambda_dbconn import ConfigurationError
from lambda_dbconn.cli.iam_policy.policy import Order, Statement, as_json, least_policy
from lambda_dbconn.credentials import secret_service
from lambda_dbconn.doctor import identity
from tests.unit.conftest import PROXY, local
from tests.unit.test_docs import ROOT

if TYPE_CHECKING:
    from types import ModuleType

PAGE = (ROOT / "docs" / "reference" / "iam-permissions.md").read_text(encoding="utf-8")
ACCOUNT, REGION = "123456789012", "us-east-1"
KEY = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/1234abcd"


def rows() -> dict[str, list[str]]:
    """Return the cells of the login's table, by Sid; the one without is that of a password."""
    table = re.search(r"(?:^\|.*\n)+", PAGE.partition("for the login\n")[2], flags=re.MULTILINE)
    assert table is not None
    lines = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in table[0].splitlines()[2:]]
    return {line[1].strip("`"): line for line in lines}


def policies() -> tuple[Statement, ...]:
    iam = local(host=PROXY, auth="iam", sslmode="verify-full", user="app")
    secret = local(host=PROXY, auth="secret", secret_id="prod/shop", sslmode="verify-full")
    return (
        *least_policy(iam, Order(account=ACCOUNT, resource_id="prx-0123")),
        *least_policy(secret, Order(account=ACCOUNT, kms_key=KEY)),
    )


def general(text: str) -> str:
    """Put the page's placeholders in the place of this test's values."""
    known = {REGION: "<REGION>", ACCOUNT: "<ACCOUNT_ID>", "prx-0123": "<RESOURCE_ID>", "1234abcd": "<KEY>"}
    for value, name in (known | {"prod/shop": "<NAME>", "/app": "/<USER>"}).items():
        text = text.replace(value, name)
    return text


def test_each_statement_of_the_least_policy_has_its_row_and_each_row_its_statement() -> None:
    printed = {each["Sid"]: each for each in as_json(policies())["Statement"]}
    assert set(rows()) == {*printed, ""}
    for sid, statement in printed.items():
        _, _, action, resource, condition = rows()[sid]
        assert [action.strip("`")] == statement["Action"]
        assert resource.strip("`") == general(statement["Resource"])
        keys = [
            f"`{key}` is `{general(value)}`"
            for keys in statement.get("Condition", {}).values()
            for key, (value,) in keys.items()
        ]
        assert condition == ", ".join(keys)


def test_a_password_needs_nothing() -> None:
    settings = local(host="db.example", auth="password", sslmode="verify-full")
    assert rows()[""][0] == "`DB_AUTH=password`"
    with pytest.raises(ConfigurationError):
        least_policy(settings, Order())


@pytest.mark.parametrize("module", [secret_service, identity], ids=lambda module: module.__name__)
def test_the_page_names_every_api_that_the_library_calls(module: ModuleType) -> None:
    called = re.findall(r"\bclient\.((?:get|describe|list|assume|put|generate)_\w+)\(", inspect.getsource(module))
    assert called
    for name in called:
        assert f":{''.join(word.title() for word in name.split('_'))}`" in PAGE


def test_nothing_else_of_the_package_makes_a_client_of_aws() -> None:
    folder = Path(secret_service.__file__).parents[1]
    makers = {path.name for path in folder.rglob("*.py") if ".create_client(" in path.read_text(encoding="utf-8")}
    assert makers == {"secret_service.py", "identity.py"}
