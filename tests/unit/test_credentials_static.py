from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lambda_dbconn import ConfigurationError, Credentials, Secret, StaticProvider
from lambda_dbconn.deadline import Deadline
from tests.unit.conftest import CANARY, local

if TYPE_CHECKING:
    from lambda_dbconn.testing.fakes import FakeClock


@pytest.fixture
def deadline(clock: FakeClock) -> Deadline:
    return Deadline(None, reserve_s=0, clock=clock)


@pytest.mark.parametrize("password", [Secret(CANARY), None])
def test_the_static_provider_gives_what_the_settings_say(deadline: Deadline, password: Secret | None) -> None:
    given = StaticProvider().fetch(local(password=password), deadline)
    assert given == Credentials(user="app", password=password)
    assert CANARY not in repr(given)


def test_a_refusal_of_what_never_changes_is_final() -> None:
    assert StaticProvider().refused(Credentials(user="app")) is False


def test_settings_without_a_user_are_a_configuration_error_that_names_the_variable(deadline: Deadline) -> None:
    settings = local(auth="secret", secret_id="s", user=None, sslmode="verify-full", prefix="DB_")
    with pytest.raises(ConfigurationError, match="DB_USER is not set"):
        StaticProvider().fetch(settings, deadline)
