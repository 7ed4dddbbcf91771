from __future__ import annotations

import pickle
import warnings
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambda_dbconn import ConfigurationError, Secret, Settings
from tests.unit.conftest import CANARY, INSTANCE, PROXY, READER

FIELDS = [field for field in Settings._fields if field != "prefix"]

names = st.sampled_from([*(field.upper() for field in FIELDS), "URL", "HOSTNAME", "PASSWD", "PORT_"]) | st.text()
values = (
    st.text()
    | st.sampled_from(["postgresql", "mysql", "iam", "secret", "password", "verify-full", "disable", "1", "5432", ""])
    | st.sampled_from(["localhost", PROXY, READER, "nan", "1e400", "-0", "٣", "1_0", "mysql://a@h/n?port=1"])
    | st.floats().map(str)
    | st.integers().map(str)
).filter(lambda value: CANARY not in value)  # Hypothesis draws constants of this code, too

# Variables that show what they are given only when it is right.
checked = st.sampled_from(
    ["URL", "HOST", "READER_HOST", "SIGNING_HOST", "PORT", "ENGINE", "AUTH", "SSLMODE", "RESERVE_S"]
)

hosts = st.sampled_from(["localhost", "db.example.com", "::1", PROXY, READER, INSTANCE])
words = st.text(st.characters(min_codepoint=33, max_codepoint=0x2FF, categories=["L", "N", "P", "S"]), min_size=1)


@st.composite
def good_fields(draw: st.DrawFn) -> dict[str, Any]:
    """Draw fields that go together, as an environment with all of them set would give."""
    return {
        "engine": draw(st.sampled_from(["postgresql", "mysql"])),
        "host": draw(hosts),
        "port": draw(st.integers(1, 65535)),
        "name": draw(words),
        "user": draw(words),
        "reader_host": draw(hosts),
        "reader_fallback": draw(st.sampled_from(["none", "writer"])),
        "auth": draw(st.sampled_from(["iam", "secret", "password"])),
        "secret_id": draw(words),
        "password": Secret(draw(words)),
        "signing_host": draw(hosts),
        "region": draw(words),
        "sslrootcert": draw(words),
        "sslmode": "verify-full",
        "connect_timeout_s": draw(st.floats(0.1, 900)),
        "ping_idle_s": draw(st.floats(0, 86400)),
        "max_idle_s": draw(st.floats(1, 86400)),
        "max_lifetime_s": draw(st.floats(1, 86400)),
        "reserve_s": draw(st.floats(0, 60)),
        "max_connections": draw(st.integers(1, 100)),
        "on_pin": draw(st.sampled_from(["warn", "raise", "ignore"])),
        "warm_up": "init",
        "reset": draw(st.sampled_from(["always", "wait", "never"])),
    }


def read(environ: dict[str, str], **arguments: Any) -> Settings:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Settings.from_env(environ=environ, **arguments)


@given(good=good_fields(), prefix=st.sampled_from(["DB_", "SHOP_", "x"]))
def test_good_settings_come_back_from_the_environment_as_they_were(good: dict[str, Any], prefix: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        settings = Settings(**good, prefix=prefix)
    texts = {**{field: str(value) for field, value in good.items()}, "password": good["password"].reveal()}
    assert read({prefix + field.upper(): text for field, text in texts.items()}, prefix=prefix) == settings


@given(environ=st.dictionaries(names.map(lambda name: "DB_" + name), values, max_size=8), data=st.data())
def test_any_environment_gives_settings_or_a_configuration_error_and_never_shows_the_password(
    environ: dict[str, str], data: st.DataObject
) -> None:
    environ["DB_PASSWORD"] = CANARY + data.draw(st.text(max_size=3), label="end of the password")
    if data.draw(st.booleans(), label="a URL as well"):
        environ["DB_" + data.draw(checked, label="the variable of the URL")] = f"mysql://a:{CANARY}@h/n"
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            shown = repr(Settings.from_env(environ=environ))
        except ConfigurationError as error:
            shown = f"{error!s} {error!r} {error.faults} {pickle.dumps(error)!r}"
    assert CANARY not in shown
    assert CANARY not in str([warning.message for warning in told])


@given(
    good=good_fields(), spoilt=st.sets(st.sampled_from([field for field in FIELDS if field != "password"]), min_size=1)
)
def test_every_spoilt_variable_is_named_exactly_once(good: dict[str, Any], spoilt: set[str]) -> None:
    texts = {**{field: str(value) for field, value in good.items()}, "password": good["password"].reveal()}
    environ = {f"DB_{field.upper()}": "\x01" if field in spoilt else text for field, text in texts.items()}
    with pytest.raises(ConfigurationError) as caught:
        read(environ)
    named = [fault.split()[0] for fault in caught.value.faults]
    assert sorted(named) == sorted(f"DB_{field.upper()}" for field in spoilt)


@given(
    st.dictionaries(st.sampled_from(FIELDS), st.none() | st.booleans() | st.text() | st.floats() | st.lists(st.none()))
)
def test_any_arguments_give_settings_or_a_configuration_error(changes: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            Settings(**{"engine": "mysql", "host": "localhost", "port": 3306, "user": "app", **changes})
        except ConfigurationError:
            return
