"""A persistent subscription's settings: from messages, and as they are kept in the store."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from aion_es.store.port import Position
from aion_es.testing.eventstoredb.filters import Filter, FilterSpec
from aion_es.testing.eventstoredb.refusals import Refused, group_failed
from aion_es.testing.eventstoredb.wire import inner, outer

ALL: Final = "$all"
ROUND_ROBIN: Final = "RoundRobin"
DISPATCH_TO_SINGLE: Final = "DispatchToSingle"
PINNED: Final = "Pinned"
PINNED_BY_CORRELATION: Final = "PinnedByCorrelation"
STRATEGIES: Final = (DISPATCH_TO_SINGLE, ROUND_ROBIN, PINNED, PINNED_BY_CORRELATION)
_NAMES: Final = {0: DISPATCH_TO_SINGLE, 1: ROUND_ROBIN, 2: PINNED}
_TICKS_PER_MS: Final = 10_000


@dataclass(frozen=True, slots=True)
class GroupSettings:
    """Settings, named as in the protocol; durations in milliseconds.

    Attributes:
        stream: `$all` or a stream.
        start: Of a stream the first revision, of `$all` the first commit position, as the protocol
            counts it. None: at the end.
    """

    stream: str
    group: str
    start: int | None = None
    filter: FilterSpec | None = None
    resolve_links: bool = False
    extra_statistics: bool = False
    max_retry_count: int = 10
    min_checkpoint_count: int = 10
    max_checkpoint_count: int = 1000
    max_subscriber_count: int = 0
    live_buffer_size: int = 500
    read_batch_size: int = 20
    history_buffer_size: int = 500
    message_timeout: int = 30_000
    checkpoint_after: int = 2_000
    strategy: str = ROUND_ROBIN

    @classmethod
    def parse(cls, options: Any) -> "GroupSettings":
        """Return the settings that a request to create or update describes.

        Raises:
            Refused: A subscription cannot have them.
        """
        settings = options.settings
        stream, start, spec = _source(options)
        made = cls(
            stream=stream,
            group=options.group_name,
            start=start,
            filter=spec,
            resolve_links=settings.resolve_links,
            extra_statistics=settings.extra_statistics,
            max_retry_count=settings.max_retry_count,
            min_checkpoint_count=settings.min_checkpoint_count,
            max_checkpoint_count=settings.max_checkpoint_count,
            max_subscriber_count=settings.max_subscriber_count,
            live_buffer_size=settings.live_buffer_size,
            read_batch_size=settings.read_batch_size,
            history_buffer_size=settings.history_buffer_size,
            message_timeout=_milliseconds(settings, "message_timeout"),
            checkpoint_after=_milliseconds(settings, "checkpoint_after"),
            strategy=getattr(settings, "consumer_strategy", "")
            or _NAMES[settings.named_consumer_strategy],
        )
        made.check()
        return made

    def check(self) -> None:
        """Return if a subscription can have these settings.

        Raises:
            Refused: It cannot; says why.
        """
        if self.strategy not in STRATEGIES:
            raise self._failed(f"Consumer strategy {self.strategy} does not exist.")
        if self.history_buffer_size <= self.read_batch_size:
            raise self._failed("Buffer Size must be larger than readbatchsize")
        if self.filter is not None:
            Filter(self.filter)

    def _failed(self, reason: str) -> Refused:
        return group_failed(self.stream, self.group, reason)

    @property
    def key(self) -> tuple[str, str]:
        """By what the subscription is found."""
        return self.stream, self.group

    @property
    def subscription_id(self) -> str:
        """How its own streams are named, and what consumers are told."""
        return f"{self.stream}::{self.group}"

    @property
    def start_text(self) -> str:
        """Where it begins, as shown."""
        place = -1 if self.start is None else self.start
        return f"C:{place}/P:{place}" if self.stream == ALL else str(place)

    def updated(self, settings: "GroupSettings") -> "GroupSettings":
        """Return other settings with the filter of these: it cannot be changed."""
        return replace(settings, filter=self.filter)


def dump(groups: Iterable[GroupSettings]) -> bytes:
    """Return settings as they are kept."""
    return json.dumps({"version": "2", "entries": [asdict(group) for group in groups]}).encode()


def load(data: bytes) -> list[GroupSettings]:
    """Return settings that `dump` wrote."""
    entries: list[Mapping[str, Any]] = json.loads(data)["entries"]
    return [_entry(entry) for entry in entries]


def show_position(position: Position) -> str:
    """Return a position as the server shows it."""
    commit, prepare = outer(position)
    return f"C:{commit}/P:{prepare}"


def read_position(text: str) -> Position:
    """Return the position that `show_position` wrote."""
    commit, _, prepare = text.partition("/")
    return inner(int(commit[2:]), int(prepare[2:]))


def _entry(entry: Mapping[str, Any]) -> GroupSettings:
    fields = dict(entry)
    spec: dict[str, Any] | None = fields.pop("filter")
    if spec is None:
        return GroupSettings(**fields)
    prefixes: list[str] = spec.pop("prefixes")
    return GroupSettings(filter=FilterSpec(prefixes=tuple(prefixes), **spec), **fields)


def _source(options: Any) -> tuple[str, int | None, FilterSpec | None]:
    if options.WhichOneof("stream_option") == "all":
        begin = options.all.WhichOneof("all_option")
        start = {"end": None}.get(begin, 0)
        if begin == "position":
            start = options.all.position.commit_position
        filtered = hasattr(options.all, "filter") and options.all.HasField("filter")
        return ALL, start, FilterSpec.parse(options.all.filter) if filtered else None
    if options.WhichOneof("stream_option") == "stream":
        begin = options.stream.WhichOneof("revision_option")
        first = {"end": None}.get(begin, 0)
        if begin == "revision":
            first = options.stream.revision
        return options.stream.stream_identifier.stream_name.decode(), first, None
    # As clients before 21.10 say it.
    revision: int = options.settings.revision
    name: str = options.stream_identifier.stream_name.decode()
    return name, None if revision >= 2**63 else revision, None


def _milliseconds(settings: Any, name: str) -> int:
    if settings.WhichOneof(name) == f"{name}_ticks":
        ticks: int = getattr(settings, f"{name}_ticks")
        return ticks // _TICKS_PER_MS
    milliseconds: int = getattr(settings, f"{name}_ms")
    return milliseconds
