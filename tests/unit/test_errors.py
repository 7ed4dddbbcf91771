from __future__ import annotations

import pickle
import re
from pathlib import Path

import pytest

from lambda_dbconn import errors
from lambda_dbconn.errors import (
    AuthenticationError,
    CommitUnknownError,
    ConfigurationError,
    ConnectError,
    ConnectTimeoutError,
    DeadlineExceededError,
    LambdaDbConnError,
    LambdaDbConnWarning,
    ProxyBusyError,
    TlsError,
    excerpt,
    without_frames,
)

ALL = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, LambdaDbConnError)]
_REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "errors.md"
every_error = pytest.mark.parametrize("cls", ALL, ids=lambda cls: cls.__name__)


def drawn_tree(text: str) -> dict[str, tuple[str, str | None]]:
    """Return name → (parent, what it is besides), as it is drawn in a text."""
    tree: dict[str, tuple[str, str | None]] = {}
    path: list[str] = []
    (root,) = re.findall(r"^ *LambdaDbConnError$", text, flags=re.MULTILINE)
    for line in text.splitlines():
        drawn = line.removeprefix(root.removesuffix("LambdaDbConnError"))
        found = re.match(r"([│├└─ ]*)(\w+Error)(?: \(also (\w+)\))?", drawn)
        if found:
            depth = len(found[1]) // 4
            del path[depth:]
            tree[found[2]] = (path[-1] if path else "Exception", found[3])
            path.append(found[2])
    return tree


@pytest.mark.parametrize("place", ["docstring", "reference"])
def test_the_tree_that_is_drawn_is_the_tree_of_the_classes(place: str) -> None:
    text = errors.__doc__ or "" if place == "docstring" else _REFERENCE.read_text(encoding="utf-8")
    classes = {
        cls.__name__: (cls.__bases__[0].__name__, cls.__bases__[1].__name__ if cls.__bases__[1:] else None)
        for cls in ALL
    }
    assert drawn_tree(text) == classes


@pytest.mark.parametrize(
    ("cls", "also"),
    [
        (ConfigurationError, ValueError),
        (ConnectTimeoutError, TimeoutError),
        (DeadlineExceededError, TimeoutError),
    ],
)
def test_an_error_that_python_has_a_name_for_is_caught_by_that_name(
    cls: type[LambdaDbConnError], also: type[Exception]
) -> None:
    with pytest.raises(also, match="what happened"):
        raise cls("what happened")


@every_error
def test_every_error_can_be_pickled_with_all_that_it_says(cls: type[LambdaDbConnError]) -> None:
    error = cls("what happened", remedy="Look there.", retryable=True)
    error.message += " (3 tries)"
    error.add_note("a note")
    twin = pickle.loads(pickle.dumps(error))
    assert type(twin) is cls
    assert vars(twin) == vars(error)
    assert str(twin) == str(error) == "what happened (3 tries). Look there."


def test_the_faults_of_a_configuration_error_survive_pickle() -> None:
    error = ConfigurationError("two faults", faults=["one", "two"])
    assert pickle.loads(pickle.dumps(error)).faults == ("one", "two")


def test_a_configuration_error_without_faults_has_its_message_for_one() -> None:
    assert ConfigurationError("no").faults == ("no",)


@every_error
def test_an_error_says_what_happened_and_then_what_to_check(cls: type[LambdaDbConnError]) -> None:
    assert str(cls("It broke", remedy="Mend it.")) == "It broke. Mend it."
    assert str(cls("It broke.", remedy="Mend it.")) == "It broke. Mend it."
    assert str(cls("It broke", remedy="")) == "It broke"


@every_error
def test_remedy_and_retryable_given_to_one_error_do_not_change_its_class(cls: type[LambdaDbConnError]) -> None:
    before = (cls.remedy, cls.retryable)
    cls("It broke", remedy="Mend it.", retryable=not cls.retryable)
    assert (cls.remedy, cls.retryable) == before


@every_error
def test_a_remedy_of_a_class_is_one_sentence(cls: type[LambdaDbConnError]) -> None:
    assert cls.remedy == "" or (cls.remedy.endswith(".") and cls.remedy.count(". ") == 0)


@pytest.mark.parametrize(
    "cls",
    [ConfigurationError, AuthenticationError, TlsError, CommitUnknownError, ConnectError],
    ids=lambda c: c.__name__,
)
def test_what_no_repetition_mends_is_not_retryable(cls: type[LambdaDbConnError]) -> None:
    assert not cls("It broke").retryable


@pytest.mark.parametrize("cls", [ConnectTimeoutError, ProxyBusyError, DeadlineExceededError], ids=lambda c: c.__name__)
def test_what_time_may_mend_is_retryable(cls: type[LambdaDbConnError]) -> None:
    assert cls("It broke").retryable


def test_the_warning_is_a_user_warning_and_no_error() -> None:
    assert issubclass(LambdaDbConnWarning, UserWarning)
    assert not issubclass(LambdaDbConnWarning, LambdaDbConnError)


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("plain words, ünïcode and 日本", "plain words, ünïcode and 日本"),
        ("two\n\tlines\r\n", "two lines"),
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("a\u202eb\u200bc\ud800", r"a\u202eb\u200bc\ud800"),
        ("x" * 500, "x" * 500),
        ("x" * 501, "x" * 500 + "… (501 characters)"),
        ("\x1b" * 10_000_000, r"\x1b" * 125 + "… (10000000 characters)"),
        (" " * 10_000_000, "… (10000000 characters)"),
    ],
    ids=lambda value: str(len(value)),
)
def test_an_excerpt_is_one_printable_line_of_bounded_length(said: str, shown: str) -> None:
    assert excerpt(said) == shown


def test_an_error_without_frames_says_no_more_than_an_excerpt() -> None:
    inner = ValueError("x" * 10_000_000)
    error = RuntimeError(7, "\x1b[2J")
    error.__cause__ = inner
    assert without_frames(error, outer=None) is error
    assert error.args == (7, r"\x1b[2J")
    assert len(str(inner)) < 600


def test_an_error_of_the_callers_own_is_left_as_it_is() -> None:
    outer = ValueError("x" * 1_000)
    error = RuntimeError("line one\nline two")
    error.__context__ = outer
    without_frames(error, outer=outer)
    assert outer.args == ("x" * 1_000,)
    assert error.args == ("line one line two",)
