from __future__ import annotations

import copy
import dataclasses
import pickle

import pytest

from lambda_dbconn._values import Value


class Point(Value):
    x: int
    y: int = 0
    _note = "not a field"


class Point3(Point):
    z: int = 7


class Even(Value):
    number: int

    def _check(self) -> None:
        if self.number % 2:
            raise ValueError("odd")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
    x: int
    y: int = 0


class Shadow(Value):
    """The same fields as `Model`."""

    x: int
    y: int = 0


def outcome(call: object, *args: object, **kwargs: object) -> str:
    """Return what a call does, in terms that do not depend on the class's name."""
    try:
        result = call(*args, **kwargs)  # type: ignore[operator] # called as a user would, wrongly at times
    except Exception as error:
        kind = AttributeError if isinstance(error, AttributeError) else type(error)  # FrozenInstanceError is one
        return kind.__name__
    return repr(result).replace("Shadow", "Model")


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((), {"x": 1}),
        ((), {"x": 1, "y": 2}),
        ((), {}),
        ((), {"y": 2}),
        ((), {"x": 1, "z": 3}),
        ((1,), {}),
        ((1, 2), {}),
    ],
)
def test_a_value_is_made_and_shown_like_a_frozen_keyword_only_dataclass(
    args: tuple[int, ...], kwargs: dict[str, int]
) -> None:
    assert outcome(Shadow, *args, **kwargs) == outcome(Model, *args, **kwargs)


@pytest.mark.parametrize("name", ["x", "y", "other"])
def test_a_value_refuses_changes_like_a_frozen_dataclass(name: str) -> None:
    for cls in (Model, Shadow):
        assert outcome(setattr, cls(x=1), name, 2) == "AttributeError"
        assert outcome(delattr, cls(x=1), name) == "AttributeError"


def test_values_are_equal_when_class_and_fields_are() -> None:
    assert Point(x=1) == Point(x=1, y=0)
    assert Point(x=1) != Point(x=2)
    assert Point(x=1) != Point3(x=1)
    assert Point3(x=1) != Point(x=1)
    assert Point(x=1) != "Point(x=1, y=0)"


def test_equal_values_hash_equal_and_serve_as_keys() -> None:
    assert hash(Point(x=1)) == hash(Point(y=0, x=1))
    assert {Point(x=1): "found"}[Point(x=1, y=0)] == "found"
    assert len({Point(x=1), Point3(x=1), Point(x=2)}) == 3


def test_a_value_with_an_unhashable_field_is_unhashable_like_a_dataclass() -> None:
    with pytest.raises(TypeError, match="unhashable"):
        hash(Point(x=[]))  # type: ignore[arg-type] # on purpose


def test_fields_of_the_base_class_come_first() -> None:
    assert Point3._fields == ("x", "y", "z")
    assert repr(Point3(z=3, y=2, x=1)) == "Point3(x=1, y=2, z=3)"


def test_names_with_an_underscore_are_no_fields() -> None:
    with pytest.raises(TypeError, match="does not know the argument '_note'"):
        Point(x=1, _note="")  # type: ignore[call-arg] # on purpose


def test_a_missing_and_an_unknown_argument_are_named() -> None:
    with pytest.raises(TypeError, match=r"Point\(\) needs the argument 'x'"):
        Point()  # type: ignore[call-arg] # on purpose
    with pytest.raises(TypeError, match=r"Point\(\) does not know the argument 'q'"):
        Point(x=1, q=2)  # type: ignore[call-arg] # on purpose


def test_replace_returns_a_changed_copy_and_leaves_the_original() -> None:
    point = Point(x=1, y=2)
    assert point.replace(y=3) == Point(x=1, y=3)
    assert point == Point(x=1, y=2)
    with pytest.raises(TypeError, match="'q'"):
        point.replace(q=1)


def test_what_is_wrong_with_the_fields_is_raised_at_construction_and_at_replace() -> None:
    with pytest.raises(ValueError, match="odd"):
        Even(number=1)
    with pytest.raises(ValueError, match="odd"):
        Even(number=2).replace(number=3)


def test_a_value_survives_pickle_and_copy() -> None:
    point = Point3(x=1, y=2, z=3)
    for twin in (pickle.loads(pickle.dumps(point)), copy.copy(point), copy.deepcopy(point)):
        assert twin == point
        assert hash(twin) == hash(point)
        with pytest.raises(AttributeError):
            twin.x = 2  # type: ignore[misc] # on purpose
