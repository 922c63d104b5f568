"""Which events of `$all` a reader wants: by stream or type, by prefixes or a regular expression."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from aion_es.store.port import RecordedEvent
from aion_es.testing.eventstoredb.refusals import bad_request

DEFAULT_WINDOW: Final = 32
"""Events between two looks at whether a checkpoint is due, where the reader names no window."""
_MEMORY: Final = 10_000


@dataclass(frozen=True, slots=True)
class FilterSpec:
    """What is wanted.

    Attributes:
        by_stream: By the stream's name; else by the event's type.
        regex: It is found in the name; empty if there are prefixes.
        prefixes: The name begins with one of these.
        interval: So many events pass before a subscriber is told how far it is.
    """

    by_stream: bool
    regex: str
    prefixes: tuple[str, ...]
    interval: int

    @classmethod
    def parse(cls, options: Any) -> "FilterSpec":
        """Return what a message describes.

        Raises:
            Refused: It describes nothing.
        """
        kind: str | None = options.WhichOneof("filter")
        if kind is None:
            raise bad_request("The filter names neither streams nor event types")
        expression = getattr(options, kind)
        window: int = options.max if options.WhichOneof("window") == "max" else DEFAULT_WINDOW
        multiplier: int = options.checkpointIntervalMultiplier
        return cls(
            by_stream=kind == "stream_identifier",
            regex=expression.regex,
            prefixes=tuple(expression.prefix),
            interval=max(window, 1) * max(multiplier, 1),
        )


class Filter:
    """Tells which events match; remembers what it decided, since names come again and again.

    Raises:
        Refused: The regular expression cannot be understood.
    """

    def __init__(self, spec: FilterSpec) -> None:
        self._test = _test(spec)
        self._by_stream = spec.by_stream
        self._decided: dict[str, bool] = {}
        self.interval = spec.interval

    def matches(self, event: RecordedEvent) -> bool:
        """Say whether the event is wanted."""
        name = event.stream if self._by_stream else event.type
        decided = self._decided.get(name)
        if decided is None:
            if len(self._decided) >= _MEMORY:
                self._decided.clear()
            decided = self._decided[name] = self._test(name)
        return decided


def _test(spec: FilterSpec) -> Callable[[str], bool]:
    if not spec.regex:
        return lambda name: name.startswith(spec.prefixes)
    try:
        pattern = re.compile(spec.regex)
    except re.error as error:
        raise bad_request(f"Invalid regular expression {spec.regex!r}: {error}") from error
    return lambda name: pattern.search(name) is not None
