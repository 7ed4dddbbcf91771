from __future__ import annotations

import inspect
from typing import Any

import pytest

from lambda_dbconn import events
from lambda_dbconn.events import ConnectionOpened, Event

ALL = [
    value
    for value in vars(events).values()
    if isinstance(value, type) and issubclass(value, Event) and value is not Event
]
every_event = pytest.mark.parametrize("cls", ALL, ids=lambda cls: cls.__name__)
_SAMPLES: dict[str, Any] = {"str": "text", "int": 1, "float": 1.5, "bool": True}


def sample(cls: type[Event]) -> Event:
    """Make an event with a value of the declared type in each field."""
    annotations = {name: kind for base in reversed(cls.__mro__) for name, kind in inspect.get_annotations(base).items()}
    return cls(**{name: _SAMPLES[annotations[name]] for name in cls._fields})


def test_the_events_are_those_that_the_issue_promises() -> None:
    assert {cls.__name__ for cls in ALL} == {
        "ConnectionOpened",
        "ConnectionReused",
        "ConnectionReplaced",
        "ConnectFailed",
        "ConnectGaveUp",
        "WarmUpFailed",
        "CredentialsFetched",
        "CredentialsFailed",
        "PingFailed",
        "ResetDelayed",
        "TransactionRolledBack",
        "SessionPinned",
        "ConnectionClosed",
        "ConnectionReleased",
    }


@every_event
def test_every_event_says_where_before_anything_else(cls: type[Event]) -> None:
    assert cls._fields[0] == "endpoint"


@every_event
def test_no_event_has_a_field_for_a_secret_and_every_duration_has_its_unit(cls: type[Event]) -> None:
    for name in cls._fields:
        assert not {"password", "secret", "token", "credentials"} & set(name.split("_"))
        kind = inspect.get_annotations(cls).get(name)
        assert kind != "float" or name.endswith("_s")


@every_event
def test_an_event_is_frozen_and_hashable(cls: type[Event]) -> None:
    event = sample(cls)
    assert event == sample(cls)
    assert hash(event) == hash(sample(cls))
    with pytest.raises(AttributeError):
        event.endpoint = "elsewhere"  # type: ignore[misc] # on purpose


def test_an_event_takes_no_field_that_it_does_not_declare() -> None:
    with pytest.raises(TypeError, match="password"):
        ConnectionOpened(endpoint="h:1", reason="first", attempts=1, duration_s=0.0, password="x")  # type: ignore[call-arg] # on purpose
