"""What a runner's metrics show of its projections: how they stood when it last looked."""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Final, NamedTuple

from aion_es.metrics import (
    PROJECTION_LAG,
    PROJECTION_LAG_TIME,
    PROJECTION_SKIPPED,
    PROJECTION_STOPPED,
    Attributes,
    Gauge,
    Values,
)
from aion_es.projections.members import labels
from aion_es.projections.status import ProjectionStatus

_GAUGES: Final[tuple[Gauge, ...]] = (
    PROJECTION_LAG,
    PROJECTION_LAG_TIME,
    PROJECTION_STOPPED,
    PROJECTION_SKIPPED,
)


class ProjectionMeter:
    """The gauges of the projections on one read model, while this process feeds them.

    Rows that are being made anew are shown beside those that answer, with `aion.rebuild` true.
    """

    def __init__(self, read_model: str) -> None:
        """Name the read model in every value."""
        self._read_model = read_model
        self._seen: list[_Seen] = []

    @property
    def is_asked(self) -> bool:
        """Whether somebody collects: then it is worth looking."""
        return any(gauge.is_asked for gauge in _GAUGES)

    def take(self, seen: Sequence[ProjectionStatus], skipped: Mapping[str, int]) -> None:
        """Show from now on how the projections stand, and how many events each was told to skip."""
        shown: list[_Seen] = []
        for status in seen:
            for one, is_rebuild in ((status, False), (status.rebuild, True)):
                if one is not None:
                    attributes = labels(one.name, self._read_model, is_rebuild)
                    shown.append(_Seen(one, skipped.get(one.name, 0), attributes))
        self._seen = shown  # at once: it may be read on another thread just now

    @contextmanager
    def shown(self) -> Generator[None]:
        """Have the gauges for as long as the block runs."""
        sources: tuple[Callable[[], Values], ...] = (
            self._lags,
            self._lag_times,
            self._stopped,
            self._skips,
        )
        with ExitStack() as stack:
            for gauge, source in zip(_GAUGES, sources, strict=True):
                stack.enter_context(gauge.fed_by(source))
            yield
        self._seen = []

    def _lags(self) -> Values:
        return [(one.status.lag, one.of) for one in self._seen if one.status.lag is not None]

    def _lag_times(self) -> Values:
        return [
            (one.status.lag_time.total_seconds(), one.of)
            for one in self._seen
            if one.status.lag_time is not None
        ]

    def _stopped(self) -> Values:
        return [(int(one.status.error is not None), one.of) for one in self._seen]

    def _skips(self) -> Values:
        return [(one.skipped, one.of) for one in self._seen]


class _Seen(NamedTuple):
    status: ProjectionStatus
    skipped: int
    of: Attributes
