"""`CompositeObserver`: one observer that passes on to others."""

from __future__ import annotations

from lambda_dbconn._values import TYPE_CHECKING

if TYPE_CHECKING:
    from lambda_dbconn.events import Event, Observer


class CompositeObserver:
    """Tells each event to several observers, in this order; what one raises does not keep it from the others.

    Args:
        observers: Each is told what it does not ignore.
    """

    def __init__(self, *observers: Observer) -> None:
        self._observers = [(observer, _ignored_by(observer)) for observer in observers]
        everyone_ignores = [set(ignored) for _, ignored in self._observers] or [set()]
        self.ignores: tuple[type[Event], ...] = tuple(set.intersection(*everyone_ignores))

    def on_event(self, event: Event) -> None:
        """Tell all of them.

        Raises:
            ExceptionGroup: What some of them raised.
        """
        failures = []
        for observer, ignored in self._observers:
            if type(event) in ignored:
                continue
            try:
                observer.on_event(event)
            except Exception as error:  # noqa: BLE001 - the others are to be told all the same
                failures.append(error)
        if failures:
            raise ExceptionGroup("observers failed", failures)


def _ignored_by(observer: Observer) -> tuple[type[Event], ...]:
    return getattr(observer, "ignores", ())
