"""What is wrong about the extension before anything is asked of it."""

from __future__ import annotations

import pytest

from lambda_dbconn import ConfigurationError
from lambda_dbconn.credentials.secret_sources import ExtensionSource

VARIABLE = "PARAMETERS_SECRETS_EXTENSION_HTTP_PORT"


@pytest.mark.parametrize("text", ["http", "0", "-1", "65536", "²", "9" * 5000])
def test_a_port_that_is_none_is_an_error_that_names_the_variable(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(VARIABLE, text)
    with pytest.raises(ConfigurationError, match=f"{VARIABLE} is .*; accepted: a port, from 1 to 65535"):
        ExtensionSource()


@pytest.mark.parametrize("text", ["", "1", "65535"])
def test_a_port_is_taken_as_it_is_said(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(VARIABLE, text)
    assert ExtensionSource()._address == ("localhost", int(text or 2773))
