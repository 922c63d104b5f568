"""What `ctx.side_effect` gave one run: values, and errors, as they were recorded; else as they are made now.

An error is recorded like a value. Otherwise code that catches it would get, in replay, the value of the next call.
"""

import sys
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from aion_es.engine.commands import Command, RecordMarker
from aion_es.engine.limits import require_size
from aion_es.engine.loop import EvictedError
from aion_es.events.workflow import MarkerRecorded
from aion_es.payload import NOTHING, Payload

RAISED: Final = "raised"
"""Name of the marker of a call that raised."""
_TEXT_LIMIT: Final = 4_096


class _Raised(NamedTuple):
    """An error as it was recorded.

    Attributes:
        types: Its class and the bases of that, nearest first, each as `module:qualified name`.
        args: What it was made with.
    """

    types: list[str]
    args: list[Any]


class SideEffects:
    """The calls of `ctx.side_effect` of one run, in order.

    Args:
        names: What the code's module knows, where classes of errors are looked for first.
        max_bytes: How large a value may be.
        command: Takes the markers.
    """

    __slots__ = ("_command", "_max_bytes", "_names", "_recorded", "_refused")

    def __init__(
        self, names: Mapping[str, Any], max_bytes: int, command: Callable[[Command], None]
    ) -> None:
        self._names = names
        self._max_bytes = max_bytes
        self._command = command
        self._recorded: deque[Payload | _Raised] = deque()
        self._refused = False

    def expect(self, marker: MarkerRecorded) -> None:
        """Learn, before a replay, how the next call ended when it was first made."""
        if marker.name == RAISED and marker.value is not None:
            self._recorded.append(_Raised(**marker.value.data))
        else:
            self._recorded.append(marker.value or NOTHING)

    def refuse(self, make: Callable[[], Payload]) -> Payload:
        """Refuse a call of code on its way out of memory, where nothing can be recorded.

        Code that keeps the refusal to itself, in a bare `except` in a loop, would ask again for ever, and hold up the
        engine. So it gets what it would get if it ran, and nobody uses that; at its next await it is caught.

        Raises:
            EvictedError: At the first time.
            Exception: What `make` raised, later.
        """
        if not self._refused:
            self._refused = True
            raise EvictedError
        return make()

    def value(self, make: Callable[[], Payload], *, replaying: bool) -> Payload:
        """Return what `make` returned when it was first called here, or raise what it raised.

        Args:
            make: Makes the value.
            replaying: The call was made before. If nothing is recorded of it all the same, it raised in an
                engine that did not record that, and goes unrecorded again.

        Raises:
            PayloadTooLargeError: The value is too large; that is recorded.
            Exception: What `make` raised. Recorded, it is of the same class where that is found, else of its
                nearest base.
        """
        if self._recorded:
            recorded = self._recorded.popleft()
            if isinstance(recorded, _Raised):
                self._command(_marker(recorded))
                raise self._made_again(recorded)
            value = recorded
        else:
            try:
                value = make()
                require_size(value, self._max_bytes, "value of a side effect")
            except Exception as error:
                if not replaying:
                    self._command(_marker(_Raised(_types(error), _args(error))))
                raise
        self._command(RecordMarker("side_effect", "", value))
        return value

    def _made_again(self, recorded: _Raised) -> Exception:
        for name in recorded.types:
            found = self._class_of(name)
            if found is not None:
                try:
                    return found(*recorded.args)
                except Exception:  # noqa: BLE001, S112 - a class that is made in another way: its base will do
                    continue
        return Exception(*recorded.args)

    def _class_of(self, name: str) -> type[Exception] | None:
        module, _, path = name.partition(":")
        for known in list(self._names.values()):  # of its own version of the code
            if isinstance(known, type) and issubclass(known, Exception) and _name(known) == name:
                return known
        found: Any = sys.modules.get(module)
        for part in path.split("."):
            found = getattr(found, part, None)
        return found if isinstance(found, type) and issubclass(found, Exception) else None


def _marker(raised: _Raised) -> RecordMarker:
    return RecordMarker("side_effect", RAISED, Payload(data=raised._asdict()))


def _types(error: Exception) -> list[str]:
    return [_name(base) for base in type(error).__mro__ if issubclass(base, Exception)]


def _args(error: Exception) -> list[Any]:
    if all(arg is None or isinstance(arg, str | int | float) for arg in error.args):
        return [arg[:_TEXT_LIMIT] if isinstance(arg, str) else arg for arg in error.args]
    return [str(error)[:_TEXT_LIMIT]]


def _name(cls: type[Any]) -> str:
    return f"{cls.__module__}:{cls.__qualname__}"
