"""The specification of a schedule: which forms make it due, what is excluded, from when until when."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, TypeAlias

from pydantic import Discriminator, Tag

from aion_es.errors import InvalidArgumentError
from aion_es.events.base import Instant
from aion_es.schedules.calendar import Calendar
from aion_es.schedules.cron import Cron
from aion_es.schedules.form import SpecForm
from aion_es.schedules.interval import Interval


def _kind(form: Any) -> str:
    if isinstance(form, dict):
        return next((name for name in ("cron", "every") if name in form), "calendar")
    if isinstance(form, Cron):
        return "cron"
    return "every" if isinstance(form, Interval) else "calendar"


Form: TypeAlias = Annotated[
    Annotated[Cron, Tag("cron")]
    | Annotated[Interval, Tag("every")]
    | Annotated[Calendar, Tag("calendar")],
    Discriminator(_kind),
]
"""One way to say when; as JSON it is known by its fields."""


class Spec(SpecForm):
    """When a schedule is due: whenever one of its forms is, unless one of `exclude` matches.

    Two forms that are due at the same instant make it due once.

    Attributes:
        times: The forms, at least one.
        exclude: What a due time must not match. A calendar's unsaid hours, minutes and seconds are all of them,
            and so are the seconds of a cron expression of five fields.
        start_at: Nothing is due before it.
        end_at: Nothing is due after it.
        jitter: An action is taken up to so much after its due time, and before the next one: by a length that the
            schedule's id and the due time decide. Default: at the due time.
        limit: So many actions are taken, counted from when the schedule was created or updated last; those that
            a person asks for are not counted. Default: no limit.
    """

    times: tuple[Form, ...]
    exclude: tuple[Form, ...] = ()
    start_at: Instant | None = None
    end_at: Instant | None = None
    jitter: timedelta = timedelta(0)
    limit: int | None = None

    def __init__(
        self,
        times: Cron | Interval | Calendar | Sequence[Cron | Interval | Calendar],
        *,
        exclude: Sequence[Cron | Interval | Calendar] = (),
        start_at: datetime | None = None,
        end_at: datetime | None = None,
        jitter: timedelta = timedelta(0),
        limit: int | None = None,
    ) -> None:
        """Check and keep it.

        Raises:
            InvalidArgumentError: There is no form; an instant is naive; `end_at` is before `start_at`; `jitter` is
                negative; `limit` is below 1.
        """
        super().__init__(
            times=tuple(times) if isinstance(times, Sequence) else (times,),
            exclude=tuple(exclude),
            start_at=_bound("start_at", start_at),
            end_at=_bound("end_at", end_at),
            jitter=jitter,
            limit=limit,
        )
        if not self.times:
            raise InvalidArgumentError("times", "must hold at least one form")
        if self.start_at is not None and self.end_at is not None and self.end_at < self.start_at:
            raise InvalidArgumentError("end_at", f"must not be before start_at, got {self.end_at}")
        if self.jitter < timedelta(0):
            raise InvalidArgumentError("jitter", f"must not be negative, got {self.jitter}")
        if self.limit is not None and self.limit < 1:
            raise InvalidArgumentError("limit", f"must be at least 1, got {self.limit}")


def _bound(name: str, instant: datetime | str | None) -> datetime | None:
    if isinstance(instant, str):  # as it was recorded
        instant = datetime.fromisoformat(instant)
    return None if instant is None else in_utc(name, instant)


def in_utc(name: str, instant: datetime) -> datetime:
    """Return the same instant in UTC.

    Raises:
        InvalidArgumentError: It is naive; names `name`.
    """
    if instant.utcoffset() is None:
        raise InvalidArgumentError(name, f"must be timezone-aware, got naive {instant.isoformat()}")
    return instant.astimezone(UTC)
